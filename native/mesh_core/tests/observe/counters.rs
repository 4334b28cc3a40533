use mesh_core::config::Limits;
use mesh_core::{Config, Gateway};

use crate::support::client::{Client, get, post};
use crate::support::endpoint::{Do, Endpoint, ok, reply, send};
use crate::support::mesh::{Mesh, service};

#[test]
fn every_request_counts_once_by_method_and_status() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect(mesh.address());
    client.ask(get(""));
    client.ask(post("Content-Length: 5\r\n", "hello"));
    client.ask("DELETE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.ask("BREW / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    endpoint.script(reply("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
    client.ask("PATCH / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    drop(client);
    mesh.wait_idle();
    let counted = mesh.service_stats();
    let methods = &counted.methods;
    assert_eq!((counted.requests, counted.responses_2xx, counted.responses_4xx), (5, 4, 1));
    assert_eq!((methods.get, methods.post, methods.delete, methods.patch), (1, 1, 1, 1));
    assert_eq!((methods.other, methods.put, methods.head), (1, 0, 0));
    assert_eq!(counted.request_body_bytes, 5);
    let latency = &counted.latency;
    let counts = [&latency.total, &latency.first_byte, &latency.gateway].map(|h| h.count());
    assert_eq!(counts, [5, 5, 5]);
    assert!(latency.total.quantile(1.0) >= latency.first_byte.quantile(1.0));
    assert_eq!((counted.upstream_connections_open, counted.upstream_connections_opened), (1, 1));
    assert_eq!(mesh.stats().total, counted);
}

#[test]
fn failures_count_by_kind_and_side() {
    let endpoint = Endpoint::start();
    let dead = Endpoint::start().address.clone();
    let services = vec![
        service("a.test", std::slice::from_ref(&endpoint.address)),
        service("dead.test", std::slice::from_ref(&dead)),
        service("none.test", &[]),
    ];
    let mesh = Mesh::start(Config::default(), services, None);
    let ask = |host: &str| {
        Client::connect(mesh.address())
            .ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .status
    };
    endpoint.script(vec![Do::Body, send("HTTP/1.1 nonsense\r\n\r\n"), Do::Close]);
    assert_eq!(ask("a.test"), 502);
    endpoint.script(vec![Do::Body, Do::Close]);
    assert_eq!(ask("a.test"), 502);
    assert_eq!(ask("dead.test"), 502);
    assert_eq!(ask("none.test"), 503);
    assert_eq!(ask("unknown.test"), 404);
    assert_eq!(Client::connect(mesh.address()).ask("GET / HTTP/1.1\r\n\r\n").status, 400);
    mesh.wait_idle();
    let stats = mesh.stats();
    let errors = |host: &str| stats.services[host].errors.clone();
    assert_eq!((errors("a.test").bad_response, errors("a.test").upstream_closed), (1, 1));
    assert_eq!((errors("dead.test").connect, errors("none.test").not_listening), (1, 1));
    assert_eq!((stats.total.upstream_errors, stats.total.responses_5xx), (4, 4));
    assert_eq!((stats.total.downstream_errors, stats.total.gateway_errors), (0, 0));
    let gateway = &stats.gateway;
    assert_eq!((gateway.errors.unknown_service, gateway.errors.bad_request), (1, 1));
    assert_eq!((gateway.requests_unrouted, gateway.requests_refused), (1, 1));
    assert_eq!((gateway.responses_4xx, gateway.responses_5xx), (2, 0));
}

#[test]
fn a_client_that_leaves_counts_as_its_own_failure() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    endpoint.script(vec![Do::Body, Do::Gate("never"), Do::UntilClosed]);
    let mut client = Client::connect(mesh.address());
    client.send(get(""));
    endpoint.wait_for_requests(1);
    assert_eq!(mesh.service_stats().in_flight, 1);
    client.reset();
    mesh.wait_idle();
    endpoint.open_gate("never");
    let counted = mesh.service_stats();
    assert_eq!((counted.downstream_errors, counted.errors.client_gone), (1, 1));
    assert_eq!((counted.latency.total.count(), counted.latency.first_byte.count()), (1, 0));
    assert_eq!(counted.upstream_connections_open, 0);
}

#[test]
fn limits_that_are_reached_count() {
    let endpoint = Endpoint::start();
    let limits = Limits {
        head_bytes: 1024,
        header_count: 8,
        body_bytes: Some(4),
        requests_per_connection: Some(1),
        connections: Some(1),
        ..Limits::default()
    };
    let mesh = Mesh::to(Config { limits, ..Config::default() }, &endpoint.address);
    let ask = |request: &str| {
        let status = Client::connect(mesh.address()).ask(request).status;
        mesh.wait_idle();
        status
    };
    assert_eq!(ask(&get(&format!("X: {}\r\n", "x".repeat(2000)))), 431);
    assert_eq!(ask(&get(&"X: y\r\n".repeat(10))), 431);
    assert_eq!(ask(&post("Content-Length: 5\r\n", "hello")), 413);
    assert_eq!(ask(&get("")), 200);
    let first = Client::connect(mesh.address());
    mesh.eventually("the first is open", |s| s.gateway.connections_open == 1);
    assert_eq!(Client::connect(mesh.address()).response().status, 503);
    drop(first);
    mesh.wait_idle();
    let gateway = mesh.stats().gateway;
    let limits = gateway.limits;
    assert_eq!((limits.head_bytes, limits.header_count, limits.body_bytes), (1, 1, 1));
    assert_eq!((limits.requests_per_connection, limits.connections), (2, 1));
    assert_eq!((gateway.connections_refused, gateway.errors.overloaded), (1, 1));
}

#[test]
fn totals_include_removed_services() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("late"))]);
    let mut client = Client::connect(mesh.address());
    client.send(get(""));
    endpoint.wait_for_requests(1);
    // While a request is under way, and once more with none.
    mesh.gateway.set_routes(vec![], None).unwrap();
    assert_eq!(mesh.stats().total.requests, 1);
    endpoint.open_gate("go");
    assert_eq!(client.response().body, b"late");
    drop(client);
    mesh.wait_idle();
    let stats = mesh.stats();
    assert!(stats.services.is_empty());
    assert_eq!((stats.total.requests, stats.total.responses_2xx), (1, 1));
    let again = vec![service("a.test", std::slice::from_ref(&endpoint.address))];
    mesh.gateway.set_routes(again, None).unwrap();
    Client::connect(mesh.address()).ask(get(""));
    mesh.wait_idle();
    let stats = mesh.stats();
    assert_eq!((stats.total.requests, stats.services["a.test"].requests), (2, 1));
    assert_eq!(stats.total.latency.total.count(), 2);
}

#[test]
fn a_gateway_without_traffic_counts_zero() {
    let stats = Gateway::open(Config::default()).unwrap().stats();
    assert_eq!(stats.total.requests, 0);
    assert_eq!(stats.total.latency.total.summary().p99, 0);
}
