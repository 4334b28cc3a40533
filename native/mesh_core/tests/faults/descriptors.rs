//! Out of file descriptors: accepting must not spin, and must go on once there are some again.
//! The gateway runs in a process of its own, this same test binary under a low `ulimit -n`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mesh_core::{Config, UpstreamAddr};
use serde_json::Value;

use crate::support::client::{Client, get};
use crate::support::endpoint::Endpoint;
use crate::support::mesh::Mesh;

pub const UPSTREAM: &str = "MESH_TEST_UPSTREAM";

/// The gateway process: says its address, then its counters whenever it is asked.
#[test]
#[ignore = "run by accepting_goes_on_after_running_out_of_descriptors in a process of its own"]
fn gateway_process() {
    let Ok(upstream) = std::env::var(UPSTREAM) else { return };
    let upstream = UpstreamAddr::Tcp(upstream.parse().expect("an address"));
    let mesh = Mesh::to(Config::default(), &upstream);
    let mut out = std::io::stderr();
    writeln!(out, "{}", mesh.address()).expect("stderr");
    for _ in std::io::stdin().lines() {
        let stats = serde_json::to_string(&mesh.stats()).expect("counters");
        writeln!(out, "{stats}").expect("stderr");
    }
}

/// What the gateway process counts.
struct Counters {
    accept_errors: u64,
    open: u64,
    connect_errors: u64,
    upstream_errors: u64,
    gateway_errors: u64,
    out_of_sockets: u64,
}

impl Counters {
    fn read(line: &str) -> Counters {
        let stats: Value = serde_json::from_str(line).expect("counters");
        let at = |path| stats.pointer(path).and_then(Value::as_u64).expect(path);
        Counters {
            accept_errors: at("/gateway/accept_errors"),
            open: at("/gateway/connections_open"),
            connect_errors: at("/total/connect_errors"),
            upstream_errors: at("/total/upstream_errors"),
            gateway_errors: at("/total/gateway_errors"),
            out_of_sockets: at("/total/errors/out_of_sockets"),
        }
    }
}

#[test]
fn accepting_goes_on_after_running_out_of_descriptors() {
    let endpoint = Endpoint::start();
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(program)
        .args(["descriptors::gateway_process", "--exact", "--ignored", "--nocapture"])
        .env(UPSTREAM, format!("127.0.0.1:{}", endpoint.port()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a gateway process");
    let mut ask = child.stdin.take().expect("stdin");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let mut next_line = move || lines.next().expect("a line").expect("text");
    let address = next_line().parse().expect("an address");
    let mut counters = move || {
        ask.write_all(b"?\n").expect("stdin");
        Counters::read(&next_line())
    };

    let mut clients: Vec<Client> = (0..150).map(|_| Client::connect(address)).collect();
    let mut until = Instant::now() + crate::support::PATIENCE;
    while counters().accept_errors == 0 {
        assert!(Instant::now() < until, "it never ran out");
    }
    // Those who are in are served or told that it cannot be done, each of them, and told whose
    // fault it is: not the endpoint's.
    let inside = counters().open;
    assert!(inside > 10);
    let mut refused = 0;
    for client in clients.iter_mut().take(inside as usize) {
        let answer = client.ask(get(""));
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.line);
        if answer.status == 503 {
            assert_eq!(answer.fields.one("retry-after").as_deref(), Some("1"));
            refused += 1;
        }
    }
    let counted = counters();
    assert!(refused > 0);
    assert_eq!((counted.out_of_sockets, counted.gateway_errors), (refused, refused));
    assert_eq!((counted.upstream_errors, counted.connect_errors), (0, 0));
    // It tries again from time to time, and that is all it does.
    let (before, began) = (counters().accept_errors, Instant::now());
    while began.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let tries = counters().accept_errors - before;
    assert!(tries < 100, "accept failed {tries} times in half a second");

    clients.clear();
    until = Instant::now() + crate::support::PATIENCE;
    while counters().open > 0 {
        assert!(Instant::now() < until, "connections stayed open");
    }
    for _ in 0..20 {
        assert_eq!(Client::connect(address).ask(get("")).status, 200);
    }
    // The gateway process ends when its stdin does, which the closure owns.
    drop(counters);
    let status = child.wait().expect("the end");
    assert!(status.success());
}
