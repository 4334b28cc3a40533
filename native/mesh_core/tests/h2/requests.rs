//! What the endpoint sees of a request, and the client of a response.

use http::Method;
use mesh_core::Config;
use mesh_core::observe::{AccessLog, Format, ObserveConfig};

use crate::support::endpoint::{Do, Endpoint, ok, reply, send};
use crate::support::frames::{GET, Raw};
use crate::support::http2::{Peer, answer, get, request, send as upload};
use crate::support::mesh::{Mesh, service};
use crate::support::run;

/// RFC 9113 section 8.3.1: pseudo-header fields become the request line and Host; what a client
/// says of itself in forwarded fields does not get through.
#[test]
fn a_request_arrives_as_one_of_http_1_1() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let spoofed = [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-custom", "kept"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ];
        let asked = request(Method::GET, "A.test:8080", "/p%20a?q=1&q=2", &spoofed);
        assert_eq!(peer.ask(asked).await.status, 200);
    });
    let seen = &endpoint.requests()[0];
    assert_eq!(seen.line, "GET /p%20a?q=1&q=2 HTTP/1.1");
    assert_eq!(seen.fields.all("host"), ["A.test:8080"]);
    assert_eq!(seen.fields.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.fields.all("x-forwarded-host"), ["A.test:8080"]);
    assert_eq!(seen.fields.all("x-forwarded-port"), ["8080"]);
    assert_eq!(seen.fields.all("x-forwarded-proto"), ["http"]);
    // RFC 9110 section 7.6.3: the protocol that was received.
    assert_eq!(seen.fields.all("via"), ["2.0 mesh"]);
    assert_eq!(seen.fields.all("x-custom"), ["kept"]);
    assert_eq!(seen.fields.all("x-request-id").len(), 1);
    for gone in ["forwarded", "http2-settings", "connection", "transfer-encoding"] {
        assert!(seen.fields.all(gone).is_empty(), "{gone}");
    }
}

/// What the endpoint is told of a trace that begins here is what the log says.
#[test]
fn a_trace_that_begins_here_is_named_in_the_log() {
    let endpoint = Endpoint::start();
    let config = Config { start_trace: true, ..Config::default() };
    let mesh = Mesh::to(config, &endpoint.address);
    let path = std::env::temp_dir().join(format!("mesh-h2-trace-{}.log", std::process::id()));
    let log = AccessLog { format: Format::Json, query: false, path: Some(path.clone()) };
    mesh.gateway
        .observe(ObserveConfig { access_log: Some(log), ..ObserveConfig::default() })
        .unwrap();
    run(async {
        assert_eq!(Peer::connect(mesh.address()).await.get("/").await.status, 200);
    });
    mesh.wait_idle();
    mesh.gateway.observe(ObserveConfig::default()).unwrap();
    let logged = std::fs::read_to_string(&path).expect("a log");
    std::fs::remove_file(&path).expect("a log");
    let begun = endpoint.requests()[0].fields.one("traceparent").expect("one traceparent");
    let logged: serde_json::Value = serde_json::from_str(&logged).expect("one line");
    assert_eq!(logged["trace_id"], begun[3..35]);
}

/// RFC 9113 section 8.2.3: cookie crumbs are put together again.
#[test]
fn cookie_fields_are_joined() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let crumbs = [("cookie", "a=1"), ("x-between", "y"), ("cookie", "b=2"), ("cookie", "c=3")];
        peer.ask(request(Method::GET, "a.test", "/", &crumbs)).await;
    });
    assert_eq!(endpoint.requests()[0].fields.all("cookie"), ["a=1; b=2; c=3"]);
}

/// RFC 9113 section 8.2.2: `te: trailers` is the one field about a connection, and is said anew.
#[test]
fn te_trailers_is_passed_on() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        peer.ask(request(Method::GET, "a.test", "/", &[("te", "trailers")])).await;
    });
    let fields = &endpoint.requests()[0].fields;
    assert_eq!(fields.all("te"), ["trailers"]);
    assert_eq!(fields.all("connection"), ["TE"]);
}

/// RFC 9110 section 8.6: that a POST has no content is said; a GET's goes without saying.
#[test]
fn a_post_without_content_has_length_zero() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        peer.ask(request(Method::POST, "a.test", "/post", &[])).await;
        peer.get("/get").await;
    });
    let requests = endpoint.requests();
    assert_eq!(requests[0].fields.all("content-length"), ["0"]);
    assert!(requests[1].fields.all("content-length").is_empty());
}

/// RFC 9113 section 8.2.2: fields about the endpoint's connection stay behind.
#[test]
fn a_response_arrives_without_connection_fields() {
    let endpoint = Endpoint::start();
    endpoint.script(reply(
        "HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n\
         X-Hop: no\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Kept: Yes\r\nContent-Length: 2\r\n\r\nhi",
    ));
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let answer = run(async { Peer::connect(mesh.address()).await.get("/").await });
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"hi"[..]));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a", "b"]);
    assert_eq!(answer.headers["x-kept"], "Yes");
    // RFC 9110 section 6.6.1.
    assert!(answer.headers.contains_key("date"));
    for gone in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
        assert!(!answer.headers.contains_key(gone), "{gone}");
    }
}

/// RFC 9110 section 6.4.1: no content, whatever the fields say.
#[test]
fn responses_without_content_end_with_their_head() {
    let endpoint = Endpoint::start();
    endpoint
        .script(reply("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"))
        .script(reply("HTTP/1.1 204 No Content\r\n\r\n"))
        .script(reply("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"));
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let head = peer.ask(request(Method::HEAD, "a.test", "/", &[])).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert_eq!(head.headers["content-length"], "99");
        assert_eq!(peer.get("/").await.status, 204);
        let unchanged = peer.get("/").await;
        assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    });
    // All on one connection: nobody waited for content.
    assert_eq!(endpoint.look(|state| state.connections.len()), 1);
}

/// RFC 9113 section 8.1: interim responses come before the final one.
#[test]
fn interim_responses_are_passed_on() {
    let endpoint = Endpoint::start();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    endpoint.script(vec![
        send("HTTP/1.1 100 Continue\r\n\r\n"),
        Do::Body,
        send(hints),
        send(ok("done")),
    ]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let asked = request(Method::POST, "a.test", "/", &[("expect", "100-continue")]);
        let (mut response, mut body) = peer.begin(asked, false).await;
        let informed = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
        assert_eq!(informed.expect("an interim response").expect("no error").status(), 100);
        upload(&mut body, "data".into(), true).await.expect("upload");
        let informed = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
        assert_eq!(informed.expect("an interim response").expect("no error").status(), 103);
        assert_eq!(answer(response).await.expect("answer").body, b"done");
    });
    assert_eq!(endpoint.requests()[0].body, b"data");
}

/// RFC 9113 section 5: streams are independent, and `:authority` alone says where each goes.
#[test]
fn streams_to_two_services_run_concurrently() {
    let (a, b) = (Endpoint::start(), Endpoint::start());
    for _ in 0..8 {
        a.script(vec![Do::Gate("a"), send(ok("from a"))]);
    }
    let services = vec![
        service("a.test", std::slice::from_ref(&a.address)),
        service("b.test", std::slice::from_ref(&b.address)),
    ];
    let mesh = Mesh::start(Config::default(), services, None);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut waiting = Vec::new();
        for _ in 0..8 {
            waiting.push(peer.begin(get("a.test", "/"), true).await.0);
        }
        a.wait_for_requests(8);
        // Not held up by those that wait.
        for _ in 0..8 {
            assert_eq!(peer.ask(get("b.test", "/b")).await.body, b"/b");
        }
        a.open_gate("a");
        for response in waiting {
            assert_eq!(answer(response).await.expect("answer").body, b"from a");
        }
    });
    assert_eq!(b.look(|state| state.connections.len()), 1, "its connection is kept");
}

/// RFC 9113 section 8.3.1: Host stands in for `:authority`, and must not contradict it.
#[test]
fn host_agrees_with_authority_or_is_refused() {
    let endpoint = Endpoint::start();
    // Who may ask for https targets without TLS.
    let trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    let config = Config { trusted_proxies, ..Config::default() };
    let mesh = Mesh::to(config, &endpoint.address);
    let mut raw = Raw::open(mesh.address());
    let with = |fields: &[(&'static str, &'static str)]| [&GET[..], fields].concat();
    assert_eq!(raw.ask(1, &with(&[("host", "a.TEST")])).status(1), 200);
    assert_eq!(raw.ask(3, &with(&[("host", "b.test")])).status(3), 400);
    assert_eq!(raw.ask(5, &with(&[("host", "a.test:81")])).status(5), 400);
    let by_host = [&GET[..3], &[("host", "a.test")]].concat();
    assert_eq!(raw.ask(7, &by_host).status(7), 200);
    let two_hosts = [&by_host[..], &[("host", "a.test")]].concat();
    assert_eq!(raw.ask(9, &two_hosts).status(9), 400);
    assert_eq!(raw.ask(11, &GET[..3]).status(11), 400);
    // RFC 9110 section 4.2.3: the port of the scheme may be left out.
    let https = |authority, host| {
        let mut fields = with(&[("host", host)]);
        (fields[1], fields[3]) = ((":scheme", "https"), (":authority", authority));
        fields
    };
    let mut http = with(&[("host", "a.test")]);
    http[3] = (":authority", "a.test:80");
    assert_eq!(raw.ask(13, &http).status(13), 200);
    assert_eq!(raw.ask(15, &with(&[("host", "a.test:80")])).status(15), 200);
    assert_eq!(raw.ask(17, &with(&[("host", "a.test:443")])).status(17), 400);
    assert_eq!(raw.ask(19, &https("a.test", "a.test:443")).status(19), 200);
    assert_eq!(raw.ask(21, &https("a.test:443", "a.test")).status(21), 200);
    assert_eq!(raw.ask(23, &https("a.test:80", "a.test")).status(23), 400);
    assert_eq!(endpoint.requests().len(), 6);
}

/// RFC 9110 section 7.4: an https target that came without TLS is for a trusted proxy to send, and
/// then it is what the endpoint is told of the client's side.
#[test]
fn an_https_target_comes_from_trusted_proxies_only() {
    for trusted in [false, true] {
        let endpoint = Endpoint::start();
        let mut config = Config::default();
        if trusted {
            config.trusted_proxies.push("127.0.0.0/8".parse().expect("a network"));
        }
        let mesh = Mesh::to(config, &endpoint.address);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let asked = http::Request::get("https://a.test/").body(()).expect("a request");
            assert_eq!(peer.ask(asked).await.status, if trusted { 200 } else { 421 });
        });
        let seen = endpoint.requests();
        assert_eq!(seen.len(), usize::from(trusted));
        for request in seen {
            assert_eq!(request.fields.all("x-forwarded-proto"), ["https"]);
            assert_eq!(request.fields.all("x-forwarded-port"), ["443"]);
        }
    }
}

/// Names that other servers take for those of the gateway (see `Field::Alias`).
#[test]
fn underscores_do_not_pass_for_hyphens() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let fields = [("x_forwarded_for", "1.2.3.4"), ("content_length", "5"), ("x_mine", "1")];
        assert_eq!(peer.ask(request(Method::GET, "a.test", "/", &fields)).await.status, 200);
    });
    let seen = &endpoint.requests()[0];
    assert_eq!(seen.fields.all("x_mine"), ["1"]);
    assert!(seen.fields.all("x_forwarded_for").is_empty());
    assert!(seen.fields.all("content_length").is_empty());
}
