//! Connections to peers: kept, shared by services, and closed by the sender only.

use std::time::{Duration, Instant};

use mesh_core::observe::{Notice, ServiceTotals};
use mesh_core::{Config, PeerState, ServiceSpec, UpstreamSpec};

use crate::nodes::{Node, nodes, nodes_with};
use crate::support::client::{Client, get, post};
use crate::support::endpoint::{Do, Endpoint, reply};
use crate::support::eventually;

fn reuse(stats: &ServiceTotals) -> f64 {
    let (opened, reused) = (stats.upstream_connections_opened, stats.upstream_connections_reused);
    reused as f64 / (opened + reused) as f64
}

#[test]
fn connections_are_reused() {
    let [a, b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    let mut client = a.client();
    for n in 0..1_000 {
        let ask = if n % 3 == 0 { post("Content-Length: 2\r\n", "ok") } else { get("") };
        assert_eq!(client.ask(ask).status, 200);
    }
    assert!(reuse(&a.stats()) >= 0.995, "{:?}", a.stats());
    let before = a.stats().upstream_connections_opened;
    let address = a.mesh.address();
    let clients = (0..32).map(|_| {
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            for _ in 0..60 {
                assert_eq!(client.ask(get("")).status, 200);
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("no panic"));
    assert!(a.stats().upstream_connections_opened - before <= 32);
}

#[test]
fn a_new_table_keeps_the_connections_of_peers_that_stay() {
    let [a, b, c] = nodes();
    let endpoint = Endpoint::start();
    for node in [&b, &c] {
        node.routes(std::slice::from_ref(&endpoint.address));
    }
    a.routes(&[a.peer(&b)]);
    // Ten connections, idle.
    endpoint.usually(vec![Do::Body, Do::Gate("go"), Do::Answer]);
    let mut clients: Vec<_> = (0..10).map(|_| a.client()).collect();
    for client in &mut clients {
        client.send(get(""));
    }
    endpoint.wait_for_requests(10);
    endpoint.open_gate("go");
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    let opened = a.stats().upstream_connections_opened;
    assert_eq!(opened, 10);
    for round in 0..20 {
        let peers = if round % 2 == 0 { vec![a.peer(&b), a.peer(&c)] } else { vec![a.peer(&b)] };
        a.knows(&[b.spec(), c.spec()]);
        let spec = |name: &str| ServiceSpec {
            name: name.into(),
            hosts: vec![format!("{}.test", name.to_lowercase())],
            upstreams: peers.iter().cloned().map(UpstreamSpec::from).collect(),
        };
        a.mesh.gateway.set_routes(vec![spec("A"), spec("B")], None).expect("routes");
        assert_eq!(a.client().ask(get("")).status, 200);
        assert!(a.peer_stats(&b).connections >= 10);
    }
    let to_b = a.stats().upstream_connections_opened - opened;
    // Those to c, which comes and goes.
    assert!(to_b <= 10, "{to_b}");

    // A peer that leaves takes its connections along, without another request.
    a.routes(&[a.peer(&c)]);
    a.knows(&[c.spec()]);
    eventually("no connection to b is left", || b.mesh.stats().gateway.peer_connections_open == 0);
    assert_eq!(b.count_notices(Notice::MeshStranger, ""), 0);
}

#[test]
fn only_the_sender_closes() {
    let mut config = Config::default();
    config.timeouts.idle = Some(Duration::from_millis(100));
    config.timeouts.head = Some(Duration::from_millis(100));
    config.timeouts.upstream_idle = Some(Duration::from_millis(100));
    config.limits.requests_per_connection = Some(2);
    config.limits.connections = Some(1);
    let [b] = nodes_with(&config);
    let a = Node::start("sender", Config::default());
    a.knows(&[b.spec()]);
    b.knows(&[a.spec()]);
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    for _ in 0..4 {
        assert_eq!(a.client().ask(get("")).status, 200);
        let began = Instant::now();
        eventually("the limits of clients pass", || began.elapsed() > Duration::from_millis(400));
    }
    assert_eq!(a.stats().upstream_connections_opened, 1);
    assert_eq!(a.peer_stats(&b).state, PeerState::Up);
}

#[test]
fn figures_count_each_request_once() {
    let [a, b, c] = nodes();
    let endpoints = [Endpoint::start(), Endpoint::start()];
    b.routes(std::slice::from_ref(&endpoints[0].address));
    a.route_with_last_resort(&[a.peer(&b)], std::slice::from_ref(&endpoints[1].address));
    for _ in 0..10 {
        assert_eq!(a.client().ask(post("Content-Length: 5\r\n", "hello")).status, 200);
    }
    endpoints[0].script(reply("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(a.client().ask(get("")).status, 500);
    // Refused by b, and served here.
    b.routes(&[b.peer(&c)]);
    for _ in 0..3 {
        assert_eq!(a.client().ask(post("Content-Length: 5\r\n", "hello")).status, 200);
    }
    assert_eq!(endpoints[1].requests().len(), 3);
    let (of_a, of_b) = (a.mesh.stats(), b.mesh.stats());
    assert_eq!((of_a.total.requests, of_a.total.sent_to_peers), (14, 11));
    assert_eq!((a.stats().requests, a.stats().sent_to_peers), (14, 11));
    // After a refusal b is left out for a second.
    assert!((1..=3).contains(&a.stats().retries));
    assert!(of_a.from_peers.is_empty());
    assert_eq!(a.stats().request_body_bytes, 13 * 5);
    let served = b.served_for_peers();
    assert_eq!((served.requests, served.request_body_bytes, served.sent_to_peers), (11, 50, 0));
    assert_eq!((of_b.total.requests, of_b.total.request_body_bytes), (0, 0));
    assert_eq!(b.stats().requests, 0);
    assert_eq!(of_b.gateway.connections_open, 0);
    assert_eq!(of_b.gateway.peer_connections_open, a.peer_stats(&b).connections as u64);
}

#[test]
fn nothing_is_left_of_nodes_that_have_stopped() {
    let [mut a, mut b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    for _ in 0..50 {
        assert_eq!(a.client().ask(get("")).status, 200);
    }
    a.mesh.stop(Some(Duration::from_secs(5)));
    b.mesh.stop(Some(Duration::from_secs(5)));
    for node in [&a, &b] {
        let stats = node.mesh.stats();
        assert_eq!((stats.gateway.connections_open, stats.gateway.peer_connections_open), (0, 0));
    }
}
