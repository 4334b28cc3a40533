//! A peer that does not serve a request refuses it before any of it has run: it goes elsewhere, whatever its
//! method, whole, and once.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use mesh_core::{Config, UpstreamAddr};

use crate::dial::{Identity, known, read_head};
use crate::nodes::{Node, nodes};
use crate::relay::Relay;
use crate::support::client::{Client, get, get_target};
use crate::support::endpoint::{Do, Endpoint, ok, reply};
use crate::support::eventually;
use crate::support::http2::{self, Peer, answer};
use crate::support::run;

const KIB: usize = 1024;
const SIZES: [usize; 7] = [0, 1, 1_000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, KIB * KIB];

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i / 3 + i % 251) as u8).collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body.chunks(size);
    let chunks =
        chunks.flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat());
    chunks.chain(*b"0\r\n\r\n").collect()
}

/// An address where nothing listens.
fn nowhere() -> UpstreamAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    UpstreamAddr::Tcp(listener.local_addr().expect("an address"))
}

/// Sends bodies of all sizes, by length and in chunks, over HTTP/1.1 and HTTP/2: each arrives once.
fn all_arrive(a: &Node, endpoint: &Endpoint, sizes: &[usize]) {
    let mut expected = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        for in_chunks in [false, true] {
            let body = pattern(*size);
            let (field, bytes) = if in_chunks {
                ("Transfer-Encoding: chunked".to_string(), chunked(&body, 9_999))
            } else {
                (format!("Content-Length: {size}"), body.clone())
            };
            let target = format!("/{i}/{in_chunks}");
            let mut client = a.client();
            let mut sender = client.sender();
            let head = format!("POST {target} HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
            // In pieces, so that a refusal comes while the client sends.
            let up = std::thread::spawn(move || {
                sender.write_all(head.as_bytes())?;
                bytes.chunks(30_000).try_for_each(|piece| sender.write_all(piece))
            });
            let got = client.response();
            assert_eq!((got.status, got.body), (200, target.clone().into_bytes()), "{target}");
            up.join().expect("no panic").expect("sent");
            expected.push((target, body));
        }
    }
    run(async {
        let mut peer = Peer::connect(a.mesh.address()).await;
        for (i, size) in sizes.iter().enumerate() {
            for in_chunks in [false, true] {
                let length = size.to_string();
                let length = [("content-length", length.as_str())];
                let fields = if in_chunks { &[][..] } else { &length[..] };
                let target = format!("/h2/{i}/{in_chunks}");
                let request = http2::request(Method::POST, "a.test", &target, fields);
                let (response, mut up) = peer.begin(request, *size == 0).await;
                let body = pattern(*size);
                let bytes = Bytes::from(body.clone());
                if *size > 0 {
                    tokio::spawn(async move { http2::send(&mut up, bytes, true).await });
                }
                let got = answer(response).await.expect("an answer");
                assert_eq!((got.status.as_u16(), got.body), (200, target.clone().into_bytes()));
                expected.push((target, body));
            }
        }
    });
    let seen: Vec<_> = endpoint.requests().into_iter().map(|r| (r.target, r.body)).collect();
    assert_eq!(seen.len(), expected.len(), "each runs once");
    for ((target, body), (expected_target, expected_body)) in seen.iter().zip(&expected) {
        assert_eq!(target, expected_target);
        assert!(body == expected_body, "{target}: {} of {} bytes", body.len(), expected_body.len());
    }
}

#[test]
fn a_peer_without_the_service_is_passed_over() {
    let [a, b, c] = nodes();
    let endpoint = Endpoint::start();
    c.routes(std::slice::from_ref(&endpoint.address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    all_arrive(&a, &endpoint, &SIZES);
    assert_eq!(b.served_for_peers().requests, 0);
}

#[test]
fn a_peer_whose_endpoint_does_not_listen_is_passed_over() {
    let [a, b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(&[nowhere()]);
    // The next is on this node.
    a.route_with_last_resort(&[a.peer(&b)], std::slice::from_ref(&endpoint.address));
    all_arrive(&a, &endpoint, &SIZES);
}

#[test]
fn a_peer_that_drains_is_passed_over() {
    let [a, b, c] = nodes();
    let (endpoint, wrong) = (Endpoint::start(), Endpoint::start());
    c.routes(std::slice::from_ref(&endpoint.address));
    b.routes(std::slice::from_ref(&wrong.address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    assert_eq!(a.client().ask(get("")).status, 200);
    assert_eq!(wrong.requests().len(), 1);
    b.mesh.gateway.lame_duck();
    eventually("b refuses", || {
        assert_eq!(a.client().ask(get("")).status, 200);
        wrong.requests().len() + endpoint.requests().len() > 1 && !endpoint.requests().is_empty()
    });
    let ran = wrong.requests().len();
    endpoint.forget();
    all_arrive(&a, &endpoint, &[0, 1_000, 64 * KIB + 1, KIB * KIB]);
    endpoint.forget();
    b.mesh.gateway.stop(Some(Duration::from_secs(5)));
    all_arrive(&a, &endpoint, &[0, 1_000, 64 * KIB + 1]);
    assert_eq!(wrong.requests().len(), ran);
}

/// The client has sent a part of its body and waits.
#[test]
fn a_request_is_passed_on_while_its_body_comes() {
    let [a, b, c] = nodes();
    let endpoint = Endpoint::start();
    c.routes(std::slice::from_ref(&endpoint.address));
    for first in [0, 1_000, 70_000, 200_000] {
        // b is not known to fail, and is asked first.
        a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
        endpoint.forget();
        let body = pattern(300_000);
        let mut client = a.client();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300000\r\n\r\n");
        client.send(&body[..first]);
        endpoint.wait_for_requests(1);
        endpoint.wait("what was sent", |state| state.requests[0].body.len() <= first);
        client.send(&body[first..]);
        assert_eq!(client.response().status, 200);
        assert!(endpoint.requests()[0].body == body);
    }
}

#[test]
fn without_another_node_there_is_a_503() {
    let [a, b, c] = nodes();
    a.routes(&[a.peer(&b), a.peer(&c)]);
    for _ in 0..3 {
        for n in [0, 10, 100_000] {
            let body = "x".repeat(n);
            let ask =
                format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {n}\r\n\r\n{body}");
            let got = a.client().ask(ask);
            assert_eq!(got.status, 503);
            assert!(
                got.fields.one("exmesh-refused").is_none()
                    && got.fields.one("retry-after").is_some()
            );
        }
        assert_eq!(a.client().ask(get("")).status, 503);
    }
    assert_eq!(a.stats().sent_to_peers, 0);
}

/// `timeouts.hold` is for what peers refuse, too: an endpoint that restarts is gone before other nodes know.
#[test]
fn a_refused_request_waits_until_a_node_serves_it() {
    let [_, b, c] = nodes();
    let patient = |name, hold| {
        let mut config = Config::default();
        config.timeouts.hold = hold;
        let patient = Node::start(name, config);
        patient.knows(&[b.spec(), c.spec()]);
        b.knows(&[patient.spec()]);
        c.knows(&[patient.spec()]);
        patient.routes(&[patient.peer(&b), patient.peer(&c)]);
        patient
    };
    let brief = patient("brief", Some(Duration::from_millis(300)));
    let began = Instant::now();
    assert_eq!(brief.client().ask(get("")).status, 503);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(brief.stats().holds, 1);

    for (name, hold) in [("patient", Some(Duration::from_secs(60))), ("endless", None)] {
        let patient = patient(name, hold);
        let endpoint = Endpoint::start();
        let body = "x".repeat(10_000);
        let ask = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10000\r\n\r\n{body}");
        let mut client = patient.client();
        client.send(ask);
        patient.mesh.eventually("it is held", |_| patient.stats().holds > 0);
        // No route of the patient changes.
        c.routes(std::slice::from_ref(&endpoint.address));
        assert_eq!(client.response().status, 200);
        let requests = endpoint.requests();
        assert!(requests.len() == 1 && requests[0].body == body.as_bytes());
        c.routes(&[]);
    }
}

/// A relay between `a` and `b`, of which `a` prefers `b`.
fn breakable() -> ([Node; 3], Relay, [Endpoint; 2]) {
    let [a, b, c] = nodes();
    let relay = Relay::to(b.info.addresses[0]);
    let endpoints = [Endpoint::start(), Endpoint::start()];
    let mut spec = b.spec();
    spec.addresses = vec![relay.address];
    a.knows(&[spec, c.spec()]);
    b.routes(std::slice::from_ref(&endpoints[0].address));
    c.routes(std::slice::from_ref(&endpoints[1].address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    ([a, b, c], relay, endpoints)
}

fn ask(address: SocketAddr, request: String) -> std::thread::JoinHandle<u16> {
    std::thread::spawn(move || Client::connect(address).ask(request).status)
}

#[test]
fn after_a_broken_connection_only_idempotent_requests_are_repeated() {
    let ([a, b, _c], relay, [far, other]) = breakable();
    let address = a.mesh.address();
    for warm in [false, true] {
        if warm {
            far.usually(vec![Do::Body, Do::Answer]);
            assert_eq!(a.client().ask(get("")).status, 200);
        }
        far.forget();
        other.forget();
        // Their requests have reached the endpoint.
        far.usually(vec![Do::Body, Do::Gate("never"), Do::UntilClosed]);
        let kinds = [("GET", 200), ("DELETE", 200), ("POST", 502), ("PATCH", 502), ("FROB", 502)];
        let asks = kinds.map(|(method, status)| {
            let length = if method == "GET" { "" } else { "Content-Length: 3\r\n\r\nabc" };
            let end = if length.is_empty() { "\r\n" } else { "" };
            let request = format!("{method} /{method} HTTP/1.1\r\nHost: a.test\r\n{length}{end}");
            (method, status, ask(address, request))
        });
        far.wait_for_requests(kinds.len());
        relay.cut();
        far.open_gate("never");
        for (method, status, got) in asks {
            assert_eq!(got.join().expect("no panic"), status, "{method}");
        }
        let mut repeated: Vec<_> = other.requests().into_iter().map(|r| r.target).collect();
        repeated.sort();
        assert_eq!(repeated, ["/DELETE", "/GET"]);
        assert_eq!(far.requests().len(), kinds.len());
        eventually("all is over", || far.open_connections() == 0);
    }
    b.is_well();
}

#[test]
fn a_request_that_may_have_arrived_is_not_repeated() {
    let ([a, _b, _c], relay, [far, other]) = breakable();
    assert_eq!(a.client().ask(get("")).status, 200);
    far.forget();
    relay.silence();
    let address = a.mesh.address();
    let body = "x".repeat(2_000);
    let request =
        format!("POST /post HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2000\r\n\r\n{body}");
    let post = ask(address, request);
    eventually("the request is on its way", || relay.held() > 2_000);
    relay.cut();
    assert_eq!(post.join().expect("no panic"), 502);
    relay.go_on();
    assert!(far.requests().is_empty() && other.requests().is_empty());
    assert_eq!(a.client().ask(get_target("/get")).status, 200);
}

/// A firewall may have forgotten an idle connection, and there is no other node.
#[test]
fn a_stale_connection_to_the_only_peer_is_replaced() {
    let ([a, b, _c], relay, [far, _]) = breakable();
    a.routes(&[a.peer(&b)]);
    for _ in 0..10 {
        assert_eq!(a.client().ask(get("")).status, 200);
        // A GET that is sent before the end is seen is repeated; a later one finds out first.
        relay.cut();
        assert_eq!(a.client().ask(get("")).status, 200);
    }
    far.script(vec![Do::Body, Do::Gate("cut"), Do::UntilClosed]);
    let waits = ask(a.mesh.address(), get(""));
    far.wait("it", |state| state.requests.len() >= 21);
    relay.cut();
    assert_eq!(waits.join().expect("no panic"), 200);
}

/// The endpoint of `b` ends while `b` has an idle connection to it, or uses it.
#[test]
fn an_endpoint_that_stops_costs_no_idempotent_request() {
    let [a, b, c] = nodes();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let other = Endpoint::start();
    b.routes(&[UpstreamAddr::Tcp(listener.local_addr().expect("an address"))]);
    c.routes(std::slice::from_ref(&other.address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    let far = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a connection");
        let mut head = [0; 4096];
        assert!(connection.read(&mut head).expect("a request") > 0);
        connection.write_all(ok("1").as_bytes()).expect("sent");
        assert!(connection.read(&mut head).expect("another request") > 0);
        drop(listener);
        // Ends with its last request unanswered.
    });
    assert_eq!(a.client().ask(get_target("/1")).status, 200);
    assert_eq!(a.client().ask(get_target("/2")).status, 200);
    far.join().expect("no panic");
    assert_eq!(other.requests().iter().map(|r| r.target.as_str()).collect::<Vec<_>>(), ["/2"]);
    // From here on a POST, too: nothing can have run it.
    let post = ask(
        a.mesh.address(),
        "POST /3 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx".into(),
    );
    assert_eq!(post.join().expect("no panic"), 200);
}

/// An endpoint that gives no response has run what it got.
#[test]
fn a_request_that_an_endpoint_dropped_is_not_repeated() {
    let [a, b, c] = nodes();
    let (far, other) = (Endpoint::start(), Endpoint::start());
    b.routes(std::slice::from_ref(&far.address));
    c.routes(std::slice::from_ref(&other.address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    for end in [Do::Close, Do::Reset] {
        for n in [1, 100_000] {
            far.script(vec![Do::Body, end.clone()]);
            let body = "x".repeat(n);
            let ask =
                format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {n}\r\n\r\n{body}");
            assert_eq!(a.client().ask(ask).status, 502);
        }
    }
    assert_eq!((far.requests().len(), other.requests().len()), (4, 0));
}

/// A request may be on its way when a draining node closes an idle connection of a peer.
#[test]
fn a_draining_node_leaves_with_a_refusal() {
    let [node] = nodes();
    let endpoint = Endpoint::start();
    node.routes(std::slice::from_ref(&endpoint.address));
    let friend = Identity::new();
    node.knows(&[friend.spec()]);
    let mut idle = known(&friend, &node);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nExmesh-Service: A\r\n\r\n").expect("sent");
    assert!(read_head(&mut idle).starts_with("HTTP/1.1 200 "));
    idle.read_exact(&mut [0; 1]).expect("the body");
    node.mesh.gateway.stop(Some(Duration::from_secs(10)));
    let last = read_head(&mut idle);
    assert!(
        last.starts_with("HTTP/1.1 421 ") && last.contains("exmesh-refused: draining\r\n"),
        "{last}"
    );
    assert!(last.contains("Connection: close\r\n"), "{last}");
    // What crosses it is read, so that it does not reset the connection, and is not served.
    idle.write_all(
        b"POST / HTTP/1.1\r\nHost: a.test\r\nExmesh-Service: A\r\nContent-Length: 0\r\n\r\n",
    )
    .expect("sent");
    assert_eq!(idle.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);
    assert_eq!(endpoint.requests().len(), 1);
}

/// The questions of peers do not keep a node from stopping.
#[test]
fn a_node_stops_although_peers_watch_it() {
    let [a, mut b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    assert_eq!(a.client().ask(get("")).status, 200);
    eventually("a watches b", || a.peer_stats(&b).connections == 2);
    let began = Instant::now();
    b.mesh.stop(Some(Duration::from_secs(60)));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

/// A peer that is no longer known is served no more, on connections that it has already.
#[test]
fn a_peer_that_was_removed_is_refused() {
    let [node] = nodes();
    let endpoint = Endpoint::start();
    endpoint.usually(reply(ok("")));
    node.routes(std::slice::from_ref(&endpoint.address));
    let friend = Identity::new();
    node.knows(&[friend.spec()]);
    let mut stream = known(&friend, &node);
    let get = b"GET / HTTP/1.1\r\nHost: a.test\r\nExmesh-Service: A\r\n\r\n";
    stream.write_all(get).expect("sent");
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    node.knows(&[]);
    stream.write_all(get).expect("sent");
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 421 "));
    assert_eq!(endpoint.requests().len(), 1);
    let mut again = known(&friend, &node);
    let _ = again.write_all(get);
    assert!(again.read_to_end(&mut Vec::new()).is_err());
}

/// A refusal costs a round trip: the peer is asked again after a second, not by each request.
#[test]
fn a_peer_that_refuses_is_left_out_for_a_while() {
    let [a, b, c] = nodes();
    let endpoint = Endpoint::start();
    b.routes(&[]);
    c.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b), a.peer(&c)]);
    let mut client = Client::connect(a.mesh.address());
    for _ in 0..200 {
        let answer = client.ask("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(answer.status, 200);
    }
    let retries = a.stats().retries;
    // One for each second that 200 requests may take on a busy machine.
    assert!(retries <= 20, "{retries} of 200 requests went to b first");
}
