//! Tests what a panic costs: in a connection's task, that connection; in the accept loop, one worker, which
//! can be restarted while the others serve. No input causes either, so the tests trigger panics from
//! inside.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Config, Gateway, ServiceSpec, UpstreamAddr, WorkerError};

fn endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while stream.read(&mut piece).is_ok_and(|n| n > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn gateway(workers: usize) -> Arc<Gateway> {
    let gateway = Gateway::open(Config { workers, ..Config::default() }).unwrap();
    let upstreams = vec![UpstreamAddr::Tcp(endpoint())];
    let spec = ServiceSpec::new("a", upstreams);
    gateway.set_routes(vec![spec], None).unwrap();
    Arc::new(gateway)
}

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(gateway.local_addrs()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Returns whether a response arrived.
fn ask(stream: &mut TcpStream, method: &str) -> bool {
    let mut piece = [0; 4096];
    let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read(&mut piece).is_ok_and(|n| n > 0 && piece.starts_with(b"HTTP/1.1 200"))
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "never came true: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_panic_ends_only_its_own_connection() {
    let gateway = gateway(1);
    let worker = thread::spawn({
        let gateway = Arc::clone(&gateway);
        move || gateway.run_worker(0)
    });
    let mut witness = connect(&gateway);
    assert!(ask(&mut witness, "GET"));
    for _ in 0..10 {
        assert!(!ask(&mut connect(&gateway), "PANIC"));
        assert!(ask(&mut witness, "GET"));
        assert!(ask(&mut connect(&gateway), "GET"));
    }
    assert_eq!(gateway.stats().gateway.panics, 10);
    drop(witness);
    eventually("nothing is open", || {
        let stats = gateway.stats();
        stats.gateway.connections_open == 0 && stats.services["a"].in_flight == 0
    });
    gateway.stop(None);
    worker.join().unwrap().unwrap();
}

#[test]
fn a_panicked_worker_is_restarted_while_the_other_serves() {
    let gateway = gateway(2);
    let stop = Arc::new(AtomicBool::new(false));
    // Restarts workers as a supervisor does.
    let workers: Vec<_> = (0..2)
        .map(|index| {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || {
                let mut panics = 0;
                loop {
                    match gateway.run_worker(index) {
                        Ok(()) => return panics,
                        Err(WorkerError::Panicked) => panics += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    // A client that loses its connection reconnects and is served.
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, stop) = (Arc::clone(&gateway), Arc::clone(&stop));
            thread::spawn(move || {
                let (mut served, mut lost) = (0u32, 0u32);
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(&gateway);
                    while !stop.load(Ordering::Relaxed) {
                        if !ask(&mut stream, "GET") {
                            lost += 1;
                            break;
                        }
                        served += 1;
                    }
                }
                (served, lost)
            })
        })
        .collect();
    for _ in 0..5 {
        gateway.shared.crash.store(true, Ordering::SeqCst);
        // The panic happens when a connection is accepted. That one may be lost; the next is served.
        drop(connect(&gateway));
        eventually("the worker has panicked", || !gateway.shared.crash.load(Ordering::SeqCst));
        assert!((0..3).any(|_| ask(&mut connect(&gateway), "GET")), "no worker serves");
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (served, lost) = client.join().unwrap();
        assert!(served > 0 && lost <= 5, "{served} served, {lost} lost");
    }
    eventually("nothing is open", || {
        let stats = gateway.stats();
        stats.gateway.connections_open == 0 && stats.services["a"].in_flight == 0
    });
    gateway.stop(None);
    let panics: u32 = workers.into_iter().map(|w| w.join().unwrap()).sum();
    assert_eq!(panics, 5);
}
