//! Waits that end: heads and bodies that trickle, readers that stand still, idle connections.

use std::io::Write;
use std::time::{Duration, Instant};

use mesh_core::Config;

use crate::support::client::{Client, End, get, post};
use crate::support::endpoint::{Do, Endpoint, send};
use crate::support::scene::{Scene, ms};

/// Sends a byte now and then until the gateway has had enough, at most for as long as is fair.
fn trickle(client: &Client, byte: u8) -> std::thread::JoinHandle<()> {
    let mut sender = client.sender();
    let until = Instant::now() + crate::support::PATIENCE;
    std::thread::spawn(move || {
        while Instant::now() < until && sender.write_all(&[byte]).is_ok() {
            // The pace of the attack, not a wait for anything.
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn a_trickling_head_gives_408() {
    let scene = Scene::new(|config| config.timeouts.head = ms(300));
    let mut client = scene.client();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX: ");
    let attack = trickle(&client, b'a');
    assert_eq!(client.response().status, 408);
    client.hang_up();
    attack.join().unwrap();
    assert_eq!(scene.mesh.stats().gateway.requests_refused, 1);
    scene.ends_clean();
}

#[test]
fn a_head_that_trickles_line_by_line_gives_408() {
    let scene = Scene::new(|config| config.timeouts.head = ms(300));
    let mut client = scene.client();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
    let mut sender = client.sender();
    let attack = std::thread::spawn(move || {
        for i in 0..90 {
            if sender.write_all(format!("X-{i}: y\r\n").as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(client.response().status, 408);
    client.hang_up();
    attack.join().unwrap();
    scene.ends_clean();
}

#[test]
fn a_head_that_stops_gives_408() {
    let scene = Scene::new(|config| config.timeouts.head = ms(200));
    for start in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\n", "\r\nG"] {
        let mut client = scene.client();
        client.send(start);
        assert_eq!(client.response().status, 408, "{start:?}");
        assert_eq!(client.read_to_end(), End::Closed);
    }
    scene.ends_clean();
}

/// Some clients keep a connection open with empty lines; they have asked for nothing yet.
#[test]
fn empty_lines_do_not_begin_a_head() {
    let scene = Scene::new(|config| {
        config.timeouts.head = ms(100);
        config.timeouts.idle = ms(2000);
    });
    for asked_before in [false, true] {
        let mut client = scene.client();
        if asked_before {
            assert_eq!(client.ask(get("")).status, 200);
        }
        for lines in ["\r\n", "\r", "\n\r\n"] {
            client.send(lines);
            // Longer than a head may take.
            std::thread::sleep(Duration::from_millis(150));
        }
        assert_eq!(client.ask(get("")).status, 200);
        // Nor do they keep it open for longer than silence would.
        let began = Instant::now();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(600));
            client.send("\r\n");
        }
        assert_eq!(client.read_to_end(), End::Closed);
        assert!(client.buffer.is_empty(), "an answer without a request");
        assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    }
    scene.ends_clean();
}

#[test]
fn an_upload_that_stops_gives_408() {
    let scene = Scene::new(|config| config.timeouts.idle = ms(200));
    for start in [
        post("Content-Length: 10\r\n", ""),
        post("Content-Length: 10\r\n", "some"),
        post("Transfer-Encoding: chunked\r\n", ""),
        post("Transfer-Encoding: chunked\r\n", "4\r\nsome"),
        post("Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n0\r\n"),
    ] {
        let mut client = scene.client();
        client.send(&start);
        assert_eq!(client.response().status, 408, "{start:?}");
    }
    // None of these looked whole to the endpoint.
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    assert!(scene.endpoint.requests().iter().all(|r| !r.whole));
    scene.ends_clean();
}

#[test]
fn an_upload_below_the_minimum_rate_gives_408() {
    let scene = Scene::new(|config| {
        config.timeouts.idle = ms(400);
        config.limits.body_rate = Some(1000);
    });
    let mut client = scene.client();
    client.send(post("Content-Length: 100000\r\n", ""));
    let attack = trickle(&client, b'a');
    assert_eq!(client.response().status, 408);
    client.hang_up();
    attack.join().unwrap();
    scene.ends_clean();
}

#[test]
fn an_upload_above_the_minimum_rate_may_be_slow() {
    let scene = Scene::new(|config| {
        config.timeouts.idle = ms(1000);
        config.limits.body_rate = Some(100);
    });
    let mut client = scene.client();
    client.send(post("Content-Length: 300\r\n", ""));
    // Takes longer than the idle time, and is faster than the rate.
    for _ in 0..30 {
        client.send("0123456789");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(client.response().status, 200);
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let scene = Scene::new(|config| config.timeouts.idle = ms(300));
    let mut script = vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\n")];
    script.extend((0..100).map(|_| send(vec![b'x'; 1_000_000])));
    scene.endpoint.script(script);
    let mut client = Client::connect_small(scene.mesh.address());
    client.send(get("")).read_until(b"xxxx").unwrap();
    // It is given up on without having to do anything, and that it has not just left is counted.
    scene.mesh.wait_idle();
    let errors = scene.mesh.service_stats().errors;
    assert_eq!((errors.reader_timeout, errors.client_gone), (1, 0));
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_client_that_reads_below_the_minimum_rate_is_given_up() {
    let scene = Scene::new(|config| {
        config.timeouts.idle = ms(300);
        config.limits.body_rate = Some(1_000_000_000);
    });
    let mut script = vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\n")];
    script.extend((0..100).map(|_| send(vec![b'x'; 1_000_000])));
    scene.endpoint.script(script);
    let mut client = Client::connect_small(scene.mesh.address());
    client.send(get(""));
    let until = Instant::now() + crate::support::PATIENCE;
    while client.read_exact(50).is_ok() {
        client.buffer.clear();
        assert!(Instant::now() < until, "a reader may trickle for ever");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(scene.mesh.service_stats().errors.reader_timeout, 1);
    drop(client);
    scene.ends_clean();
}

#[test]
fn an_idle_connection_is_closed() {
    let scene = Scene::new(|config| config.timeouts.idle = ms(200));
    let mut fresh = scene.client();
    let mut used = scene.client();
    assert_eq!(used.ask(get("")).status, 200);
    assert_eq!(fresh.read_to_end(), End::Closed);
    assert_eq!(used.read_to_end(), End::Closed);
    assert!(fresh.buffer.is_empty() && used.buffer.is_empty(), "an idle connection just closes");
    drop((fresh, used));
    scene.ends_clean();
}

/// A read that filled the buffer to its last byte says nothing about whether there is more.
#[test]
fn an_idle_connection_is_closed_after_a_full_buffer() {
    for size in [8 * 1024, 16 * 1024, 32 * 1024, 64 * 1024, 256 * 1024] {
        let scene = Scene::new(|config| config.timeouts.idle = ms(200));
        let head = post(&format!("Content-Length: {size}\r\n"), "");
        let mut client = scene.client();
        client.send([head.as_bytes(), &vec![b'x'; size]].concat());
        assert_eq!(client.response().status, 200);
        let padding = "p".repeat(size.min(60_000).saturating_sub(head.len() + 7));
        client.send(get(&format!("X: {padding}\r\n")));
        let _ = client.try_response(false);
        assert_eq!(client.read_to_end(), End::Closed, "{size}");
        drop(client);
        scene.ends_clean();
    }
}

#[test]
fn an_idle_tunnel_is_closed() {
    const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\n\r\n";
    let scene = Scene::new(|config| config.timeouts.tunnel_idle = ms(300));
    scene.endpoint.script(vec![send(YES), Do::Echo]);
    let mut client = scene.client();
    client.send(get("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    client.read_until(b"\r\n\r\n").unwrap();
    client.buffer.clear();
    // What moves keeps it open.
    for _ in 0..10 {
        client.send("ping");
        assert_eq!(client.read_exact(4).unwrap(), b"ping");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(client.read_to_end(), End::Silent);
    drop(client);
    scene.ends_clean();
}

/// The answer has begun before the upload was over; the patience for its beginning is spent by then
/// and must not be counted anew against the rest of it.
#[test]
fn the_response_timeout_ends_with_an_early_response() {
    let scene = Scene::new(|config| config.timeouts.response = ms(200));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst";
    scene.endpoint.script(vec![send(head), Do::Body, Do::Gate("go"), send("other")]);
    let mut client = scene.client().patience(Duration::from_millis(600));
    client.send(post("Content-Length: 4\r\n", "")).read_until(b"first").unwrap();
    client.send("body");
    assert!(matches!(client.read_until(b"other"), Err(End::Silent)));
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().body, b"firstother");
    drop(client);
    scene.ends_clean();
}

#[test]
fn idle_timeouts_do_not_end_a_slow_response() {
    // Shorter than the pause by far: neither ends a request that is under way.
    let scene = Scene::new(|config| {
        config.timeouts.idle = ms(100);
        config.timeouts.head = ms(100);
        config.timeouts.upstream_idle = ms(100);
    });
    scene.endpoint.script(vec![Do::Body, Do::Gate("go"), Do::Answer]);
    let mut client = scene.client().patience(Duration::from_millis(500));
    client.send(get(""));
    assert!(matches!(client.try_response(false), Err((End::Silent, None))));
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().status, 200);
    drop(client);
    scene.ends_clean();
}

/// Durations beyond all calendars are no durations.
#[test]
fn timeouts_may_be_absent_or_beyond_all_clocks() {
    let all: [fn(&mut Config); 2] = [
        |config| {
            let t = &mut config.timeouts;
            (t.connect, t.head, t.idle, t.upstream_idle, t.response) =
                (None, None, None, None, None);
            (t.tunnel_idle, t.tunnel_close) = (None, None);
        },
        |config| {
            let t = &mut config.timeouts;
            let long = Some(Duration::MAX);
            (t.connect, t.head, t.idle, t.upstream_idle, t.response) =
                (long, long, long, long, long);
            (t.tunnel_idle, t.tunnel_close) = (long, long);
        },
    ];
    for change in all {
        let scene = Scene::new(change);
        let mut client = scene.client();
        for _ in 0..3 {
            assert_eq!(client.ask(post("Content-Length: 2\r\n", "hi")).status, 200);
        }
        drop(client);
        scene.ends_clean();
    }
}

/// A client that has sent is not the one that is waited for while its endpoint takes nothing.
#[test]
fn a_slow_endpoint_is_not_held_against_the_client() {
    let scene = Scene::with(Endpoint::start_unix, |config| {
        config.timeouts.idle = ms(400);
        config.timeouts.response = ms(8000);
    });
    const PIECE: usize = 16 * 1024;
    const PIECES: usize = 40;
    scene.endpoint.script(vec![Do::Gate("read"), Do::Body, Do::Answer]);
    let mut client = scene.client();
    let mut sender = client.sender();
    let upload = std::thread::spawn(move || {
        let head = post(&format!("Content-Length: {}\r\n", PIECE * PIECES), "");
        sender.write_all(head.as_bytes()).expect("send");
        for _ in 0..PIECES {
            // The gateway is to wait for each of them.
            std::thread::sleep(Duration::from_millis(10));
            sender.write_all(&[b'x'; PIECE]).expect("send");
        }
    });
    // Much longer than a client may take.
    std::thread::sleep(Duration::from_millis(1500));
    scene.endpoint.open_gate("read");
    assert_eq!(client.response().status, 200);
    upload.join().expect("the upload");
    drop(client);
    scene.ends_clean();
}

/// What the endpoint did not take of a body is no request, even if the client has sent all of it.
#[test]
fn the_rest_of_an_upload_is_never_taken_for_a_request() {
    const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let scene = Scene::with(Endpoint::start_unix, |config| config.timeouts.response = ms(100));
    // Somewhere between these the endpoint's socket has room for all but the last part.
    for size in (64..512).step_by(8).map(|n| n * 1024) {
        scene.endpoint.script(vec![Do::Gate("never")]);
        let mut client = scene.client();
        let mut sender = client.sender();
        let upload = std::thread::spawn(move || {
            let body = &SMUGGLED.repeat(size / SMUGGLED.len() + 1)[..size];
            let _ = sender.write_all(post(&format!("Content-Length: {size}\r\n"), body).as_bytes());
        });
        assert_eq!(client.response().status, 504, "{size}");
        // Its connection may go on if the endpoint has been sent all of the body.
        client.fin();
        assert_ne!(client.read_to_end(), End::Silent, "{size}");
        assert_eq!(client.buffer.escape_ascii().to_string(), "", "{size}");
        upload.join().expect("the upload");
    }
    assert!(scene.endpoint.requests().iter().all(|request| request.target == "/"));
    scene.endpoint.open_gate("never");
    scene.ends_clean();
}
