//! What goes to the endpoint's socket: tunnels, and requests that no process takes.

use std::io::Write;

use super::requests::scene;
use crate::support::client::{get, get_target, post};
use crate::support::endpoint::Do;
use crate::support::eventually;
use crate::support::vm::Vm;

const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

#[test]
fn websockets_go_to_the_socket() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    scene.endpoint.script(vec![Do::Upgrade, Do::Echo]);
    let mut client = scene.client();
    assert_eq!(client.ask(get_target("/a")).body, b"GET /a\n");
    client.send(get(ASK)).read_until(b"\r\n\r\n").expect("a tunnel");
    client.buffer.clear();
    client.send("ping").read_until(b"ping").expect("an echo");
    assert_eq!((vm.batches(), scene.endpoint.requests().len()), (1, 1));
    client.hang_up();
    // A refused handshake leaves its connection in the pool, which calls do not use.
    let mut client = scene.client();
    assert_eq!(client.ask(get(ASK)).status, 200);
    assert_eq!(client.ask(get_target("/b")).body, b"GET /b\n");
    drop(client);
    scene.ends_clean();
}

#[test]
fn requests_go_to_the_socket_once_the_processes_have_ended() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    let mut client = scene.client();
    assert_eq!(client.ask(get_target("/a")).body, b"GET /a\n");
    vm.die();
    assert_eq!(client.ask(get_target("/b")).body, b"/b");
    assert_eq!(client.ask(post("Content-Length: 5\r\n", "hello")).status, 200);
    assert_eq!(client.ask(get_target("/c")).body, b"/c");
    let bodies: Vec<_> = scene.endpoint.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [&b""[..], b"hello", b""]);
    assert_eq!(scene.mesh.service_stats().retries, 1);
    // Other processes are other dispatchers.
    let next = Vm::echoing();
    scene.route_to(&[next.at(&scene.endpoint.address)]);
    assert_eq!(client.ask(get_target("/d")).body, b"GET /d\n");
    drop(client);
    scene.ends_clean();
}

/// Nothing of them has run, whatever their method. Their bodies go on where they were.
#[test]
fn requests_that_no_process_takes_go_to_the_socket() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    for (request, rest, body) in [
        (get(""), "", ""),
        (post("Content-Length: 0\r\n", ""), "", ""),
        (post("Content-Length: 5\r\n", "hello"), "", "hello"),
        (post("Content-Length: 5\r\n", "he"), "llo", "hello"),
        (post("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n"), "3\r\nllo\r\n0\r\n\r\n", "hello"),
        (post("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n0\r\n\r\n"), "", "he"),
    ] {
        scene.endpoint.forget();
        client.send(&request);
        drop(vm.next());
        scene.endpoint.wait_for_requests(1);
        client.send(rest);
        assert_eq!(client.response().status, 200);
        let seen = &scene.endpoint.requests()[0];
        assert!(seen.whole && seen.body == body.as_bytes(), "{request}");
    }
    // The processes live, so the next request is called.
    client.send(get(""));
    vm.take().0.respond(200, b"called", false);
    assert_eq!(client.response().body, b"called");
    drop(client);
    scene.ends_clean();
}

/// A part of it was not accepted, and would be missing.
#[test]
fn a_long_upload_that_no_process_takes_gives_503() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(post("Content-Length: 20000000\r\n", ""));
    let mut sender = client.sender();
    let sending = std::thread::spawn(move || drop(sender.write_all(&vec![b'x'; 20_000_000])));
    let call = vm.next();
    let read = || scene.mesh.service_stats().request_body_bytes;
    eventually("the queue is full", || {
        let before = read();
        std::thread::sleep(crate::support::vm::A_WHILE);
        before > 0 && before == read()
    });
    drop(call);
    assert_eq!(client.response().status, 503);
    client.hang_up();
    sending.join().expect("no panic");
    scene.ends_clean();
}

#[test]
fn a_panic_of_the_dispatcher_leads_to_the_socket() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    vm.panic();
    let mut client = scene.client();
    assert_eq!(client.ask(get_target("/a")).body, b"/a");
    assert_eq!(client.ask(get_target("/b")).body, b"/b");
    drop(client);
    scene.ends_clean();
}

/// The socket, too, is gone: an answer at once.
#[test]
fn requests_for_an_endpoint_that_is_gone_are_answered() {
    let vm = Vm::start();
    let mut scene = scene(&vm);
    scene.endpoint.die();
    vm.die();
    let mut client = scene.client();
    let answer = client.ask(get(""));
    assert!([502, 503].contains(&answer.status), "{}", answer.status);
    drop(client);
    scene.ends_clean();
}

/// An endpoint that stops ends its processes first. Its socket then closes connections that it has not accepted.
#[test]
fn a_socket_that_closes_a_new_connection_is_asked_once_more() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    let mut client = scene.client();
    assert_eq!(client.ask(get_target("/a")).body, b"GET /a\n");
    vm.die();
    scene.endpoint.script(vec![Do::Body, Do::Close]);
    assert_eq!(client.ask(get_target("/b")).body, b"/b");
    // The pooled connection that the last request left is closed, and so is the new one.
    for _ in 0..2 {
        scene.endpoint.script(vec![Do::Body, Do::Close]);
    }
    assert_eq!(client.ask(get_target("/c")).body, b"/c");
    assert_eq!(scene.endpoint.requests().len(), 5);
    // Not for ever, and not if it may have had an effect.
    scene.endpoint.forget();
    scene.endpoint.usually(vec![Do::Body, Do::Close]);
    assert_eq!(client.ask(get_target("/d")).status, 502);
    assert_eq!(scene.endpoint.requests().len(), 3);
    assert_eq!(client.ask(post("Content-Length: 5\r\n", "hello")).status, 502);
    assert_eq!(scene.endpoint.requests().len(), 4);
    drop(client);
    scene.ends_clean();
}
