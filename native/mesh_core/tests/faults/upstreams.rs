//! Several upstreams of one service, addresses that services share, and addresses that this machine
//! has no way to.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_core::{Config, UpstreamAddr};

use crate::support::client::{Client, get, get_target, post};
use crate::support::endpoint::{Do, Endpoint};
use crate::support::mesh::{Mesh, service};
use crate::support::scene::{Scene, ms};

/// An address that answers no further SYN: its queue has room for none, and is full.
struct Silent {
    address: UpstreamAddr,
    _held: (socket2::Socket, std::net::TcpStream),
}

impl Silent {
    fn new() -> Silent {
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let full = full.expect("a socket");
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        full.listen(0).expect("listen");
        let address = full.local_addr().expect("address").as_socket().expect("TCP");
        let first = std::net::TcpStream::connect(address).expect("connect");
        let _ = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
        Silent { address: UpstreamAddr::Tcp(address), _held: (full, first) }
    }
}

/// Requests do not wait for an upstream that is known to be silent.
#[test]
fn a_silent_upstream_is_waited_for_once() {
    let connect = Duration::from_millis(1000);
    let scene = Scene::new(|config| {
        config.workers = 1;
        config.timeouts.connect = Some(connect);
    });
    let silent = Silent::new();
    scene.route_to(&[silent.address.clone(), scene.endpoint.address.clone()]);
    let mut client = scene.client();
    let mut slow = 0;
    for i in 0..16 {
        let began = Instant::now();
        let request = if i % 4 < 2 { get("") } else { post("Content-Length: 2\r\n", "hi") };
        assert_eq!(client.ask(request).status, 200);
        slow += usize::from(began.elapsed() >= connect);
    }
    // Once more after a second of rest, where the machine is as slow as that.
    assert!((1..=2).contains(&slow), "{slow} of 16 requests waited");
    drop((client, silent));
    scene.ends_clean();
}

/// Keeps a request waiting at `scene.endpoint`, adds these upstreams around it, and sees the next six go to
/// `spare`.
fn the_busy_one_is_avoided(scene: &Scene, spare: &Endpoint, upstreams: &[&Endpoint]) {
    scene.endpoint.script(vec![Do::Gate("slow"), Do::Answer]);
    let mut slow = scene.client();
    slow.send(get(""));
    scene.endpoint.wait_for_requests(1);
    let upstreams: Vec<_> = upstreams.iter().map(|endpoint| endpoint.address.clone()).collect();
    scene.route_to(&upstreams);
    let mut client = scene.client();
    for _ in 0..6 {
        assert_eq!(client.ask(get("")).status, 200);
    }
    assert_eq!((scene.endpoint.requests().len(), spare.requests().len()), (1, 6));
    scene.endpoint.open_gate("slow");
    assert_eq!(slow.response().status, 200);
}

/// A busy upstream gets its turn only when the next one is as busy.
#[test]
fn of_two_upstreams_the_one_with_fewer_requests_in_flight_is_used() {
    let scene = Scene::new(|config| config.workers = 1);
    let spare = Endpoint::start();
    the_busy_one_is_avoided(&scene, &spare, &[&scene.endpoint, &spare]);
    let mut client = scene.client();
    for _ in 0..6 {
        assert_eq!(client.ask(get("")).status, 200);
    }
    assert_eq!((scene.endpoint.requests().len(), spare.requests().len()), (4, 9));
    drop((client, spare));
    scene.ends_clean();
}

/// An upstream that cannot be reached never has requests in flight; its share goes to the others by the same rule.
#[test]
fn the_share_of_an_upstream_that_is_down_avoids_a_busy_one() {
    let scene = Scene::new(|config| config.workers = 1);
    let (mut down, spare) = (Endpoint::start(), Endpoint::start());
    down.die();
    the_busy_one_is_avoided(&scene, &spare, &[&down, &scene.endpoint, &spare]);
    drop(spare);
    scene.ends_clean();
}

/// Both failed a moment ago, and there are no others: the gateway tries them again at once.
#[test]
fn upstreams_are_tried_again_if_all_have_failed() {
    let mut scene = Scene::new(|config| config.workers = 1);
    let mut spare = Endpoint::start();
    let UpstreamAddr::Tcp(address) = spare.address.clone() else { unreachable!() };
    scene.route_to(&[scene.endpoint.address.clone(), spare.address.clone()]);
    scene.endpoint.die();
    spare.die();
    let mut client = scene.client();
    for _ in 0..4 {
        assert_eq!(client.ask(get("")).status, 502);
    }
    let spare = Endpoint::on(address);
    for _ in 0..4 {
        assert_eq!(client.ask(get("")).status, 200);
    }
    drop((client, spare));
    scene.ends_clean();
}

/// Connections belong to their address: services share them, and a changed list of upstreams does
/// not close them.
#[test]
fn services_share_the_connections_of_an_address() {
    let scene = Scene::new(|config| {
        config.workers = 1;
        config.timeouts.upstream_idle = None;
    });
    let (a, b) = (scene.endpoint.address.clone(), scene.other.address.clone());
    let mut client = scene.client();
    let ask = |client: &mut Client, host: &str| {
        let answer = client.ask(format!("GET /{host} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((answer.status, answer.body), (200, format!("/{host}").into_bytes()));
    };
    let route = |services: &[(&str, &[UpstreamAddr])]| {
        let services = services.iter().map(|(host, upstreams)| service(host, upstreams)).collect();
        scene.mesh.gateway.set_routes(services, None).expect("routes");
    };
    ask(&mut client, "a.test");
    let one = std::slice::from_ref(&a);
    route(&[("a.test", one), ("c.test", one)]);
    ask(&mut client, "c.test");
    let open = |name: &str| scene.mesh.stats().services[name].upstream_connections_open;
    assert_eq!((open("a.test"), open("c.test")), (0, 1), "it counts where it was used last");
    let both = [a.clone(), b.clone()];
    route(&[("a.test", &both), ("b.test", std::slice::from_ref(&b))]);
    ask(&mut client, "b.test");
    // One of the two counts for a service that is gone, until another one uses it.
    scene.mesh.eventually("two are open", |stats| stats.total.upstream_connections_open == 2);
    for host in ["a.test", "a.test", "b.test", "a.test", "a.test"] {
        ask(&mut client, host);
    }
    route(&[("d.test", &both)]);
    ask(&mut client, "d.test");
    ask(&mut client, "d.test");
    for endpoint in [&scene.endpoint, &scene.other] {
        let ended: Vec<bool> =
            endpoint.look(|state| state.connections.iter().map(|c| c.ended).collect());
        assert_eq!(ended, [false], "one connection, which is open");
    }
    // No service names this address any more.
    route(&[("b.test", std::slice::from_ref(&b))]);
    ask(&mut client, "b.test");
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    // And no service that is gone counts a connection as open.
    scene.mesh.eventually("one is open", |stats| stats.total.upstream_connections_open == 1);
    drop(client);
    scene.ends_clean();
}

/// A new table does not make the gateway forget that an address was silent.
#[test]
fn a_silent_address_is_remembered_over_a_table_change() {
    let connect = Duration::from_millis(1000);
    let scene = Scene::new(|config| {
        config.workers = 1;
        config.timeouts.connect = Some(connect);
    });
    let (silent, spare) = (Silent::new(), Endpoint::start());
    let well = scene.endpoint.address.clone();
    scene.route_to(&[silent.address.clone(), well.clone()]);
    let mut client = scene.client();
    let mut slow = 0;
    for _ in 0..5 {
        for upstreams in [[&silent.address, &well], [&silent.address, &spare.address]] {
            scene.route_to(&upstreams.map(Clone::clone));
            let began = Instant::now();
            assert_eq!(client.ask(get("")).status, 200);
            slow += usize::from(began.elapsed() >= connect);
        }
    }
    assert!((1..=2).contains(&slow), "{slow} of 10 requests waited");
    drop((client, silent, spare));
    scene.ends_clean();
}

/// An endpoint that is bound to `::` listens on one loopback address or on both.
#[test]
fn an_endpoint_on_either_loopback_address_is_reached() {
    let scene = Scene::new(|config| config.workers = 1);
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let mut addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.extend([SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), both]);
    } else {
        eprintln!("without IPv6 on this machine, only 127.0.0.1 is tried");
    }
    for address in addresses {
        let endpoint = Endpoint::on(address);
        let port = endpoint.port();
        scene.route_to(&[UpstreamAddr::Loopback(port)]);
        for _ in 0..3 {
            let answer = Client::connect(scene.mesh.address()).ask(get_target("/there"));
            assert_eq!((answer.status, answer.body), (200, b"/there".to_vec()), "{address}");
            endpoint.close_connections();
            endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
        }
    }
    // Nothing listens on either: the client is told that, and not that there is no IPv6.
    let mut gone = Endpoint::start();
    gone.die();
    scene.route_to(&[UpstreamAddr::Loopback(gone.port())]);
    let answer = scene.client().ask(get(""));
    assert_eq!(answer.status, 502);
    assert_eq!(answer.body, b"the service refused the connection\n");
    scene.ends_clean();
}

/// TCP leads to no multicast group: the kernel says ENETUNREACH at once, and sends nothing.
#[test]
fn an_unreachable_network_gives_502_at_once() {
    // Waiting does not help, so the request is not held.
    let scene = Scene::new(|config| config.timeouts.hold = ms(60_000));
    scene.route_to(&[UpstreamAddr::Tcp(SocketAddr::from(([224, 0, 0, 1], 80)))]);
    let answer = scene.client().ask(get(""));
    assert_eq!(answer.status, 502);
    assert_eq!(answer.body, b"the gateway has no way to reach the service\n");
    let stats = scene.mesh.service_stats();
    assert_eq!((stats.errors.unreachable, stats.connect_errors, stats.upstream_errors), (1, 1, 1));
    assert_eq!((stats.gateway_errors, stats.holds), (0, 0));
    scene.ends_clean();
}

const CHILD: &str = "MESH_TEST_WITHOUT_IPV6";

/// What a container without IPv6 sees, where it can be made: in a network namespace of its own.
#[test]
fn without_ipv6_an_endpoint_on_all_addresses_is_reached() {
    // Scenes count descriptors, and the pipes to the other process are some: one at a time.
    let scene = Scene::new(|_| {});
    let script = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 \
                  && exec \"$0\" \"$@\"";
    let program = std::env::current_exe().expect("this program");
    let child = Command::new("unshare")
        .args(["--net", "--map-root-user", "sh", "-c", script])
        .arg(program)
        .args(["upstreams::process_without_ipv6", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .output();
    match child {
        Ok(done) if String::from_utf8_lossy(&done.stdout).contains("running 1 test") => {
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stdout));
        }
        Ok(done) => {
            let why = String::from_utf8_lossy(&done.stderr);
            eprintln!("skipped: no network namespace can be made here: {}", why.trim());
        }
        Err(error) => eprintln!("skipped: unshare cannot be run: {error}"),
    }
    scene.ends();
}

#[test]
#[ignore = "run by without_ipv6_an_endpoint_on_all_addresses_is_reached in a namespace of its own"]
fn process_without_ipv6() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let endpoint = Endpoint::on((Ipv6Addr::UNSPECIFIED, 0).into());
    let ipv6_only = UpstreamAddr::Tcp((Ipv6Addr::LOCALHOST, endpoint.port()).into());
    let mesh = Mesh::start(
        Config::default(),
        vec![
            service("a.test", &[UpstreamAddr::Loopback(endpoint.port())]),
            service("b.test", &[ipv6_only]),
        ],
        None,
    );
    let mut client = Client::connect(mesh.address());
    for _ in 0..3 {
        assert_eq!(client.ask(get("")).status, 200);
    }
    // This is EADDRNOTAVAIL as well, but no port is missing.
    let answer = client.ask("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.body, b"the gateway has no way to reach the service\n");
    let errors = &mesh.stats().total.errors;
    assert_eq!((errors.unreachable, errors.out_of_sockets), (1, 0));
    mesh.gateway.stop(Some(Duration::ZERO));
}
