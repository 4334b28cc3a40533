//! The connection around the streams: how it begins, and how it ends.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mesh_core::{Config, ProxyProtocol};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{Client, End, get as get1};
use crate::support::endpoint::{Do, Endpoint, ok, send};
use crate::support::frames::{
    GET, GOAWAY, PREFACE, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, frame,
};
use crate::support::http2::{Peer, answer, get};
use crate::support::mesh::{Mesh, service};
use crate::support::run;
use crate::support::wire::Request;

/// RFC 9113 section 3.4: the preface is one however it arrives, and nothing else is.
#[test]
fn the_preface_may_come_in_pieces() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    for cut in [1, 2, 4, 16, 18, 23] {
        let mut raw = Raw(Client::connect(mesh.address()));
        raw.0.send(&PREFACE[..cut]);
        // Another's request goes through meanwhile, so that the gateway has seen the piece.
        assert_eq!(Client::connect(mesh.address()).ask(get1("")).status, 200);
        raw.0.send(&PREFACE[cut..]).send(frame(SETTINGS, 0, 0, &[]));
        assert_eq!(raw.ask(1, &GET).status(1), 200, "cut at {cut}");
    }
    for other in ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.1\r\n\r\n"] {
        let response = Client::connect(mesh.address()).ask(other);
        assert!([400, 505].contains(&response.status), "{other:?}");
    }
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx";
    let mut client = Client::connect(mesh.address());
    assert_eq!(client.ask(post).status, 200);
    // Within a connection of HTTP/1.1 it is a request, and a wrong one.
    assert_eq!(client.send(PREFACE).response().status, 505);
}

/// A client that stops within the preface is timed out like one that stops within a head.
#[test]
fn half_a_preface_times_out() {
    let endpoint = Endpoint::start();
    let mut config = Config::default();
    config.timeouts.head = Some(Duration::from_millis(100));
    let mesh = Mesh::to(config, &endpoint.address);
    let mut client = Client::connect(mesh.address());
    client.send(&PREFACE[..20]);
    assert_eq!(client.response().status, 408);
    assert_eq!(client.read_to_end(), End::Closed);
}

/// RFC 9113 section 3.1: the upgrade from HTTP/1.1 is no more.
#[test]
fn an_upgrade_to_h2c_is_ignored() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(Client::connect(mesh.address()).ask(get1(upgrade)).status, 200);
    let fields = &endpoint.requests()[0].fields;
    assert!(fields.all("upgrade").is_empty() && fields.all("http2-settings").is_empty());
}

/// The PROXY protocol comes first, and says who the client is.
#[test]
fn a_proxy_header_comes_before_the_preface() {
    let endpoint = Endpoint::start();
    let loopback = IpNet::from(IpAddr::from([127, 0, 0, 1]));
    let config = Config {
        trusted_proxies: vec![loopback],
        proxy_protocol: Some(ProxyProtocol::Any),
        ..Config::default()
    };
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let line: &[u8] = b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 80\r\n";
        let binary: &[u8] =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x07\x7f\0\0\x01\x12\x34\0\x50";
        for header in [line, binary] {
            let mut socket = TcpStream::connect(mesh.address()).await.expect("connect");
            socket.write_all(header).await.expect("write");
            let mut peer = Peer::over(socket).await;
            for _ in 0..2 {
                assert_eq!(peer.get("/").await.status, 200);
            }
        }
    });
    let announced = |r: &Request| r.fields.all("x-forwarded-for") == ["10.0.0.7"];
    assert!(endpoint.requests().iter().all(announced));
}

/// RFC 9113 section 6.8: when the gateway stops, what is under way is finished.
#[test]
fn streams_in_flight_finish_during_a_stop() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![Do::Gate("go"), send(ok("late"))]);
    let mut mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let idle = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(get("a.test", "/"), true).await;
        endpoint.wait_for_requests(1);
        mesh.gateway.stop(None);
        // One without streams is closed soon, and cleanly.
        idle.ended().await.expect("an orderly end");
        endpoint.open_gate("go");
        assert_eq!(answer(response).await.expect("answer").body, b"late");
        peer.ended().await.expect("an orderly end");
    });
    mesh.join();
    assert_eq!(mesh.stats().gateway.connections_open, 0);
}

/// Before it stops: clients are told by GOAWAY, and those that still come are served.
#[test]
fn a_lame_duck_sends_goaway_and_serves_new_connections() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![Do::Gate("go"), send(ok("late"))]);
    let mut mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(get("a.test", "/"), true).await;
        endpoint.wait_for_requests(1);
        let idle = Peer::connect(mesh.address()).await;
        mesh.gateway.lame_duck();
        idle.ended().await.expect("an orderly end");
        let mut late = Peer::connect(mesh.address()).await;
        assert_eq!(late.get("/").await.status, 200);
        late.ended().await.expect("an orderly end");
        endpoint.open_gate("go");
        assert_eq!(answer(response).await.expect("answer").body, b"late");
        peer.ended().await.expect("an orderly end");
    });
    assert!(mesh.is_running());
    mesh.stop(None);
}

/// RFC 9113 section 9.1: a connection on which nothing is asked is closed, with a GOAWAY.
#[test]
fn an_idle_connection_is_closed() {
    let endpoint = Endpoint::start();
    let mut config = Config::default();
    // Long enough for a request on a busy machine.
    config.timeouts.idle = Some(Duration::from_secs(1));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        assert_eq!(peer.get("/").await.status, 200);
        peer.connection.await.expect("no panic").expect("an orderly end");
    });
    let mut silent = Raw::open(mesh.address());
    assert_eq!(silent.until(GOAWAY, 0).error(), 0);
    drop(silent);
    mesh.wait_idle();
}

/// RFC 9113 section 8.7: requests beyond the limit are refused unprocessed, to be sent elsewhere.
#[test]
fn requests_per_connection_are_limited() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![Do::Gate("go"), Do::Answer]);
    let mut config = Config::default();
    config.limits.requests_per_connection = Some(2);
    let mesh = Mesh::to(config, &endpoint.address);
    let mut raw = Raw::open(mesh.address());
    raw.ask(1, &GET).ask(3, &GET).ask(5, &GET);
    assert_eq!(raw.until(RST_STREAM, 5).error(), REFUSED_STREAM);
    endpoint.open_gate("go");
    mesh.eventually("two are served", |_| mesh.service_stats().responses_2xx == 2);
    assert_eq!(mesh.stats().gateway.limits.requests_per_connection, 1);
}

/// A client that leaves takes its requests with it.
#[test]
fn a_lost_connection_cancels_its_streams() {
    let endpoint = Endpoint::start();
    for _ in 0..10 {
        endpoint.script(vec![Do::UntilClosed]);
    }
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut raw = Raw::open(mesh.address());
    for stream in 0..10 {
        raw.ask(2 * stream + 1, &GET);
    }
    endpoint.wait_for_requests(10);
    raw.0.reset();
    endpoint.wait("all ends", |state| state.connections.iter().all(|c| c.ended));
    mesh.wait_idle();
    assert_eq!(mesh.service_stats().downstream_errors, 10);
}

/// Requests wait for an endpoint that is coming back.
#[test]
fn a_request_is_held_until_its_endpoint_is_back() {
    let endpoint = Endpoint::start();
    let mut config = Config::default();
    config.timeouts.hold = Some(Duration::from_secs(10));
    let mesh = Mesh::start(config, vec![service("a.test", &[])], None);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(get("a.test", "/held"), true).await;
        mesh.eventually("it is held", |_| mesh.service_stats().holds == 1);
        let back = vec![service("a.test", std::slice::from_ref(&endpoint.address))];
        mesh.gateway.set_routes(back, None).expect("routes");
        assert_eq!(answer(response).await.expect("answer").body, b"/held");
    });
}
