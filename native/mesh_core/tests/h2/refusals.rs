//! Requests that go no further, and how the client is told.

use bytes::Bytes;
use http::Method;
use mesh_core::Config;

use crate::support::endpoint::{Do, Endpoint};
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM, Raw, block,
};
use crate::support::http2::{Peer, answer, get, request, send};
use crate::support::mesh::Mesh;
use crate::support::run;

fn replaced(at: usize, field: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
    let mut fields = GET.to_vec();
    fields[at] = field;
    fields
}

/// RFC 9113 section 8.1.1: malformed requests are stream errors, or told with a 400.
#[test]
fn malformed_requests_do_not_reach_the_endpoint() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let with = |field: (&'static str, &'static str)| [&GET[..], &[field]].concat();
    let reset = [
        // Section 8.2.2: fields about a connection.
        with(("connection", "close")),
        with(("keep-alive", "1")),
        with(("proxy-connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("upgrade", "h2c")),
        with(("te", "gzip")),
        // Section 8.2.1: characters that no name has, or no value.
        with(("Upper", "case")),
        with(("a b", "c")),
        with(("x", "a\r\nevil: 1")),
        with(("x", "a\0b")),
        // Section 8.3: pseudo-header fields, once each, all of them, before the others.
        with((":path", "/again")),
        with((":status", "200")),
        with((":unknown", "x")),
        GET[1..].to_vec(),
        replaced(2, (":path", "")),
        // Section 8.1.1: a length that is none, and one that is not kept.
        with(("content-length", "x")),
        with(("content-length", "5")),
    ];
    for fields in reset {
        // A connection each: it may be treated as an error of the connection (section 5.4.1).
        let mut raw = Raw::open(mesh.address());
        raw.ask(1, &fields);
        let refusal = raw.first(&[RST_STREAM, GOAWAY]);
        assert_eq!(refusal.error(), PROTOCOL_ERROR, "{fields:?}");
    }
    let told = [
        replaced(2, (":path", "*")),
        // What HTTP/1.1 takes in no target, either.
        replaced(2, (":path", "/a\x7fb")),
        with(("quo\"ted", "c")),
        with(("x", " padded")),
        with(("x", "padded\t")),
        // RFC 9112 section 7.2 and RFC 3986: no user information, no port that is none.
        replaced(3, (":authority", "user@a.test")),
        replaced(3, (":authority", "a.test:x")),
    ];
    for fields in &told {
        let mut raw = Raw::open(mesh.address());
        raw.ask(1, fields);
        let refusal = raw.first(&[RST_STREAM, HEADERS]);
        assert!(refusal.kind == RST_STREAM || refusal.payload[0] == 0x8c, "{fields:?}");
        assert_eq!(raw.ask(3, &GET).status(3), 200);
    }
    assert_eq!(endpoint.requests().len(), told.len());
}

/// RFC 9113 section 8.1: pseudo-header fields have no place in trailers. The crate h2 drops them
/// instead of ending the stream, which is as good for the endpoint.
#[test]
fn pseudo_fields_in_trailers_do_not_reach_the_endpoint() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut raw = Raw::open(mesh.address());
    let mut post = GET;
    post[0] = (":method", "POST");
    raw.send(HEADERS, END_HEADERS, 1, &block(&post)).send(DATA, 0, 1, b"hello");
    let trailers = [(":path", "/evil"), (":method", "PUT"), ("x-sum", "1")];
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailers));
    let refusal = raw.first(&[RST_STREAM, GOAWAY, HEADERS]);
    for request in endpoint.requests() {
        assert_eq!((request.line.as_str(), refusal.kind), ("POST / HTTP/1.1", HEADERS));
        let names: Vec<&str> = request.trailers.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-sum"]);
    }
}

/// The gateway's own answers are those of HTTP/1.1, in the form that is asked for.
#[test]
fn the_gateways_own_responses_are_those_of_http_1_1() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let unknown = peer.ask(get("b.test", "/")).await;
        assert_eq!(unknown.status, 404);
        assert_eq!(unknown.body, b"unknown service: b.test\n");
        assert!(unknown.headers.contains_key("x-request-id"));
        let json = [("accept", "application/json"), ("x-request-id", "0123456789-0123456789")];
        let unknown = peer.ask(request(Method::GET, "b.test", "/", &json)).await;
        assert_eq!(unknown.headers["content-type"], "application/json");
        assert_eq!(unknown.headers["x-request-id"], "0123456789-0123456789");
        let head = peer.ask(request(Method::HEAD, "b.test", "/", &[])).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (404, 0));
        // RFC 9110 section 9.3.6: CONNECT is for proxies.
        let connect = http::Request::connect("a.test:80").body(()).expect("a request");
        assert_eq!(peer.ask(connect).await.status, 501);
        // RFC 9110 section 7.6.2.
        let options = request(Method::OPTIONS, "a.test", "/", &[("max-forwards", "0")]);
        assert_eq!(peer.ask(options).await.status, 501);
        assert_eq!(peer.get("/").await.status, 200);
    });
    let totals = mesh.stats().gateway;
    assert_eq!((totals.requests_unrouted, totals.requests_refused), (3, 2));
}

/// RFC 9110 section 15.5.14: a body that is too long, announced or not.
#[test]
fn bodies_are_limited() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![Do::UntilClosed]);
    let mut config = Config::default();
    config.limits.body_bytes = Some(1000);
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let announced = request(Method::POST, "a.test", "/", &[("content-length", "1001")]);
        let (response, _body) = peer.begin(announced, false).await;
        assert_eq!(answer(response).await.expect("answer").status, 413);
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        send(&mut body, "x".into(), false).await.expect("upload");
        endpoint.wait_for_requests(1);
        send(&mut body, Bytes::from(vec![b'x'; 1000]), false).await.expect("upload");
        assert_eq!(answer(response).await.expect("answer").status, 413);
        assert_eq!(peer.get("/").await.status, 200);
    });
    mesh.eventually("both are counted", |stats| stats.gateway.limits.body_bytes == 2);
}

/// RFC 9113 section 10.5.1: heads that are too long, or too many fields.
#[test]
fn heads_are_limited() {
    let endpoint = Endpoint::start();
    let mut config = Config::default();
    config.limits.head_bytes = 4096;
    config.limits.header_count = 20;
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        // Sizes count as in section 6.5.2, with the pseudo-header fields: the names and 32 for each.
        let others = GET.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        let fits = "x".repeat(4096 - others - "x-long".len() - 32);
        let long = |more: &str| {
            let value = format!("{fits}{more}");
            request(Method::GET, "a.test", "/", &[("x-long", &value)])
        };
        assert_eq!(peer.ask(long("")).await.status, 200);
        let refused = peer.ask(long("x")).await;
        assert_eq!(refused.status, 431);
        assert!(refused.headers.contains_key("x-request-id") && !refused.body.is_empty());
        // h2 refuses this one by itself.
        assert_eq!(peer.ask(long(&"x".repeat(8192))).await.status, 431);
        let many: Vec<_> = (0..21).map(|_| ("x-many", "1")).collect();
        assert_eq!(peer.ask(request(Method::GET, "a.test", "/", &many)).await.status, 431);
        assert_eq!(peer.get("/").await.status, 200);
    });
    assert_eq!(endpoint.requests().len(), 2);
    mesh.eventually("what the gateway refused is counted", |stats| {
        let (gateway, limits) = (&stats.gateway, &stats.gateway.limits);
        (limits.head_bytes, limits.header_count, gateway.responses_4xx) == (1, 1, 2)
    });
}

/// RFC 9110 section 15.6.3 and 15.6.5: what the endpoint does wrong is not the client's fault.
#[test]
fn failing_endpoints_give_502_and_504() {
    let endpoint = Endpoint::start();
    endpoint
        .script(vec![Do::Body, Do::Reset])
        .script(vec![Do::Body, crate::support::endpoint::send("nonsense\r\n\r\n"), Do::Close])
        .script(vec![Do::UntilClosed]);
    let mut config = Config::default();
    config.timeouts.response = Some(std::time::Duration::from_millis(200));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        assert_eq!(peer.get("/").await.status, 502);
        assert_eq!(peer.get("/").await.status, 502);
        assert_eq!(peer.get("/").await.status, 504);
        assert_eq!(peer.get("/").await.status, 200);
    });
    mesh.eventually("all three are counted", |_| {
        let stats = mesh.service_stats();
        stats.upstream_errors == 3 && stats.responses_5xx == 3 && stats.in_flight == 0
    });
}
