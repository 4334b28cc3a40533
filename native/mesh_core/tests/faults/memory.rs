//! What clients that do not read can make the gateway hold: memory and descriptors, read from outside
//! of its process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::client::{Client, get, get_target};
use crate::support::{PATIENCE, eventually};

const DOWNLOADS: usize = 600;
/// The promise: by so much the process grows at most.
const MOST_GROWTH: usize = 96 * 1024 * 1024;
const LONG: usize = 64 * 1024 * 1024;

struct Process {
    child: Child,
    ask: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Process {
    fn start(endpoint: SocketAddr) -> Process {
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
fn endpoint() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    socket.listen(4096).expect("listen");
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().expect("address");
    let answering = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answering);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let builder = std::thread::Builder::new().stack_size(128 * 1024);
            let (mut stream, count) = (stream.expect("a connection"), Arc::clone(&count));
            // Ends when the gateway closes.
            let _ = builder.spawn(move || while serve(&mut stream, &count).is_some() {});
        }
    });
    (address, answering)
}

fn serve(stream: &mut TcpStream, answering: &AtomicUsize) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let size = head.split(' ').nth(1).and_then(|path| path[1..].parse().ok()).unwrap_or(LONG);
    answering.fetch_add(1, Ordering::Relaxed);
    let answered = answer(stream, size);
    answering.fetch_sub(1, Ordering::Relaxed);
    answered.ok()
}

fn answer(stream: &mut TcpStream, size: usize) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())?;
    let piece = [b'x'; 32 * 1024];
    let mut left = size;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now])?;
        left -= now;
    }
    Ok(())
}

/// The gateway's memory and descriptors before, with these unread downloads, and after them.
fn unread<T>(downloads: usize, open: impl Fn(SocketAddr) -> Vec<T>) {
    let (endpoint, answering) = endpoint();
    let mut process = Process::start(endpoint);
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
fn unread_downloads_stay_small() {
    with_descriptors("memory::downloads");
}

#[test]
fn unread_streams_stay_small() {
    with_descriptors("memory::streams");
}

#[test]
#[ignore = "run by unread_downloads_stay_small in a process of its own"]
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
#[ignore = "run by unread_streams_stay_small in a process of its own"]
fn streams() {
    const CONNECTIONS: usize = 16;
    const STREAMS: usize = 100;
    const MOST: u32 = 0x7fff_ffff;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    let window = MOST.to_be_bytes();
    let settings = [&[0, 4][..], &window].concat();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(4, 0, 0, &settings));
    opening.extend(frame(8, 0, 0, &(MOST - 65_535).to_be_bytes()));
    // GET, http, /, and an authority.
    let head = b"\x82\x86\x84\x01\x06a.test";
    for stream in 0..STREAMS as u32 {
        opening.extend(frame(1, 5, 2 * stream + 1, head));
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
