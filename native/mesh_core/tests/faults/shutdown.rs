//! Stopping: nothing new, everything under way to its end, tunnels last, and the limit holds.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use mesh_core::{Config, Gateway};

use crate::scene::{Scene, ms};
use crate::support::client::{End, get, post};
use crate::support::endpoint::{Do, ok, send};
use crate::support::eventually;
use crate::support::mesh::Mesh;

const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\n\r\n";
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn a_gateway_with_nothing_to_do_stops_at_once() {
    let mut scene = Scene::new(|_| {});
    let began = Instant::now();
    scene.mesh.stop(None);
    assert!(began.elapsed() < Duration::from_secs(5));
    scene.ends();
}

#[test]
fn idle_connections_are_closed() {
    let mut scene = Scene::new(|_| {});
    let mut fresh = scene.client();
    let mut used = scene.client();
    assert_eq!(used.ask(get("")).status, 200);
    scene.mesh.eventually("both are accepted", |s| s.gateway.connections_open == 2);
    scene.mesh.stop(None);
    assert_eq!((fresh.read_to_end(), used.read_to_end()), (End::Closed, End::Closed));
    drop((fresh, used));
    scene.ends();
}

/// Idle connections whose last read filled the buffer: nothing may keep them from hearing of it.
#[test]
fn idle_connections_are_closed_after_a_full_buffer() {
    let mut scene = Scene::new(|_| {});
    let request = post("Content-Length: 0\r\nX: ", "");
    let line = post("Content-Length: 0\r\nX: \r\n", "");
    let padding = "p".repeat(16 * 1024 - line.len());
    let full = request.replacen("X: ", &format!("X: {padding}\r\n"), 1).replacen(
        "\r\n\r\n\r\n",
        "\r\n\r\n",
        1,
    );
    assert_eq!(full.len(), 16 * 1024);
    let mut client = scene.client();
    assert_eq!(client.ask(full).status, 200);
    scene.mesh.stop(None);
    assert_eq!(client.read_to_end(), End::Closed);
    drop(client);
    scene.ends();
}

#[test]
fn nobody_new_is_let_in() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("done"))]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    scene.mesh.gateway.stop(None);
    eventually("the port is closed", || TcpStream::connect(scene.mesh.address()).is_err());
    scene.endpoint.open_gate("go");
    let answer = client.response();
    assert_eq!(answer.body, b"done");
    scene.mesh.join();
    drop(client);
    scene.ends();
}

#[test]
fn requests_under_way_are_finished_and_told_that_it_was_the_last() {
    let mut scene = Scene::new(|_| {});
    let mut clients: Vec<_> = (0..10).map(|_| scene.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        scene.endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("done"))]);
        client.send(post("Content-Length: 2\r\n", "hi"));
        scene.endpoint.wait_for_requests(i + 1);
    }
    scene.mesh.gateway.stop(ms(30_000));
    eventually("the port is closed", || TcpStream::connect(scene.mesh.address()).is_err());
    assert!(scene.mesh.is_running());
    scene.endpoint.open_gate("go");
    for client in &mut clients {
        let answer = client.response();
        assert_eq!(answer.body, b"done");
        assert_eq!(client.read_to_end(), End::Closed);
    }
    scene.mesh.join();
    drop(clients);
    scene.ends();
}

#[test]
fn an_upload_under_way_is_finished() {
    let mut scene = Scene::new(|_| {});
    let mut client = scene.client();
    client.send(post("Content-Length: 10\r\n", "first"));
    scene.endpoint.wait_for_bytes(b"first");
    scene.mesh.gateway.stop(ms(30_000));
    eventually("the port is closed", || TcpStream::connect(scene.mesh.address()).is_err());
    client.send("other");
    assert_eq!(client.response().status, 200);
    assert_eq!(scene.endpoint.requests()[0].body, b"firstother");
    scene.mesh.join();
    drop(client);
    scene.ends();
}

#[test]
fn tunnels_are_closed_last() {
    let mut scene = Scene::new(|config| config.workers = 1);
    scene.endpoint.script(vec![send(YES), Do::Echo]);
    let mut tunnel = scene.client();
    tunnel.send(get(ASK)).read_until(b"\r\n\r\n").unwrap();
    tunnel.buffer.clear();
    scene.endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("done"))]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(2);
    scene.mesh.gateway.stop(None);
    eventually("the port is closed", || TcpStream::connect(scene.mesh.address()).is_err());
    tunnel.send("ping");
    assert_eq!(tunnel.read_exact(4).unwrap(), b"ping");
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().body, b"done");
    assert_ne!(tunnel.read_to_end(), End::Silent);
    scene.mesh.join();
    drop((client, tunnel));
    scene.ends();
}

#[test]
fn events_without_end_are_cut_at_the_limit() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.script(vec![
        Do::Body,
        send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntick\r\n"),
        Do::UntilClosed,
    ]);
    scene.endpoint.script(vec![send(YES), Do::Echo]);
    let mut events = scene.client();
    events.send(get("")).read_until(b"tick").unwrap();
    let mut tunnel = scene.client();
    tunnel.send(get(ASK)).read_until(b"\r\n\r\n").unwrap();
    scene.mesh.stop(ms(300));
    assert_ne!(events.read_to_end(), End::Silent);
    assert_ne!(tunnel.read_to_end(), End::Silent);
    // Cut, and yet everything is counted as ended.
    drop((tunnel, events));
    scene.ends();
}

#[test]
fn a_request_that_is_cut_at_the_limit_is_no_longer_in_flight() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::UntilClosed]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    scene.mesh.stop(ms(0));
    assert_ne!(client.read_to_end(), End::Silent);
    assert_eq!(scene.mesh.service_stats().in_flight, 0);
    drop(client);
    scene.ends();
}

#[test]
fn a_second_word_shortens_the_wait() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::UntilClosed]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    scene.mesh.gateway.stop(None);
    eventually("the port is closed", || TcpStream::connect(scene.mesh.address()).is_err());
    assert!(scene.mesh.is_running());
    scene.mesh.stop(ms(100));
    assert_ne!(client.read_to_end(), End::Silent);
    drop(client);
    scene.ends();
}

/// A worker that was not yet running when the gateway was stopped does not hang.
#[test]
fn a_worker_that_comes_too_late() {
    let gateway = Gateway::open(Config::default()).unwrap();
    gateway.stop(None);
    gateway.run_worker(0).unwrap();
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let scene = Scene::new(|_| {});
    let port = scene.mesh.address().port();
    let error = Gateway::open(Config { port, ..Config::default() }).err().expect("an error");
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    scene.ends_clean();
}

#[test]
fn the_port_is_free_again_at_once() {
    let scene = Scene::new(|_| {});
    let port = scene.mesh.address().port();
    let address = scene.endpoint.address.clone();
    assert_eq!(scene.client().ask(get("")).status, 200);
    let Scene { mut mesh, .. } = scene;
    mesh.stop(None);
    let mut next = Mesh::to(Config { port, ..Config::default() }, &address);
    assert_eq!(next.address().port(), port);
    next.stop(None);
}

/// Rolling over under load: whoever is let in is served.
#[test]
fn no_request_is_lost_when_it_stops_under_load() {
    let mut scene = Scene::new(|_| {});
    let address = scene.mesh.address();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut served = 0;
                // Until the port is closed. A connection that was accepted must be answered or be
                // closed before it has sent anything, never after.
                while let Ok(stream) = TcpStream::connect(address) {
                    drop(stream);
                    let Ok(()) = one_exchange(address) else { break };
                    served += 1;
                }
                served
            })
        })
        .collect();
    scene.mesh.eventually("it is busy", |s| s.services["a.test"].requests > 200);
    scene.mesh.stop(None);
    let served: u64 = threads.into_iter().map(|t| t.join().expect("a request was lost")).sum();
    // Not one that was begun has failed on the way.
    let stats = scene.mesh.service_stats();
    assert_eq!((stats.upstream_errors, stats.responses_5xx), (0, 0));
    assert!(stats.responses_2xx >= served);
    scene.ends();
}

/// `Err` when the gateway no longer lets anybody in.
fn one_exchange(address: std::net::SocketAddr) -> Result<(), ()> {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect(address) else { return Err(()) };
    let request = get("Connection: close\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return Err(());
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Never accepted: it was still in the listener's queue.
        Err(_) if answer.is_empty() => Err(()),
        Ok(_) if answer.is_empty() => Err(()),
        _ => {
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", answer.escape_ascii().to_string());
            assert!(answer.ends_with(b"\r\n\r\n/"), "{:?}", answer.escape_ascii().to_string());
            Ok(())
        }
    }
}
