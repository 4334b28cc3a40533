//! Requests and responses of every form.

use std::future::poll_fn;
use std::sync::mpsc;

use bytes::Bytes;
use http::Method;
use mesh_core::Config;

use crate::support::client::{Client, get, get_target, post};
use crate::support::h2_endpoint::{H2Endpoint, body, echo, grpc, response, trailers};
use crate::support::http2::{Peer, answer, request, send};
use crate::support::mesh::Mesh;
use crate::support::run;

#[test]
fn a_call_passes_with_its_trailers() {
    let endpoint = H2Endpoint::start(echo);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for i in 0..20 {
            let asked = request(Method::POST, "a.test", "/a.B/C", &[("te", "trailers")]);
            let (response, mut body) = peer.begin(asked, false).await;
            send(&mut body, format!("message {i}").into(), true).await.expect("upload");
            let answer = answer(response).await.expect("an answer");
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body, format!("POST /a.B/C\nmessage {i}").into_bytes());
            assert_eq!(answer.trailers["grpc-status"], "0");
            assert_eq!(answer.trailers["grpc-message"], "fine");
        }
    });
    assert_eq!(endpoint.accepted(), 1, "all of them on one connection");
    let stats = mesh.service_stats();
    assert_eq!((stats.requests, stats.upstream_connections_opened), (20, 1));
    assert_eq!(stats.upstream_connections_reused, 19);
}

/// RFC 9113 section 8.2.2, and what every endpoint gets.
#[test]
fn the_endpoint_gets_the_fields_of_the_client_and_of_the_gateway() {
    let (seen, heads) = mpsc::channel();
    let endpoint = H2Endpoint::start(move |request, respond| {
        seen.send(request.into_parts().0).expect("the test listens");
        async { grpc(respond, "") }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let fields =
            [("te", "trailers"), ("grpc-timeout", "99m"), ("cookie", "a=1"), ("cookie", "b=2")];
        Peer::connect(mesh.address())
            .await
            .ask(request(Method::GET, "a.test", "/p?q", &fields))
            .await;
    });
    let by_http1 = "TE: trailers\r\nConnection: TE, x-hop\r\nX-Hop: 1\r\ngrpc-timeout: 99m\r\nCookie: a=1; b=2\r\n";
    let mut client = Client::connect(mesh.address());
    client.ask(format!("GET /p?q HTTP/1.1\r\nHost: a.test\r\n{by_http1}\r\n"));
    for (via, te) in [("2.0 mesh", "trailers"), ("1.1 mesh", "")] {
        let head = heads.recv().expect("a request");
        assert_eq!(head.uri, "http://a.test/p?q");
        let field = |name| head.headers.get(name).map_or("", |value| value.to_str().expect("text"));
        // HTTP/1.1 says it of one connection only (RFC 9110 section 10.1.4).
        assert_eq!(field("te"), te);
        assert_eq!(field("grpc-timeout"), "99m");
        assert_eq!(field("cookie"), "a=1; b=2");
        assert_eq!(field("via"), via);
        assert_eq!(field("x-forwarded-for"), "127.0.0.1");
        assert_eq!(field("x-forwarded-proto"), "http");
        assert!(!field("x-request-id").is_empty());
        for gone in ["connection", "x-hop", "host", "transfer-encoding"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
    }
}

#[test]
fn http1_clients_are_served() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        let (head, mut frames) = request.into_parts();
        let Some((content, sent)) = body(&mut frames).await else { return };
        let length = content.len().to_string();
        let mut fields = vec![("x-kept", "Yes"), ("set-cookie", "a"), ("set-cookie", "b")];
        match head.uri.path() {
            "/length" => fields.push(("content-length", &length)),
            "/empty" => {
                respond.send_response(response(204, &fields), true).expect("sent");
                return;
            }
            "/head" => {
                fields.push(("content-length", "99"));
                respond.send_response(response(200, &fields), true).expect("sent");
                return;
            }
            _ => {}
        }
        let mut stream = respond.send_response(response(201, &fields), false).expect("sent");
        let ends = sent.is_empty();
        stream.send_data(content.into(), ends).expect("sent");
        if !ends {
            stream.send_trailers(sent).expect("sent");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect(mesh.address());
    let chunks = "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-sum: 5\r\n\r\n";
    for (asked, content) in [
        (post("Content-Length: 5\r\n", "hello"), "hello"),
        (post("Transfer-Encoding: chunked\r\n", chunks), "abcde"),
        (get_target("/length"), ""),
        (get(""), ""),
    ] {
        let answer = client.ask(asked);
        assert_eq!((answer.status, &answer.body[..]), (201, content.as_bytes()));
        assert_eq!(answer.fields.all("set-cookie"), ["a", "b"]);
        assert_eq!(answer.fields.all("x-kept"), ["Yes"]);
    }
    let asked = "POST /length HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nfour";
    let answer = client.ask(asked);
    assert_eq!(answer.fields.all("content-length"), ["4"]);
    assert_eq!(client.ask(get_target("/empty")).status, 204);
    client.send("HEAD /head HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answer = client.try_response(true).expect("a response");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.fields.all("content-length"), ["99"]);
    assert_eq!(client.ask(get_target("/length")).fields.all("content-length"), ["0"]);
    assert_eq!(endpoint.accepted(), 1);
}

/// gRPC's "Trailers-Only": a client takes nothing else for a response without a message.
#[test]
fn a_response_that_is_one_head_stays_one_head() {
    let endpoint = H2Endpoint::start(|_, mut respond| async move {
        let fields = [("content-type", "application/grpc"), ("grpc-status", "5")];
        respond.send_response(response(200, &fields), true).expect("sent");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for _ in 0..10 {
            let (response, _) = peer.begin(request(Method::POST, "a.test", "/", &[]), true).await;
            let response = response.await.expect("a response");
            assert_eq!(response.headers()["grpc-status"], "5");
            assert!(!response.headers().contains_key("content-length"));
            assert!(response.body().is_end_stream(), "more follows the head");
        }
    });
    let answer = Client::connect(mesh.address()).ask(get(""));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.fields.all("grpc-status"), ["5"]);
}

#[test]
fn interim_responses_are_passed_on() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        respond.send_informational(response(100, &[])).expect("sent");
        let (_, mut frames) = request.into_parts();
        let Some((content, _)) = body(&mut frames).await else { return };
        respond.send_informational(response(103, &[("link", "</a.css>")])).expect("sent");
        grpc(respond, content);
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let asked = request(Method::POST, "a.test", "/", &[("expect", "100-continue")]);
        let (mut response, mut body) = peer.begin(asked, false).await;
        let informed = poll_fn(|cx| response.poll_informational(cx)).await;
        assert_eq!(informed.expect("an interim response").expect("no error").status(), 100);
        send(&mut body, "data".into(), true).await.expect("upload");
        let informed = poll_fn(|cx| response.poll_informational(cx)).await;
        let informed = informed.expect("an interim response").expect("no error");
        assert_eq!(
            (informed.status().as_u16(), &informed.headers()["link"]),
            (103, &"</a.css>".parse().expect("a value"))
        );
        assert_eq!(answer(response).await.expect("answer").body, b"data");
    });
}

#[test]
fn trailers_of_requests_arrive() {
    let endpoint = H2Endpoint::start(|request, respond| async move {
        let (_, mut frames) = request.into_parts();
        let (_, sent) = body(&mut frames).await.expect("a body");
        grpc(respond, Bytes::copy_from_slice(sent["x-sum"].as_bytes()));
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        send(&mut body, "data".into(), false).await.expect("upload");
        body.send_trailers(trailers(&[("x-sum", "4")])).expect("trailers");
        assert_eq!(answer(response).await.expect("answer").body, b"4");
    });
    let chunks = "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer =
        Client::connect(mesh.address()).ask(post("Transfer-Encoding: chunked\r\n", chunks));
    assert_eq!(answer.body, b"1");
}

/// A length says more than chunks do, where no trailers can follow.
#[test]
fn trailers_after_a_length_arrive_if_they_are_announced() {
    for (announced, arrives) in [(true, true), (false, false)] {
        let endpoint = H2Endpoint::start(move |_, mut respond| async move {
            let mut fields = vec![("content-length", "2")];
            fields.extend(announced.then_some(("trailer", "x-sum")));
            let mut stream = respond.send_response(response(200, &fields), false).expect("sent");
            stream.send_data("hi".into(), false).expect("sent");
            stream.send_trailers(trailers(&[("x-sum", "2")])).expect("sent");
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        let answer = run(async { Peer::connect(mesh.address()).await.get("/").await });
        assert_eq!(answer.body, b"hi");
        assert_eq!(answer.trailers.contains_key("x-sum"), arrives);
    }
}
