//! How requests and tunnels are spread over the upstreams of a service. The worker's choice among peers, slow
//! start and the retry budget have unit tests in `src/upstream`: they need another node, or ten seconds.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use bytes::Bytes;
use mesh_core::{Config, ServiceSpec, UpstreamAddr, UpstreamSpec};

use support::client::{Client, get};
use support::endpoint::{Do, Endpoint};
use support::http2::Peer;
use support::mesh::{Mesh, service};
use support::{eventually, run};

const TUNNEL: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

fn addresses(endpoints: &[Endpoint]) -> Vec<UpstreamAddr> {
    endpoints.iter().map(|endpoint| endpoint.address.clone()).collect()
}

fn start(n: usize) -> (Mesh, Vec<Endpoint>) {
    let endpoints: Vec<_> = (0..n).map(|_| Endpoint::start()).collect();
    let config = Config { workers: 1, ..Config::default() };
    let mesh = Mesh::start(config, vec![service("a.test", &addresses(&endpoints))], None);
    (mesh, endpoints)
}

fn route(mesh: &Mesh, upstreams: &[UpstreamAddr]) {
    mesh.gateway.set_routes(vec![service("a.test", upstreams)], None).expect("routes");
}

/// The requests that each endpoint has had.
fn shares(endpoints: &[Endpoint]) -> Vec<usize> {
    endpoints.iter().map(|endpoint| endpoint.look(|state| state.requests.len())).collect()
}

fn assert_even(shares: &[usize]) {
    let most = shares.iter().max().copied().unwrap_or(0);
    let fewest = shares.iter().min().copied().unwrap_or(0);
    assert!(most * 10 <= fewest * 16, "{shares:?}");
}

/// `clients` at once, with `requests` each.
fn load(mesh: &Mesh, clients: usize, requests: usize) {
    let address = mesh.address();
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..requests {
                    assert_eq!(client.ask(get("")).status, 200);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
}

#[test]
fn equal_replicas_get_equal_shares_one_request_at_a_time() {
    for n in [2, 3, 5] {
        let (mesh, endpoints) = start(n);
        load(&mesh, 1, 150 * n);
        assert_even(&shares(&endpoints));
    }
}

#[test]
fn equal_replicas_get_equal_shares_of_concurrent_requests() {
    let (mesh, endpoints) = start(3);
    for endpoint in &endpoints {
        endpoint.usually(vec![Do::Work(Duration::from_millis(2)), Do::Answer]);
    }
    load(&mesh, 12, 50);
    assert_even(&shares(&endpoints));
}

#[test]
fn a_slow_replica_gets_less() {
    let (mesh, endpoints) = start(3);
    for (endpoint, ms) in endpoints.iter().zip([100, 300, 100]) {
        endpoint.usually(vec![Do::Work(Duration::from_millis(ms)), Do::Answer]);
    }
    load(&mesh, 48, 12);
    let shares = shares(&endpoints);
    let fair = 48 * 12 / 3;
    assert!(shares[1] * 10 <= fair * 6, "{shares:?}");
}

fn tunnel(mesh: &Mesh) -> Client {
    let mut client = Client::connect(mesh.address());
    client.send(get(TUNNEL)).read_until(b"\r\n\r\n").expect("a tunnel");
    client
}

fn ask(mesh: &Mesh, requests: usize) {
    let mut client = Client::connect(mesh.address());
    for _ in 0..requests {
        assert_eq!(client.ask(get("")).status, 200);
    }
}

fn tunnels_open(mesh: &Mesh, n: u64) {
    eventually("the tunnels are open", || mesh.service_stats().tunnels_open == n);
}

/// Answers the next `n` requests with a tunnel.
fn expect_tunnels(endpoint: &Endpoint, n: usize) {
    for _ in 0..n {
        endpoint.script(vec![Do::Upgrade, Do::UntilClosed]);
    }
}

#[test]
fn tunnels_are_spread_by_tunnels_and_requests_by_requests() {
    let (mesh, endpoints) = start(2);
    let both = addresses(&endpoints);
    route(&mesh, &both[..1]);
    expect_tunnels(&endpoints[0], 4);
    let first: Vec<_> = (0..4).map(|_| tunnel(&mesh)).collect();
    tunnels_open(&mesh, 4);
    route(&mesh, &both);
    // Open tunnels are no reason to avoid an endpoint.
    ask(&mesh, 6);
    assert_eq!(shares(&endpoints), [4 + 3, 3]);
    // New tunnels go where there are fewer of them, even to an endpoint with more requests.
    endpoints[1].script(vec![Do::Gate("slow"), Do::Answer]);
    let services = vec![service("a.test", &both), service("b.test", &both[1..])];
    mesh.gateway.set_routes(services, None).expect("routes");
    let mut slow = Client::connect(mesh.address());
    slow.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    endpoints[1].wait_for_requests(4);
    expect_tunnels(&endpoints[1], 4);
    let second: Vec<_> = (0..4).map(|_| tunnel(&mesh)).collect();
    assert_eq!(shares(&endpoints), [7, 4 + 4]);
    endpoints[1].open_gate("slow");
    assert_eq!(slow.response().status, 200);
    // Tunnels that have closed count no longer.
    drop(first);
    tunnels_open(&mesh, 4);
    expect_tunnels(&endpoints[0], 4);
    let third: Vec<_> = (0..4).map(|_| tunnel(&mesh)).collect();
    assert_eq!(shares(&endpoints), [7 + 4, 8]);
    drop((slow, second, third));
    mesh.wait_idle();
}

async fn http2_tunnel(peer: &mut Peer) -> (h2::RecvStream, h2::SendStream<Bytes>) {
    let mut request = http::Request::connect("http://a.test/socket/websocket")
        .header("sec-websocket-version", "13")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (response, up) = peer.begin(request, false).await;
    let response = response.await.expect("a response");
    assert_eq!(response.status(), 200);
    (response.into_body(), up)
}

/// The same count, where tunnels are streams of one connection.
#[test]
fn tunnels_of_http2_clients_are_spread_by_tunnels() {
    run(async {
        let (mesh, endpoints) = start(2);
        let both = addresses(&endpoints);
        route(&mesh, &both[..1]);
        expect_tunnels(&endpoints[0], 3);
        let mut peer = Peer::connect(mesh.address()).await;
        eventually("the setting has come", || peer.requests.is_extended_connect_protocol_enabled());
        let mut first = Vec::new();
        for _ in 0..3 {
            first.push(http2_tunnel(&mut peer).await);
        }
        route(&mesh, &both);
        ask(&mesh, 6);
        assert_eq!(shares(&endpoints), [3 + 3, 3]);
        expect_tunnels(&endpoints[1], 3);
        let mut second = Vec::new();
        for _ in 0..3 {
            second.push(http2_tunnel(&mut peer).await);
        }
        assert_eq!(shares(&endpoints), [6, 3 + 3]);
        drop((first, second, peer));
        mesh.wait_idle();
    });
}

/// Many clients come back at once, and the endpoint with fewer tunnels does not get all of them: those that
/// are being opened count, too.
#[test]
fn tunnels_that_are_being_opened_count() {
    let (mesh, endpoints) = start(2);
    let both = addresses(&endpoints);
    route(&mesh, &both[..1]);
    expect_tunnels(&endpoints[0], 6);
    let first: Vec<_> = (0..6).map(|_| tunnel(&mesh)).collect();
    route(&mesh, &both);
    for endpoint in &endpoints {
        endpoint.usually(vec![Do::Gate("open"), Do::Upgrade, Do::UntilClosed]);
    }
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(mesh.address())).collect();
    for client in &mut clients {
        client.send(get(TUNNEL));
    }
    eventually("all have come", || shares(&endpoints).iter().sum::<usize>() == 26);
    assert_eq!(shares(&endpoints), [13, 13]);
    endpoints.iter().for_each(|endpoint| endpoint.open_gate("open"));
    for client in &mut clients {
        client.read_until(b"\r\n\r\n").expect("a tunnel");
    }
    drop((first, clients));
    mesh.wait_idle();
}

fn with_last_resort(endpoints: &[Endpoint], last: usize) -> ServiceSpec {
    let upstreams = endpoints.iter().enumerate().map(|(i, endpoint)| UpstreamSpec {
        address: endpoint.address.clone(),
        last_resort: i == last,
    });
    ServiceSpec { upstreams: upstreams.collect(), ..ServiceSpec::new("a.test", Vec::new()) }
}

#[test]
fn a_last_resort_is_used_only_if_all_others_fail() {
    let (mesh, mut endpoints) = start(3);
    let set = |service| mesh.gateway.set_routes(vec![service], None).expect("routes");
    set(with_last_resort(&endpoints, 0));
    load(&mesh, 4, 30);
    assert_eq!(shares(&endpoints)[0], 0);
    // Not even one that is busy, or one of two that fail.
    endpoints[1].die();
    ask(&mesh, 20);
    assert_eq!(shares(&endpoints)[0], 0);
    endpoints[2].die();
    ask(&mesh, 20);
    assert_eq!(shares(&endpoints)[0], 20);
    // It fails as well: the others are tried again.
    let UpstreamAddr::Tcp(address) = endpoints[1].address.clone() else { unreachable!() };
    endpoints[0].die();
    endpoints[1] = Endpoint::on(address);
    ask(&mesh, 20);
    assert_eq!(shares(&endpoints[1..2]), [20]);
}

#[test]
fn a_last_resort_that_is_the_only_one_is_used() {
    let (mesh, endpoints) = start(1);
    let service = with_last_resort(&endpoints, 0);
    mesh.gateway.set_routes(vec![service], None).expect("routes");
    load(&mesh, 4, 10);
    assert_eq!(shares(&endpoints), [40]);
}
