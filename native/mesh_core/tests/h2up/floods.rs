//! Endpoints that send without end, or end every connection: neither other services nor memory suffer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use http::Method;
use mesh_core::Config;

use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::h2_endpoint::{H2Endpoint, RawConnection, RawEndpoint, echo};
use crate::support::http2::{Peer, answer, read, request};
use crate::support::mesh::{Mesh, service};
use crate::support::run;

/// The status 200 (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];
/// A type of frame that does not exist.
const UNKNOWN: u8 = 0x20;

/// SETTINGS_MAX_CONCURRENT_STREAMS.
fn at_most(streams: u8) -> [u8; 6] {
    [0, 3, 0, 0, 0, streams]
}

/// Frames that a connection may get at any time after the head of the response on stream 1.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("answers to no PING", frame(PING, 1, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &at_most(100))),
        ("windows that change", {
            let window = |size: u32| [&[0, 4][..], &size.to_be_bytes()].concat();
            frame(SETTINGS, 0, 0, &[window(1), window(1 << 20)].concat())
        }),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("RST_STREAM", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("empty DATA", frame(DATA, 0, 1, b"")),
        ("padding alone", frame(DATA, 8, 1, &[255; 256])),
        ("unknown frames", frame(UNKNOWN, 0, 0, b"what")),
        ("PUSH_PROMISE", {
            let promise = [&[0, 0, 0, 2][..], &block(&GET)].concat();
            frame(PUSH_PROMISE, END_HEADERS, 1, &promise)
        }),
        ("HEADERS of a stream that does not exist", frame(HEADERS, END_HEADERS, 99, OK)),
        ("DATA of a stream that does not exist", frame(DATA, 0, 99, b"x")),
        ("windows of a stream that does not exist", frame(WINDOW_UPDATE, 0, 99, &[0, 0, 0, 1])),
        ("HEADERS of a stream that is closed", {
            [frame(RST_STREAM, 0, 1, &[0; 4]), frame(HEADERS, END_HEADERS, 1, OK)].concat()
        }),
        ("DATA of a stream that is closed", {
            [frame(RST_STREAM, 0, 1, &[0; 4]), frame(DATA, 0, 1, b"x")].concat()
        }),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])),
    ]
}

/// Sends one frame again and again. `false` once the gateway has closed the connection.
fn flood(connection: &mut RawConnection, frame: &[u8], go_on: impl Fn() -> bool) -> bool {
    let many = frame.repeat(64 * 1024 / frame.len());
    while go_on() {
        if connection.0.write_all(&many).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_flood_does_not_stop_other_services() {
    for (what, frame) in floods() {
        let (stop, begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stopped, begins) = (Arc::clone(&stop), Arc::clone(&begun));
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            let stream = connection.until(HEADERS).stream;
            connection.send(HEADERS, END_HEADERS, stream, OK);
            let mut reader = connection.0.try_clone().expect("a socket");
            // Takes what the gateway answers.
            let reads = std::thread::spawn(move || {
                let mut bytes = [0; 64 * 1024];
                while reader.read(&mut bytes).is_ok_and(|n| n > 0) {}
            });
            begins.store(true, Ordering::Relaxed);
            flood(&mut connection, &frame, || !stopped.load(Ordering::Relaxed));
            // Fails if the gateway has closed it.
            let _ = connection.0.shutdown(Shutdown::Both);
            reads.join().expect("it reads");
        });
        let other = H2Endpoint::start(echo);
        let services = [("a.test", &endpoint.address), ("b.test", &other.address)]
            .map(|(host, address)| service(host, std::slice::from_ref(address)));
        let mesh = Mesh::start(Config::default(), services.to_vec(), None);
        let mut flooded = Client::connect(mesh.address());
        flooded.send(get(""));
        eventually("the flood begins", || begun.load(Ordering::Relaxed));
        let mut client = Client::connect(mesh.address());
        for _ in 0..5 {
            let answer = client.ask("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
            assert_eq!(answer.body, b"GET /\n", "{what}");
        }
        stop.store(true, Ordering::Relaxed);
        // A stream that is reset at once has an error for its answer.
        let is_cut = flooded.try_response(false).map_or(true, |answer| answer.status == 502);
        assert!(is_cut, "{what}: a part looks like the whole");
        drop(mesh);
    }
}

/// What the endpoint makes the gateway say must not wait in memory.
#[test]
fn an_endpoint_that_does_not_read_its_answers_is_not_read() {
    for (what, frame) in
        [("PING", frame(PING, 0, 0, &[7; 8])), ("SETTINGS", frame(SETTINGS, 0, 0, &at_most(100)))]
    {
        let (tell, told) = std::sync::mpsc::channel();
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            connection.until(HEADERS);
            let patience = Some(Duration::from_millis(500));
            connection.0.set_write_timeout(patience).expect("a timeout");
            let many = frame.repeat(1000);
            let mut sent = 0;
            // Until nothing is taken for a while, or the gateway has enough.
            while sent < 256 * 1024 * 1024
                && let Ok(n) = connection.0.write(&many)
            {
                sent += n;
            }
            tell.send(sent).expect("the test listens");
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        let status = Client::connect(mesh.address()).ask(get("")).status;
        assert_eq!(status, 502, "{what}");
        let sent = told.recv().expect("a number");
        assert!(sent < 64 * 1024 * 1024, "{what}: {sent} bytes were taken");
    }
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let field = block(&[("x", &"a".repeat(8000))]);
    // In one field block and in one field, of which a frame is only a part.
    let part = [&[0, 1, b'x', 0x7f][..], &[0xff, 0xff, 0xff, 0x7f], &[b'a'; 8000]].concat();
    for (what, first, then) in
        [("fields", OK, field), ("a long field", &part, vec![b'a'; 8000]), ("nothing", OK, vec![])]
    {
        let (tell, told) = std::sync::mpsc::channel();
        let (first, then) = (first.to_vec(), frame(CONTINUATION, 0, 1, &then));
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            let stream = connection.until(HEADERS).stream;
            connection.send(HEADERS, 0, stream, &first);
            let sent = AtomicUsize::new(0);
            let closed =
                !flood(&mut connection, &then, || sent.fetch_add(1, Ordering::Relaxed) < 1024);
            tell.send(closed).expect("the test listens");
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        assert_eq!(Client::connect(mesh.address()).ask(post("", "x")).status, 502, "{what}");
        assert!(told.recv().expect("a word"), "{what}: the gateway takes all of it");
    }
}

/// h2 keeps those that the client does not read.
#[test]
fn interim_responses_without_end_end_the_connection() {
    let (tell, told) = std::sync::mpsc::channel();
    let early = block(&[(":status", "103"), ("link", &"a".repeat(8000))]);
    let endpoint = RawEndpoint::start(move |_, mut connection| {
        connection.begin(&[]);
        let stream = connection.until(HEADERS).stream;
        let early = frame(HEADERS, END_HEADERS, stream, &early);
        let sent = AtomicUsize::new(0);
        let closed =
            !flood(&mut connection, &early, || sent.fetch_add(1, Ordering::Relaxed) < 1024);
        tell.send(closed).expect("the test listens");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect_small(mesh.address());
    client.send(get(""));
    assert!(told.recv().expect("a word"), "the gateway takes all of it");
}

#[test]
fn a_long_head_fails_its_stream_alone() {
    let endpoint = RawEndpoint::start(|_, mut connection| {
        connection.begin(&[]);
        let stream = connection.until(HEADERS).stream;
        connection.send(HEADERS, 0, stream, OK);
        for _ in 0..70 {
            let fields = block(&[("x", &"a".repeat(16_000))]);
            connection.send(CONTINUATION, 0, stream, &fields);
        }
        connection.send(CONTINUATION, END_HEADERS, stream, b"");
        let stream = connection.until(HEADERS).stream;
        connection.send(HEADERS, END_HEADERS | END_STREAM, stream, OK);
        while connection.next().is_some() {}
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 502);
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
}

/// Each connection ends with its first request, which the endpoint says it has not begun with.
#[test]
fn a_request_that_is_refused_everywhere_is_sent_twice() {
    for refuse in [
        (|connection: &mut RawConnection, stream: u32| {
            connection.send(RST_STREAM, 0, stream, &7_u32.to_be_bytes());
        }) as fn(&mut RawConnection, u32),
        |connection, _| connection.send(GOAWAY, 0, 0, &[0; 8]),
    ] {
        let seen = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&seen);
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            while let Some(frame) = connection.next() {
                if frame.kind == HEADERS {
                    count.fetch_add(1, Ordering::Relaxed);
                    refuse(&mut connection, frame.stream);
                }
            }
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        assert_eq!(Client::connect(mesh.address()).ask(post("", "x")).status, 503);
        assert_eq!(seen.load(Ordering::Relaxed), 2);
        assert_eq!(mesh.service_stats().retries, 1);
    }
}

/// A client must not hear that it may repeat a request whose response has begun.
#[test]
fn a_goaway_below_a_response_that_has_begun_is_no_refusal() {
    let endpoint = RawEndpoint::start(|_, mut connection| {
        connection.begin(&[]);
        let stream = connection.until(HEADERS).stream;
        connection.send(HEADERS, END_HEADERS, stream, OK);
        connection.send(DATA, 0, stream, b"part");
        // The client has the beginning, and says so by the rest of its request.
        connection.until(DATA);
        connection.send(GOAWAY, 0, 0, &[0; 8]);
        while connection.next().is_some() {}
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        let mut answer = response.await.expect("a head").into_body();
        body.send_data("x".into(), true).expect("sent");
        let failed = read(&mut answer).await.expect_err("it is cut off");
        assert_eq!(failed.reason(), Some(Reason::INTERNAL_ERROR));
    });
    assert_eq!(mesh.service_stats().retries, 0);
}

/// Requests that share a connection must not repeat each other for ever.
#[test]
fn requests_to_an_endpoint_that_closes_every_connection_are_repeated_once() {
    const REQUESTS: usize = 40;
    let seen = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&seen);
    let endpoint = RawEndpoint::start(move |number, mut connection| {
        connection.begin(&[]);
        // The first connection gets all of them.
        let wanted = if number == 0 { REQUESTS } else { 1 };
        for _ in 0..wanted {
            connection.until(HEADERS);
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Those that came at once, too.
        connection.0.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        while let Some(frame) = connection.next() {
            count.fetch_add(usize::from(frame.kind == HEADERS), Ordering::Relaxed);
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut waiting = Vec::new();
        for _ in 0..REQUESTS {
            waiting.push(peer.begin(request(Method::GET, "a.test", "/", &[]), true).await.0);
        }
        for response in waiting {
            assert_eq!(answer(response).await.expect("an answer").status, 502);
        }
    });
    let seen = seen.load(Ordering::Relaxed);
    assert!(seen <= 2 * REQUESTS, "the endpoint got {seen} requests for {REQUESTS}");
}

/// Connections that have ended without room must not take the places of others.
#[test]
fn an_endpoint_that_accepts_no_stream_and_closes_can_return() {
    const REFUSALS: usize = 140;
    let refused = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&refused);
    let endpoint = RawEndpoint::start(move |number, mut connection| {
        if number < REFUSALS {
            connection.begin(&at_most(0));
            // The answer to the settings: the gateway has the connection.
            connection.until(SETTINGS);
            connection.until(SETTINGS);
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        connection.begin(&[]);
        let stream = connection.until(HEADERS).stream;
        connection.send(HEADERS, END_HEADERS | END_STREAM, stream, OK);
        while connection.next().is_some() {}
    });
    let mut config = Config::default();
    config.timeouts.hold = Some(Duration::ZERO);
    let mesh = Mesh::to(config, &endpoint.address);
    let mut client = Client::connect(mesh.address());
    let mut asked = 0;
    while client.ask(get("")).status != 200 {
        asked += 1;
        assert!(asked <= REFUSALS, "it stays refused");
    }
    assert_eq!((asked, refused.load(Ordering::Relaxed)), (REFUSALS, REFUSALS));
}

/// Streams that are open stay, and the connection is used again when there is room.
#[test]
fn an_endpoint_may_lower_its_limit_under_open_streams() {
    let endpoint = RawEndpoint::start(|_, mut connection| {
        connection.begin(&at_most(3));
        let open: Vec<_> = (0..3).map(|_| connection.until(HEADERS).stream).collect();
        connection.send(SETTINGS, 0, 0, &at_most(0));
        for stream in open {
            connection.send(HEADERS, END_HEADERS, stream, OK);
            connection.send(DATA, END_STREAM, stream, b"done");
        }
        connection.send(SETTINGS, 0, 0, &at_most(1));
        for _ in 0..2 {
            let next = connection.until(HEADERS).stream;
            connection.send(HEADERS, END_HEADERS, next, OK);
            connection.send(DATA, END_STREAM, next, b"done");
        }
        while connection.next().is_some() {}
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(peer.begin(request(Method::POST, "a.test", "/", &[]), true).await.0);
        }
        for response in waiting {
            assert_eq!(answer(response).await.expect("an answer").body, b"done");
        }
        for _ in 0..2 {
            assert_eq!(peer.get("/").await.body, b"done");
        }
    });
    assert_eq!(mesh.service_stats().upstream_connections_opened, 1);
    drop(mesh);
}

/// The request gets its answer in time, and others share the connection.
#[test]
fn an_endpoint_whose_window_stays_closed_is_waited_for_in_time() {
    let endpoint = RawEndpoint::start(|_, mut connection| {
        // SETTINGS_INITIAL_WINDOW_SIZE.
        connection.begin(&[0, 4, 0, 0, 0, 0]);
        let stalled = connection.until(HEADERS).stream;
        let mut is_reset = false;
        while let Some(frame) = connection.next() {
            is_reset |= frame.kind == RST_STREAM && frame.stream == stalled;
            assert!(frame.kind != DATA || frame.payload.is_empty(), "there is no window");
            if frame.kind == HEADERS {
                assert!(is_reset, "the stream stays open");
                connection.send(HEADERS, END_HEADERS | END_STREAM, frame.stream, OK);
            }
        }
        assert!(is_reset, "the stream stays open");
    });
    let mut config = Config::default();
    config.timeouts.response = Some(Duration::from_millis(300));
    let mesh = Mesh::to(config, &endpoint.address);
    let asked = post("Content-Length: 100000\r\n", &"x".repeat(100_000));
    assert_eq!(Client::connect(mesh.address()).ask(asked).status, 504);
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
    assert_eq!(mesh.service_stats().upstream_connections_opened, 1);
    drop(mesh);
}

#[test]
fn a_request_that_waits_gets_the_room_that_an_endpoint_adds() {
    let endpoint = RawEndpoint::start(|_, mut connection| {
        connection.begin(&at_most(0));
        // The answer to the settings: the gateway has them.
        connection.until(SETTINGS);
        connection.until(SETTINGS);
        connection.send(SETTINGS, 0, 0, &at_most(1));
        let stream = connection.until(HEADERS).stream;
        connection.send(HEADERS, END_HEADERS | END_STREAM, stream, OK);
        while connection.next().is_some() {}
    });
    let mut config = Config::default();
    config.timeouts.connect = Some(Duration::from_secs(60));
    let mesh = Mesh::to(config, &endpoint.address);
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
}
