//! Out of file descriptors: accepting must not spin, and must go on once there are some again.
//! The gateway runs in a process of its own, this same test binary under a low `ulimit -n`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mesh_core::{Config, UpstreamAddr};

use crate::support::client::{Client, get};
use crate::support::endpoint::Endpoint;
use crate::support::mesh::Mesh;

const UPSTREAM: &str = "MESH_TEST_UPSTREAM";

/// The gateway process: says its port, then its counters whenever it is asked.
#[test]
#[ignore = "run by out_of_descriptors in a process of its own"]
fn gateway_process() {
    let Ok(upstream) = std::env::var(UPSTREAM) else { return };
    let upstream = UpstreamAddr::Tcp(upstream.parse().expect("an address"));
    let mesh = Mesh::to(Config::default(), &upstream);
    let mut out = std::io::stderr();
    writeln!(out, "{}", mesh.address()).expect("stderr");
    for _ in std::io::stdin().lines() {
        let stats = mesh.stats().gateway;
        writeln!(out, "{} {}", stats.accept_errors, stats.connections_open).expect("stderr");
    }
}

#[test]
fn out_of_descriptors() {
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
        let line = next_line();
        let (errors, open) = line.split_once(' ').expect("two counters");
        (errors.parse::<u64>().expect("a number"), open.parse::<u64>().expect("a number"))
    };

    let mut clients: Vec<Client> = (0..150).map(|_| Client::connect(address)).collect();
    let mut until = Instant::now() + crate::support::PATIENCE;
    while counters().0 == 0 {
        assert!(Instant::now() < until, "it never ran out");
    }
    // Those who are in are served or told that it cannot be done, each of them.
    let (_, inside) = counters();
    assert!(inside > 10);
    let mut served = 0;
    for client in clients.iter_mut().take(inside as usize) {
        let status = client.ask(get("")).status;
        assert!(status == 200 || status >= 502, "{status}");
        served += usize::from(status == 200);
    }
    assert!(served <= inside as usize);
    // It tries again from time to time, and that is all it does.
    let (before, began) = (counters().0, Instant::now());
    while began.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let tries = counters().0 - before;
    assert!(tries < 100, "accept failed {tries} times in half a second");

    clients.clear();
    until = Instant::now() + crate::support::PATIENCE;
    while counters().1 > 0 {
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
