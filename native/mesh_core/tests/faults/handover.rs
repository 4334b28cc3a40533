//! Two gateways with the same listening sockets: one takes over from the other, and no client notices.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mesh_core::{Config, Inherited};

use crate::support::client::{Client, End, get, get_target};
use crate::support::endpoint::{Do, Endpoint, ok, send};
use crate::support::eventually;
use crate::support::mesh::{Mesh, service};
use crate::support::scene::Scene;

const LONG: Duration = Duration::from_secs(20);

/// A gateway with these sockets, whose `a.test` is `endpoint`.
fn successor(sockets: Vec<TcpListener>, accepting: bool, endpoint: &Endpoint) -> Mesh {
    let config = Config { workers: 2, ips: Vec::new(), ..Config::default() };
    let services = vec![service("a.test", std::slice::from_ref(&endpoint.address))];
    let inherited = Inherited { sockets, accepting, keep_queue: false };
    Mesh::start_with(config, inherited, services, None)
}

#[test]
fn a_paused_gateway_serves_what_it_has_and_leaves_the_rest_in_the_queue() {
    let scene = Scene::new(|_| {});
    let mut kept = scene.client();
    assert_eq!(kept.ask(get("")).status, 200);
    assert!(scene.mesh.gateway.pause(LONG));
    let mut waiting = scene.client();
    waiting.send(get(""));
    assert_eq!(kept.ask(get("")).status, 200);
    assert_eq!(scene.mesh.stats().gateway.connections_open, 1);
    scene.mesh.gateway.accept();
    assert_eq!(waiting.response().status, 200);
    drop((kept, waiting));
    scene.ends_clean();
}

#[test]
fn the_port_passes_to_another_gateway_under_load() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("late"))]);
    let mut slow = scene.client();
    slow.send(get(""));
    scene.endpoint.wait_for_requests(1);
    let address = scene.mesh.address();
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut served = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let close =
                        get_target("/load").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                    let answer = Client::connect(address).ask(close.replace("a.test", "b.test"));
                    assert_eq!(answer.status, 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let sockets = scene.mesh.gateway.share_listeners().unwrap();
    let mut next = successor(sockets, false, &scene.other);
    let routes = vec![service("b.test", std::slice::from_ref(&scene.other.address))];
    next.gateway.set_routes(routes, None).unwrap();
    scene.mesh.eventually("the first serves", |s| s.services["b.test"].requests > 50);
    assert!(scene.mesh.gateway.pause(LONG));
    next.gateway.accept();
    assert!(scene.mesh.gateway.release(LONG));
    scene.mesh.gateway.stop(None);
    next.eventually("the second serves", |s| s.services["b.test"].requests > 50);
    // What the first has begun, it finishes.
    scene.endpoint.open_gate("go");
    assert_eq!(slow.response().body, b"late");
    scene.mesh.join();
    is_over.store(true, Ordering::Relaxed);
    assert!(clients.into_iter().map(|client| client.join().unwrap()).sum::<i32>() > 100);
    next.stop(None);
    assert!(TcpStream::connect(address).is_err());
    drop((slow, next));
    scene.ends();
}

/// Neither the end of one that never accepted nor its stop takes anything from the first.
#[test]
fn a_gateway_that_has_not_taken_over_leaves_the_port_alone() {
    let scene = Scene::new(|_| {});
    let sockets = scene.mesh.gateway.share_listeners().unwrap();
    let mut next = successor(sockets, false, &scene.other);
    next.stop(Some(LONG));
    drop(next);
    for _ in 0..10 {
        assert_eq!(scene.client().ask(get("")).status, 200);
    }
    // From now on its stop refuses, as ever.
    scene.mesh.gateway.accept();
    scene.ends_clean();
}

/// One that stops while another has its sockets loses no connection: they wait for the other.
#[test]
fn connections_wait_for_a_gateway_that_is_not_ready() {
    let mut scene = Scene::new(|_| {});
    let sockets = scene.mesh.gateway.share_listeners().unwrap();
    let mut next = successor(sockets, false, &scene.other);
    let address = scene.mesh.address();
    scene.mesh.stop(None);
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(get(""));
    }
    next.gateway.accept();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    // Now the queue is its own.
    next.stop(None);
    assert!(TcpStream::connect(address).is_err());
    drop((clients, next));
    scene.ends();
}

/// Sockets of a service manager.
#[test]
fn a_queue_that_outlives_the_gateway_is_left_as_it_is() {
    let scene = Scene::new(|_| {});
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = kept.local_addr().unwrap();
    let run = || {
        let config = Config { workers: 2, ips: Vec::new(), ..Config::default() };
        let services = vec![service("a.test", std::slice::from_ref(&scene.endpoint.address))];
        let sockets = vec![kept.try_clone().unwrap()];
        let inherited = Inherited { sockets, accepting: true, keep_queue: true };
        Mesh::start_with(config, inherited, services, None)
    };
    let mut first = run();
    let mut idle = Client::connect(address);
    assert_eq!(idle.ask(get("")).status, 200);
    first.stop(Some(LONG));
    assert_eq!(idle.read_to_end(), End::Closed);
    let mut waiting = Client::connect(address);
    waiting.send(get(""));
    let mut second = run();
    assert_eq!(waiting.response().status, 200);
    drop((idle, waiting));
    second.stop(Some(LONG));
    drop((first, second, kept));
    scene.ends_clean();
}

#[test]
fn other_addresses_are_bound_beside_inherited_sockets() {
    let scene = Scene::new(|_| {});
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let config = Config { ips: vec!["127.0.0.2".parse().unwrap()], ..Config::default() };
    let services = vec![service("a.test", std::slice::from_ref(&scene.endpoint.address))];
    let inherited = Inherited { sockets: vec![socket], ..Inherited::default() };
    let mut mesh = Mesh::start_with(config, inherited, services, None);
    assert_eq!(mesh.gateway.local_addrs().len(), 2);
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let address = format!("{ip}:{port}").parse().unwrap();
        assert_eq!(Client::connect(address).ask(get("")).status, 200);
    }
    mesh.stop(None);
    drop(mesh);
    scene.ends_clean();
}

#[test]
fn connections_of_another_process_count() {
    let scene = Scene::new(|config| {
        config.limits.connections = Some(3);
        config.limits.connections_per_client = Some(2);
    });
    let ip = scene.mesh.address().ip();
    let _one = scene.client();
    eventually("it is counted", || scene.mesh.gateway.connections() == (1, vec![(ip, 1)]));
    // Of the client, and in all.
    for (total, clients) in [(1, vec![(ip, 1)]), (2, vec![])] {
        scene.mesh.gateway.reserve(total, clients.into_iter());
        assert_eq!(scene.client().ask(get("")).status, 503);
    }
    scene.mesh.gateway.reserve(0, std::iter::empty());
    eventually("there is room again", || {
        let mut client = scene.client();
        client.send(get(""));
        client.response().status == 200
    });
    drop(_one);
    scene.ends();
}
