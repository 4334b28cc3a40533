//! Stopping: nothing new, everything under way to its end, tunnels last, and the limit holds.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use mesh_core::{Config, Gateway};

use crate::support::client::{End, get, post};
use crate::support::endpoint::{Do, ok, send};
use crate::support::eventually;
use crate::support::mesh::Mesh;
use crate::support::scene::{Scene, ms};

const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\n\r\n";
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn an_idle_gateway_stops_at_once() {
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
fn new_connections_are_refused() {
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
fn requests_in_flight_finish_with_connection_close() {
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
fn an_upload_in_flight_finishes() {
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
fn an_endless_response_is_cut_off_after_the_drain_timeout() {
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
fn a_request_that_is_cut_off_is_no_longer_in_flight() {
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
fn a_second_stop_shortens_the_drain() {
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
fn a_worker_that_starts_after_the_stop_ends() {
    let gateway = Gateway::open(Config::default()).unwrap();
    gateway.stop(None);
    gateway.run_worker(0).unwrap();
}

#[test]
fn a_port_in_use_is_an_error() {
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

/// A client that is connected gets its answer, whether or not the gateway had accepted it when it was
/// told to stop. What twenty stops lose:
/// `STOPS=20 cargo test -p mesh_core --test faults connecting_clients -- --nocapture`
#[test]
fn clients_that_connect_during_a_stop_are_answered() {
    let stops = std::env::var("STOPS").map_or(3, |n| n.parse().expect("a number"));
    let (mut served, mut lost) = (0, 0);
    for _ in 0..stops {
        let mut scene = Scene::new(|_| {});
        let address = scene.mesh.address();
        let clients: Vec<_> =
            (0..60).map(|_| std::thread::spawn(move || ask_until_refused(address))).collect();
        scene.mesh.eventually("it is busy", |s| s.services["a.test"].requests > 200);
        scene.mesh.stop(ms(30_000));
        for client in clients {
            let (ok, failed) = client.join().unwrap();
            served += ok;
            lost += failed;
        }
        // Not one that was begun has failed on the way.
        let stats = scene.mesh.service_stats();
        assert_eq!((stats.upstream_errors, stats.responses_5xx), (0, 0));
        scene.ends();
    }
    println!("{stops} stops: {served} served, {lost} lost");
    assert_eq!(lost, 0, "of {}", served + lost);
}

/// One connection after another, until the gateway refuses; how many were served and lost.
fn ask_until_refused(address: std::net::SocketAddr) -> (u64, u64) {
    use std::io::{Read, Write};
    let (mut served, mut lost) = (0, 0);
    while let Ok(mut stream) = TcpStream::connect(address) {
        // Loopback may connect a socket to itself, once the port is free.
        if stream.local_addr().ok() == Some(address) {
            break;
        }
        let mut answer = Vec::new();
        let sent = stream.write_all(get("Connection: close\r\n").as_bytes());
        let read = sent.and_then(|()| stream.read_to_end(&mut answer));
        if answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\r\n\r\n/") {
            served += 1;
        } else {
            println!("lost: {read:?}, {:?}", answer.escape_ascii().to_string());
            lost += 1;
        }
    }
    (served, lost)
}

#[test]
fn a_new_connection_gets_time_for_its_request() {
    let mut scene = Scene::new(|_| {});
    let mut client = scene.client();
    scene.mesh.eventually("it is accepted", |s| s.gateway.connections_open == 1);
    scene.mesh.gateway.stop(None);
    eventually("the port is closed", || TcpStream::connect(scene.mesh.address()).is_err());
    let answer = client.ask(get(""));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.fields.one("connection").as_deref(), Some("close"));
    assert_eq!(client.read_to_end(), End::Closed);
    scene.mesh.join();
    drop(client);
    scene.ends();
}

#[test]
fn a_lame_duck_answers_each_connection_once() {
    let mut scene = Scene::new(|_| {});
    let says_close = |answer: &crate::support::wire::Response| {
        assert_eq!(answer.status, 200);
        answer.fields.one("connection").as_deref() == Some("close")
    };
    let (mut used, mut fresh) = (scene.client(), scene.client());
    assert!(!says_close(&used.ask(get(""))));
    scene.mesh.eventually("both are accepted", |s| s.gateway.connections_open == 2);
    scene.mesh.gateway.lame_duck();
    eventually("new ones are told to leave", || says_close(&scene.client().ask(get(""))));
    eventually("by each worker", || (0..20).all(|_| says_close(&scene.client().ask(get("")))));
    // What was open is not closed before it has been told.
    for client in [&mut used, &mut fresh] {
        assert!(says_close(&client.ask(get(""))));
        assert_eq!(client.read_to_end(), End::Closed);
    }
    // What the gateway answers itself says so, too.
    let mut stranger = scene.client();
    let answer = stranger.ask("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n");
    assert_eq!(answer.fields.one("connection").as_deref(), Some("close"));
    scene.mesh.stop(None);
    // Too late to matter.
    scene.mesh.gateway.lame_duck();
    drop((used, fresh, stranger));
    scene.ends();
}

/// So many tunnels, and when each was closed after the stop.
fn closed_tunnels(count: usize, drain: Option<Duration>) -> Vec<Duration> {
    let mut scene = Scene::new(|config| config.workers = 1);
    let mut tunnels = Vec::new();
    for _ in 0..count {
        scene.endpoint.script(vec![send(YES), Do::Echo]);
        let mut tunnel = scene.client();
        tunnel.send(get(ASK)).read_until(b"\r\n\r\n").unwrap();
        tunnels.push(tunnel);
    }
    scene.mesh.eventually("all are open", |s| s.services["a.test"].tunnels_open == count as u64);
    let began = Instant::now();
    scene.mesh.gateway.stop(drain);
    let readers: Vec<_> = tunnels
        .into_iter()
        .map(|mut tunnel| {
            std::thread::spawn(move || {
                assert_ne!(tunnel.read_to_end(), End::Silent);
                began.elapsed()
            })
        })
        .collect();
    let mut closed: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    closed.sort();
    scene.mesh.join();
    scene.ends();
    closed
}

/// Their clients come back at once, and to others: not all in the same moment.
#[test]
fn tunnels_are_closed_one_after_another() {
    let closed = closed_tunnels(20, None);
    let spread = closed[19] - closed[0];
    // Ten a second.
    assert!(spread > Duration::from_millis(1500), "{closed:?}");
    assert!(closed[9] - closed[0] > Duration::from_millis(500), "{closed:?}");
}

#[test]
fn tunnels_are_closed_faster_with_less_drain_time() {
    let closed = closed_tunnels(20, ms(1_000));
    assert!(closed[19] - closed[0] > Duration::from_millis(500), "{closed:?}");
    assert!(closed_tunnels(20, ms(0))[19] < Duration::from_secs(5));
}

/// A stream of events that never ends does not leave the tunnels to the last moment.
#[test]
fn tunnels_are_closed_at_half_of_the_drain_time() {
    let mut scene = Scene::new(|config| config.workers = 1);
    scene.endpoint.script(vec![send(YES), Do::Echo]);
    let mut tunnel = scene.client();
    tunnel.send(get(ASK)).read_until(b"\r\n\r\n").unwrap();
    scene.endpoint.script(vec![Do::UntilClosed]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(2);
    let began = Instant::now();
    scene.mesh.gateway.stop(ms(4_000));
    assert_ne!(tunnel.read_to_end(), End::Silent);
    assert!(began.elapsed() > Duration::from_millis(1_900));
    assert!(scene.mesh.is_running(), "it was cut off with everything else");
    assert_ne!(client.read_to_end(), End::Silent);
    scene.mesh.join();
    drop((client, tunnel));
    scene.ends();
}
