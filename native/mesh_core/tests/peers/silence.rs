//! A peer that falls silent: its connections stay open, and nothing comes.

use std::time::{Duration, Instant};

use mesh_core::PeerState;
use mesh_core::observe::Notice;

use crate::nodes::{Node, nodes};
use crate::relay::Relay;
use crate::support::client::{Client, End, get, get_target};
use crate::support::endpoint::{Do, Endpoint, send};
use crate::support::eventually;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);

struct Scene {
    a: Node,
    b: Node,
    _c: Node,
    relay: Relay,
    far: Endpoint,
    other: Endpoint,
}

/// `a` prefers `b`, which is behind the relay.
fn scene() -> Scene {
    let [a, b, c] = nodes();
    let relay = Relay::to(b.info.addresses[0]);
    let mut spec = b.spec();
    spec.addresses = vec![relay.address];
    a.knows(&[spec, c.spec()]);
    let (far, other) = (Endpoint::start(), Endpoint::start());
    b.routes(std::slice::from_ref(&far.address));
    c.routes(std::slice::from_ref(&other.address));
    a.route_with_last_resort(&[a.peer(&b)], &[a.peer(&c)]);
    Scene { a, b, _c: c, relay, far, other }
}

impl Scene {
    fn begin(&self, request: &str) -> Client {
        let before = self.far.requests().len();
        let mut client = self.a.client();
        client.send(request);
        self.far.wait_for_requests(before + 1);
        client
    }
}

#[test]
fn what_is_in_flight_moves_or_fails_and_new_requests_go_elsewhere() {
    let scene = scene();
    let Scene { a, b, relay, far, other, .. } = &scene;
    far.script(vec![Do::Upgrade, Do::Echo]);
    let mut tunnel = scene.begin(&get(UPGRADE));
    tunnel.read_until(b"\r\n\r\n").expect("a tunnel");
    far.script(vec![
        send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"),
        Do::UntilClosed,
    ]);
    let mut events = scene.begin(&get_target("/events"));
    events.read_until(b"hi\r\n").expect("an event");
    far.usually(vec![Do::Body, Do::Gate("never"), Do::UntilClosed]);
    let mut poll = scene.begin(&get_target("/poll"));
    let mut post = scene.begin("POST /post HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx");

    relay.silence();
    let silent = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Moves when the peer is suspect.
            assert_eq!(poll.response().body, b"/poll");
            let elapsed = silent.elapsed();
            assert!(elapsed < Duration::from_secs(2) + SLACK, "{elapsed:?}");
        });
        scope.spawn(|| {
            // Waits until the peer is lost.
            assert_eq!(post.response().status, 502);
            let elapsed = silent.elapsed();
            let lost = Duration::from_millis(4_400)..Duration::from_secs(5) + SLACK;
            assert!(lost.contains(&elapsed), "{elapsed:?}");
        });
        scope.spawn(|| {
            assert_eq!(tunnel.read_to_end(), End::Closed);
            assert!(silent.elapsed() < Duration::from_secs(5) + SLACK);
        });
        scope.spawn(|| {
            let (_, part) = events.try_response(false).expect_err("a response without its end");
            assert_eq!(part.map(|part| part.body), Some(b"hi".to_vec()));
        });
        // Requests that come meanwhile.
        let mut asks = Vec::new();
        while silent.elapsed() < Duration::from_millis(5_500) {
            let n = asks.len();
            let began = silent.elapsed();
            let mut client = a.client();
            asks.push((
                n,
                began,
                scope.spawn(move || {
                    let got = client.ask(get_target(&format!("/new/{n}")));
                    (got.status, silent.elapsed())
                }),
            ));
            let next = began + Duration::from_millis(100);
            eventually("the pace of requests", || silent.elapsed() >= next);
        }
        for (n, began, ask) in asks {
            let (status, ended) = ask.join().expect("no panic");
            assert_eq!(status, 200, "{n}");
            if began > Duration::from_secs(2) {
                assert!(ended - began < Duration::from_millis(900), "{n}: {began:?} to {ended:?}");
            } else {
                assert!(ended < Duration::from_secs(2) + SLACK, "{n}: {began:?} to {ended:?}");
            }
        }
    });
    a.wait_for_state(b, PeerState::Lost);
    for notice in [Notice::PeerSuspect, Notice::PeerLost] {
        a.wait_for_notice(notice, "b: it did not answer");
        assert_eq!(a.count_notices(notice, "b"), 1, "{notice:?}");
    }
    assert_eq!(a.count_notices(Notice::PeerUnreachable, "b"), 0);
    assert!(other.requests().iter().all(|request| request.method == "GET"));

    // b is used again, though no request asks for it meanwhile.
    far.usually(vec![Do::Body, Do::Answer]);
    relay.go_on();
    a.wait_for_state(b, PeerState::Up);
    let before = other.requests().len();
    eventually("b is used", || {
        assert_eq!(a.client().ask(get_target("/again")).status, 200);
        far.requests().iter().any(|request| request.target == "/again")
    });
    assert!(other.requests().len() <= before + 3);
    let posts = far.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(posts, 1);
    far.open_gate("never");
    a.is_well();
    b.is_well();
}

/// A suspect peer gets no requests, so that nothing but the watch can see it come back.
#[test]
fn a_peer_is_used_again_after_a_long_silence() {
    let Scene { a, b, _c, relay, far, other } = scene();
    assert_eq!(a.client().ask(get("")).status, 200);
    relay.silence();
    a.wait_for_state(&b, PeerState::Suspect);
    assert_eq!(a.client().ask(get("")).status, 200);
    let began = Instant::now();
    let longer_than_a_peer_is_watched = Duration::from_secs(11);
    while began.elapsed() < longer_than_a_peer_is_watched {
        std::thread::sleep(Duration::from_millis(50));
    }
    relay.go_on();
    a.wait_for_state(&b, PeerState::Up);
    let before = far.requests().len();
    assert_eq!(a.client().ask(get("")).status, 200);
    assert_eq!((far.requests().len(), other.requests().len()), (before + 1, 1));
}

#[test]
fn the_only_peer_is_asked_even_if_it_is_silent() {
    let Scene { a, b, _c, relay, far, .. } = scene();
    a.routes(&[a.peer(&b)]);
    assert_eq!(a.client().ask(get("")).status, 200);
    far.script(vec![Do::Body, Do::Gate("news"), Do::Answer]);
    let mut poll = a.client();
    poll.send(get_target("/poll"));
    far.wait_for_requests(2);
    relay.silence();
    a.wait_for_state(&b, PeerState::Suspect);
    // Over a pooled connection. Nothing is known to be wrong with it.
    let mut new = a.client();
    new.send(get_target("/new"));
    eventually("both wait", || a.stats().in_flight == 2);
    relay.go_on();
    a.wait_for_state(&b, PeerState::Up);
    far.open_gate("news");
    assert_eq!(poll.response().body, b"/poll");
    assert_eq!(new.response().body, b"/new");
    assert_eq!(far.requests().iter().filter(|r| r.target == "/poll").count(), 1);
}

/// Where nothing listens.
#[test]
fn an_unreachable_peer_is_named_with_its_reason() {
    let [a, b, c] = nodes();
    let mut spec = b.spec();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("an address");
    spec.addresses = vec![nowhere];
    a.knows(&[spec.clone(), c.spec()]);
    a.routes(&[a.peer(&b)]);
    assert_eq!(a.client().ask(get("")).status, 502);
    let stats = a.peer_stats(&b);
    assert_eq!(stats.state, PeerState::Unreachable);
    let error = stats.error.expect("a reason");
    assert!(error.starts_with(&nowhere.to_string()) && error.contains("refused"), "{error}");
    a.wait_for_notice(Notice::PeerUnreachable, &format!("b: {nowhere}: "));
    // Another gateway listens there.
    spec.addresses = c.info.addresses.clone();
    a.knows(&[spec.clone(), c.spec()]);
    assert_eq!(a.client().ask(get("")).status, 502);
    assert!(
        a.peer_stats(&b).error.expect("a reason").contains("another one"),
        "{:?}",
        a.peer_stats(&b)
    );
    // The first that answers with the right key is used, and kept.
    spec.addresses = [c.info.addresses.clone(), vec![nowhere], b.info.addresses.clone()].concat();
    a.knows(&[spec, c.spec()]);
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    assert_eq!(a.client().ask(get("")).status, 200);
    let stats = a.peer_stats(&b);
    assert_eq!((stats.state, stats.error), (PeerState::Up, None));
    assert_eq!(stats.address, Some(b.info.addresses[0].to_string()));
}
