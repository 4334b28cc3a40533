//! Requests and responses of every form.

use http::Method;
use mesh_core::calls::{BadHead, ClientVersion, Framing};
use mesh_core::{BodyLength, Config};

use crate::support::client::{Client, End, get, get_target, post};
use crate::support::endpoint::Endpoint;
use crate::support::http2::{Peer, answer, request, send};
use crate::support::mesh::Mesh;
use crate::support::run;
use crate::support::scene::Scene;
use crate::support::vm::Vm;

/// A scene whose `a.test` is called.
pub fn scene(vm: &Vm) -> Scene {
    let scene = Scene::new(|_| {});
    scene.route_to(&[vm.at(&scene.endpoint.address)]);
    scene
}

#[test]
fn requests_are_answered_without_a_socket() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    let mut client = scene.client();
    for i in 0..20 {
        let answer = client.ask(get_target(&format!("/{i}?q")));
        assert_eq!((answer.status, answer.body), (200, format!("GET /{i}?q\n").into_bytes()));
        let length = i.to_string();
        let body = "x".repeat(i);
        let answer = client.ask(post(&format!("Content-Length: {length}\r\n"), &body));
        assert_eq!(answer.body, format!("POST /\n{body}").into_bytes());
        let answer = client
            .ask(post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"));
        assert_eq!(answer.body, b"POST /\nabcde");
    }
    assert_eq!(scene.endpoint.look(|state| state.connections.len()), 0);
    let stats = scene.mesh.service_stats();
    assert_eq!((stats.requests, stats.upstream_connections_opened), (60, 0));
    assert_eq!(stats.upstream_connections_open, 0);
    drop(client);
    scene.ends_clean();
}

/// As the gateway writes it for any endpoint.
#[test]
fn the_process_sees_what_an_endpoint_sees() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(get("X-Twice: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-TWICE: 2\r\nX-Empty:\r\n"));
    let (call, seen) = vm.take();
    call.respond(200, b"in the VM", false);
    assert_eq!(client.response().body, b"in the VM");
    scene.route_to(std::slice::from_ref(&scene.endpoint.address));
    client.ask(get("X-Twice: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-TWICE: 2\r\nX-Empty:\r\n"));
    let by_socket = &scene.endpoint.requests()[0];
    let comparable = |fields: &crate::support::wire::Fields| {
        let fields = fields.0.iter().filter(|(name, _)| name != "X-Request-Id");
        fields.cloned().collect::<Vec<_>>()
    };
    assert_eq!(comparable(&seen.fields), comparable(&by_socket.fields));
    assert_eq!(seen.fields.all("x-twice"), ["1", "2"]);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/"));
    assert_eq!((seen.body, seen.version), (BodyLength::None, ClientVersion::Http11));
    drop(client);
    scene.ends_clean();
}

#[test]
fn responses_to_head_and_without_content_have_no_body() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let (call, _) = vm.take();
    assert!(call.head(200, &[("content-length", "1000")], Framing::None));
    // The process is still at work, and what it writes by mistake goes nowhere.
    let head = client.try_response(true).expect("a response");
    assert_eq!(head.fields.one("content-length").as_deref(), Some("1000"));
    assert!(call.write(b"body") && call.0.finish());
    for status in [204, 304] {
        client.send(get(""));
        let (call, _) = vm.take();
        assert!(call.head(status.into(), &[], Framing::None) && call.0.finish());
        assert_eq!(client.response().status, status);
    }
    client.send(get(""));
    let (call, _) = vm.take();
    assert!(call.head(200, &[("content-length", "0")], Framing::Length));
    assert_eq!(client.response().body, b"");
    assert!(call.0.finish(), "complete, although the worker has left");
    drop((client, call));
    scene.ends_clean();
}

#[test]
fn the_version_is_the_clients() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\nVia: 2.0 proxy\r\n\r\n");
    let (call, seen) = vm.take();
    assert_eq!(seen.version, ClientVersion::Http10);
    // Without a length and chunks the end of the connection tells the end of the response.
    assert!(call.head(200, &[], Framing::Chunked) && call.write(b"abc") && call.0.finish());
    let ended = client.response();
    assert!(ended.fields.all("transfer-encoding").is_empty());
    assert_eq!((ended.body.as_slice(), client.read_to_end()), (&b"abc"[..], End::Closed));
    let mesh = &scene.mesh;
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(crate::support::http2::get("a.test", "/2"), true).await;
        let vm = vm.clone();
        let process = std::thread::spawn(move || {
            let (call, seen) = vm.take();
            assert_eq!((seen.version, seen.target.as_str()), (ClientVersion::Http2, "/2"));
            call.respond(200, b"two", false);
        });
        assert_eq!(answer(response).await.expect("an answer").body, b"two");
        process.join().expect("no panic");
    });
    drop(client);
    scene.ends_clean();
}

#[test]
fn http2_clients_are_answered() {
    let vm = Vm::echoing();
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &vm.at(&endpoint.address));
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for fields in [&[("content-length", "5")][..], &[]] {
            let asked = request(Method::POST, "a.test", "/up", fields);
            let (response, mut body) = peer.begin(asked, false).await;
            send(&mut body, "he".into(), false).await.expect("upload");
            send(&mut body, "llo".into(), true).await.expect("upload");
            let answer = answer(response).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.body), (200, b"POST /up\nhello".to_vec()));
        }
        let head = peer.ask(request(Method::HEAD, "a.test", "/h", &[])).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    });
}

#[test]
fn interim_responses_come_first() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(post("Content-Length: 5\r\nExpect: 100-continue\r\n", ""));
    let (call, seen) = vm.take();
    assert_eq!(seen.fields.one("expect").as_deref(), Some("100-continue"));
    assert!(call.head(100, &[], Framing::Interim));
    assert_eq!(client.response().status, 100);
    assert!(call.head(103, &[("link", "<a>")], Framing::Interim));
    let hints = client.response();
    assert_eq!((hints.status, hints.fields.one("link").as_deref()), (103, Some("<a>")));
    client.send("hello");
    assert_eq!(call.read_all().as_deref(), Some(&b"hello"[..]));
    assert!(call.respond(200, b"done", false));
    assert_eq!(client.response().body, b"done");
    drop(call);
    client.send(get(""));
    let (call, _) = vm.take();
    for i in 0..40 {
        let sent = call.0.head(103, std::iter::empty(), Framing::Interim);
        assert_eq!(sent.is_ok(), i < 32, "{i}");
    }
    assert!(call.respond(200, b"", false));
    while client.response().status == 103 {}
    drop((client, call));
    scene.ends_clean();
}

#[test]
fn a_response_can_be_sent_once() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(get(""));
    let call = vm.next();
    assert!(call.take().is_some() && call.take().is_none(), "taken once");
    let bad = |status, fields: &[(&[u8], &[u8])]| {
        call.0.head(status, fields.iter().copied(), Framing::Length)
    };
    assert_eq!(bad(101, &[]), Err(BadHead::Status(101)));
    assert_eq!(bad(200, &[(b"a", b"b\r\nc: d")]), Err(BadHead::Value(b"a".to_vec())));
    assert!(call.head(200, &[("content-length", "3")], Framing::Length));
    assert_eq!(bad(200, &[]), Err(BadHead::Second));
    // What is too much is not sent.
    assert!(call.write(b"abcdef"));
    assert_eq!(client.response().body, b"abc");
    assert_eq!(bad(200, &[]), Err(BadHead::Second));
    drop(call);
    client.send(get(""));
    let (call, _) = vm.take();
    assert!(call.respond(200, b"next", false));
    assert_eq!(client.response().body, b"next");
    drop((client, call));
    scene.ends_clean();
}

#[test]
fn a_head_can_be_sent_long_before_its_body() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(get(""));
    let (call, _) = vm.take();
    assert!(call.head(200, &[("content-length", "2")], Framing::Length));
    call.0.flush();
    client.read_until(b"\r\n\r\n").expect("the head");
    assert!(call.write(b"a"));
    client.read_until(b"\r\n\r\na").expect("a part");
    assert!(call.write(b"b"));
    assert_eq!(client.response().body, b"ab");
    client.send(get(""));
    let (call, _) = vm.take();
    assert!(call.head(200, &[], Framing::Chunked));
    client.read_until(b"\r\n\r\n").expect("the head");
    for event in ["one", "two"] {
        assert!(call.write(event.as_bytes()) && call.write(b""));
        client.read_until(event.as_bytes()).expect("an event");
    }
    assert!(call.0.finish());
    assert_eq!(client.response().body, b"onetwo");
    drop((client, call));
    scene.ends_clean();
}

#[test]
fn many_clients_are_answered_at_once() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    let address = scene.mesh.address();
    let clients = (0..64).map(|client| {
        std::thread::spawn(move || {
            let mut connection = Client::connect(address);
            for i in 0..50 {
                let body = format!("{client}-{i}").repeat(1 + i * 10);
                let answer =
                    connection.ask(post(&format!("Content-Length: {}\r\n", body.len()), &body));
                assert_eq!(answer.body, format!("POST /\n{body}").into_bytes());
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().expect("no panic");
    }
    assert_eq!(scene.mesh.service_stats().requests, 64 * 50);
    assert!(vm.batches() <= 64 * 50);
    scene.ends_clean();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send((0..100).map(|i| get_target(&format!("/{i}"))).collect::<String>());
    for i in 0..100 {
        assert_eq!(client.response().body, format!("GET /{i}\n").into_bytes());
    }
    drop(client);
    scene.ends_clean();
}
