//! What clients that do not read can make the gateway hold: memory and descriptors, read from outside
//! of its process.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use mesh_core::UpstreamAddr;
use serde_json::Value;

use crate::support::client::{Client, get, get_target};
use crate::support::frames::{
    END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::hyper_ends::{HyperEndpoint, streamed};
use crate::support::{PATIENCE, eventually};

const DOWNLOADS: usize = 600;
/// The promise: by so much the process grows at most.
const MOST_GROWTH: usize = 96 * 1024 * 1024;
const LONG: usize = 64 * 1024 * 1024;
const PIECE: &[u8] = &[b'x'; 32 * 1024];

struct Process {
    child: Child,
    ask: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Process {
    fn start(endpoint: &UpstreamAddr) -> Process {
        let UpstreamAddr::Tcp(endpoint) = endpoint else { panic!("a port") };
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["descriptors::gateway_process", "--exact", "--ignored", "--nocapture"])
            .env(crate::descriptors::UPSTREAM, endpoint.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a gateway process");
        let ask = child.stdin.take();
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let address = lines.next().expect("a line").expect("text").parse().expect("an address");
        Process { child, ask, lines, address }
    }

    fn counter(&mut self, path: &str) -> u64 {
        self.ask.as_mut().expect("stdin").write_all(b"?\n").expect("stdin");
        let line = self.lines.next().expect("a line").expect("text");
        let stats: Value = serde_json::from_str(&line).expect("counters");
        stats.pointer(path).and_then(Value::as_u64).expect(path)
    }

    /// What it has of the machine's memory, in bytes.
    fn memory(&self) -> usize {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).expect("/proc");
        let pages: usize = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("pages");
        pages * 4096
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("/proc").count()
    }

    /// Waits until so many requests are being answered and nothing moves any more.
    fn settle(&mut self, answering: &AtomicUsize, requests: usize) {
        let (mut before, mut since) = (u64::MAX, Instant::now());
        let until = since + PATIENCE * 12;
        while since.elapsed() < Duration::from_millis(500)
            || answering.load(Ordering::Relaxed) != requests
            || self.counter("/total/in_flight") != requests as u64
        {
            assert!(Instant::now() < until, "it never comes to rest");
            let sent = self.counter("/total/response_body_bytes");
            if sent != before {
                (before, since) = (sent, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ends(mut self) {
        drop(self.ask.take());
        assert!(self.child.wait().expect("the end").success());
    }
}

/// Answers every request with as many bytes as its path says, as fast as they are taken; how many it
/// is answering.
fn endpoint() -> (HyperEndpoint, Arc<AtomicUsize>) {
    let answering = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&answering);
    let endpoint = HyperEndpoint::start(move |request| {
        let size = request.uri().path()[1..].parse().unwrap_or(LONG);
        let (mut sender, body) = streamed();
        let count = Arc::clone(&count);
        count.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(async move {
            for at in (0..size).step_by(PIECE.len()) {
                let piece = Bytes::from_static(&PIECE[..PIECE.len().min(size - at)]);
                if sender.send_data(piece).await.is_err() {
                    break;
                }
            }
            count.fetch_sub(1, Ordering::Relaxed);
        });
        let response = Response::builder().header("content-length", size).body(body);
        std::future::ready(response.expect("a response"))
    });
    (endpoint, answering)
}

/// The gateway's memory and descriptors before, with these unread downloads, and after them.
fn unread<T>(downloads: usize, open: impl Fn(SocketAddr) -> Vec<T>) {
    let (endpoint, answering) = endpoint();
    let mut process = Process::start(&endpoint.address);
    assert_eq!(Client::connect(process.address).ask(get_target("/1000")).status, 200);
    process.settle(&answering, 0);
    let (memory, descriptors) = (process.memory(), process.descriptors());
    for round in 0..2 {
        let clients = open(process.address);
        process.settle(&answering, downloads);
        let growth = process.memory().saturating_sub(memory);
        println!("{downloads} unread downloads: {} KiB more", growth / 1024);
        assert!(growth < MOST_GROWTH, "round {round}: {} KiB more", growth / 1024);
        // A client that reads gets what it asks for.
        let mut reader = Client::connect(process.address).patience(PATIENCE * 6);
        let answer = reader.ask(get_target("/2000000"));
        assert_eq!((answer.status, answer.body.len()), (200, 2_000_000));
        drop((clients, reader));
        eventually("all have left", || process.counter("/gateway/connections_open") == 0);
        eventually("all descriptors are closed", || process.descriptors() <= descriptors + 1);
    }
    process.ends();
}

/// Runs a test of this file in a process of its own, which may open more files than is usual.
fn with_descriptors(test: &str) {
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 8192 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--ignored", "--nocapture"])
        .status()
        .expect("sh");
    assert!(status.success(), "see above; it needs `ulimit -n 8192`");
}

#[test]
fn unread_downloads_use_bounded_memory() {
    with_descriptors("memory::downloads");
}

#[test]
fn unread_streams_use_bounded_memory() {
    with_descriptors("memory::streams");
}

#[test]
#[ignore = "run by unread_downloads_use_bounded_memory in a process of its own"]
fn downloads() {
    unread(DOWNLOADS, |address| {
        let ask = |_| {
            let mut client = Client::connect_small(address);
            client.send(get(""));
            client
        };
        (0..DOWNLOADS).map(ask).collect()
    });
}

/// Many to a connection, each with as much room as HTTP/2 can give it.
#[test]
#[ignore = "run by unread_streams_use_bounded_memory in a process of its own"]
fn streams() {
    const CONNECTIONS: usize = 16;
    const STREAMS: usize = 100;
    const MOST: u32 = 0x7fff_ffff;
    let window = MOST.to_be_bytes();
    let settings = [&[0, 4][..], &window].concat();
    let mut opening = [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat();
    opening.extend(frame(WINDOW_UPDATE, 0, 0, &(MOST - 65_535).to_be_bytes()));
    for stream in 0..STREAMS as u32 {
        opening.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &block(&GET)));
    }
    unread(CONNECTIONS * STREAMS, move |address| {
        let ask = |_| {
            let mut client = Client::connect_small(address);
            client.send(&opening);
            client
        };
        (0..CONNECTIONS).map(ask).collect()
    });
}
