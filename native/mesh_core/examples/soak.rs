//! Traffic with faults for as long as you like, every answer checked:
//!
//!     cargo run --release -p mesh_core --example soak -- MINUTES [REQUESTS_PER_SECOND]
//!
//! Every request carries a number of its own, which must come back in its answer and in no other.
//! Endpoints close, reset, cut off, hang and answer nonsense at random, each saying in the request's
//! path what it is going to do, so that what the client gets can be judged exactly. Clients leave
//! in the middle. The routing table is swapped all the while. At the end nothing may be open.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_core::{Config, UpstreamAddr};
use support::client::Client;
use support::mesh::{Mesh, service};
use support::wire;

const CLIENTS: u64 = 24;
const ENDPOINTS: usize = 4;

#[derive(Default)]
struct Count {
    right: AtomicU64,
    /// Faults that the client was told of, as it should be.
    faults: AtomicU64,
    left: AtomicU64,
    wrong: AtomicU64,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<f64>().expect("a number"));
    let minutes = arguments.next().unwrap_or(1.0);
    let rate = arguments.next().unwrap_or(10_000.0);
    let endpoints: Vec<SocketAddr> = (0..ENDPOINTS).map(|_| endpoint()).collect();
    let upstreams: Vec<UpstreamAddr> = endpoints.iter().copied().map(UpstreamAddr::Tcp).collect();
    let table = |turn: usize| {
        let mut turned = upstreams.clone();
        turned.rotate_left(turn % ENDPOINTS);
        vec![service("a.test", &turned), service("b.test", &turned[..1 + turn % ENDPOINTS])]
    };
    let mut config = Config { workers: 1, ..Config::default() };
    config.timeouts.response = Some(Duration::from_secs(5));
    let mut mesh = Mesh::start(config, table(0), None);
    let (address, count) = (mesh.address(), Arc::new(Count::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let pause = Duration::from_secs_f64(CLIENTS as f64 / rate);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || client(address, id, pause, &stop, &count))
        })
        .collect();

    let (began, end) = (Instant::now(), Duration::from_secs_f64(minutes * 60.0));
    let mut report = Duration::ZERO;
    let mut turn = 0;
    while began.elapsed() < end {
        std::thread::sleep(Duration::from_millis(100));
        turn += 1;
        mesh.gateway.set_routes(table(turn), None).expect("routes");
        if began.elapsed() >= report {
            report += Duration::from_secs(15);
            say(began, &count);
        }
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("a client panicked"));
    mesh.wait_idle();
    say(began, &count);
    let stats = mesh.stats();
    for (name, s) in &stats.services {
        println!(
            "{name}: {} requests, {} in flight, {} retries, {} upstream connections opened, {} reused",
            s.requests,
            s.in_flight,
            s.retries,
            s.upstream_connections_opened,
            s.upstream_connections_reused,
        );
    }
    mesh.stop(Some(Duration::from_secs(5)));
    assert_eq!(count.wrong.load(Ordering::Relaxed), 0, "wrong answers");
    assert_eq!(stats.gateway.panics, 0);
}

fn say(began: Instant, count: &Count) {
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (right, faults) = (get(&count.right), get(&count.faults));
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seconds:6.1} s: {right} right, {faults} faults told, {} left, {} WRONG, {:.0}/s, {} KiB",
        get(&count.left),
        get(&count.wrong),
        (right + faults) as f64 / seconds,
        resident(),
    );
}

/// Resident memory of this process (clients and endpoints included), in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A small generator, so that a run can be told from another but needs no crate.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What a request asks the endpoint to do; most of the time, to answer.
const DEEDS: [&str; 10] = [
    "length",
    "length",
    "chunked",
    "until-close",
    "reset",
    "close",
    "cut",
    "cut-chunked",
    "nonsense",
    "bye",
];

fn client(address: SocketAddr, id: u64, pause: Duration, stop: &AtomicBool, count: &Count) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (id + 1));
    let mut connection: Option<Client> = None;
    let mut next = Instant::now();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        // The pace, not a wait for anything. Who has been held up by an endpoint that hangs catches up.
        next = (next + pause).max(Instant::now() - Duration::from_secs(10));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        n += 1;
        let deed = match dice.roll(100) {
            0 if dice.roll(500) == 0 => "hang",
            sides @ 0..20 => DEEDS[sides as usize % DEEDS.len()],
            _ => "length",
        };
        let target = format!("/{id}/{n}/{deed}");
        let host = if dice.roll(2) == 0 { "a.test" } else { "b.test" };
        let post = dice.roll(4) == 0;
        let body = "x".repeat(if post { dice.roll(3_000) as usize } else { 0 });
        let request = if post {
            let length = body.len();
            format!(
                "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        } else {
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        };
        let mut client = connection.take().unwrap_or_else(|| Client::connect(address));
        if client.try_send(request.as_bytes()).is_err() {
            count.wrong.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if dice.roll(200) == 0 {
            count.left.fetch_add(1, Ordering::Relaxed);
            if dice.roll(2) == 0 {
                client.reset();
            }
            continue;
        }
        let want = format!("{target} {}", body.len());
        let answer = client.try_response(false);
        match judge(deed, post, &want, &answer) {
            Judged::Right => count.right.fetch_add(1, Ordering::Relaxed),
            Judged::Fault => count.faults.fetch_add(1, Ordering::Relaxed),
            Judged::Wrong => {
                eprintln!("{target}: {answer:?}");
                count.wrong.fetch_add(1, Ordering::Relaxed)
            }
        };
        if answer.is_ok_and(|a| a.fields.all("connection").is_empty()) && client.buffer.is_empty() {
            connection = Some(client);
        }
    }
}

enum Judged {
    Right,
    Fault,
    Wrong,
}

fn judge(
    deed: &str,
    post: bool,
    want: &str,
    answer: &Result<wire::Response, support::client::Broken>,
) -> Judged {
    let whole = matches!(deed, "length" | "chunked" | "until-close" | "bye");
    match answer {
        Ok(a) if whole && a.status == 200 && a.body == want.as_bytes() => Judged::Right,
        Ok(a) if deed == "hang" && a.status == 504 => Judged::Fault,
        Ok(a) if !whole && deed != "hang" && a.status == 502 => Judged::Fault,
        // A kept connection that the endpoint closed ("bye") just as a POST was sent on it: that is
        // told, and it is never sent twice. A GET must not notice.
        Ok(a) if whole && post && a.status == 502 => Judged::Fault,
        Err((end, _)) if !whole && *end != support::client::End::Silent => Judged::Fault,
        _ => Judged::Wrong,
    }
}

/// Does what the path of each request says.
fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            let small = std::thread::Builder::new().stack_size(256 * 1024);
            let _ = small.spawn(move || while serve(&stream).is_some() {});
        }
    });
    address
}

fn serve(mut stream: &TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    let mut piece = [0; 8192];
    let (request, body) = loop {
        if let Some(size) = wire::head_size(&bytes) {
            let (request, length) = wire::request(&bytes[..size]).ok()?;
            let progress = wire::body(&bytes[size..], length).ok()?;
            if progress.done {
                break (request, progress.body);
            }
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    };
    let deed = request.target.rsplit('/').next()?.to_string();
    let text = format!("{} {}", request.target, body.len());
    let n = text.len();
    let with_length = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n{text}");
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{n:x}\r\n{text}\r\n");
    let mut say = |text: String| stream.write_all(text.as_bytes()).ok();
    match deed.as_str() {
        "length" => say(with_length),
        "chunked" => say(chunked + "0\r\n\r\n"),
        "until-close" => say(format!("HTTP/1.1 200 OK\r\n\r\n{text}")).and(None),
        "bye" => say(with_length).and(None),
        "cut" => say(with_length[..with_length.len() - 1].to_string()).and(None),
        "cut-chunked" => say(chunked).and(None),
        "nonsense" => say("HTTP/1.1 nonsense\r\n\r\n".into()).and(None),
        "reset" => {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            None
        }
        "hang" => {
            // Until the gateway has had enough.
            while stream.read(&mut piece).is_ok_and(|n| n > 0) {}
            None
        }
        _ => None,
    }
}
