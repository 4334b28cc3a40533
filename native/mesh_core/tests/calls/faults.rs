//! Processes that fail, and clients that leave, at every stage.

use std::io::Write;
use std::time::Duration;

use mesh_core::calls::{Framing, MAX_WAITING};
use mesh_core::config::OnDisconnect;

use super::requests::scene;
use crate::support::client::{Client, End, get, get_target, post};
use crate::support::endpoint::{Do, Endpoint, ok, send};
use crate::support::eventually;
use crate::support::http2::{Peer, answer};
use crate::support::mesh::Mesh;
use crate::support::run;
use crate::support::scene::{Scene, ms};
use crate::support::vm::{Part, Vm, arrives};

#[test]
fn a_process_that_fails_before_its_head_gives_500() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    for how in 0..5 {
        client.send(get(""));
        let (call, _) = vm.take();
        match how {
            0 => call.0.fail(),
            1 => drop(call),
            2 => assert!(call.0.finish(), "without a head"),
            3 => {
                call.head(103, &[], Framing::Interim);
                assert_eq!(client.response().status, 103);
                drop(call);
            }
            _ => {
                assert!(
                    call.0
                        .head(200, [(&b"a b"[..], &b""[..])].into_iter(), Framing::Length)
                        .is_err()
                );
                drop(call);
            }
        }
        let answer = client.response();
        assert_eq!((answer.status, answer.body.len()), (500, 0), "{how}");
    }
    drop(client);
    scene.ends_clean();
}

/// A head with a length waits for the first part of its body, so the client has got nothing yet.
#[test]
fn a_process_that_fails_before_its_head_is_sent_gives_500() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    for (interim, finishes) in [(false, false), (false, true), (true, false), (true, true)] {
        client.send(get(""));
        let (call, _) = vm.take();
        if interim {
            call.head(103, &[("link", "<a>")], Framing::Interim);
            assert_eq!(client.response().status, 103);
        }
        call.head(200, &[("content-length", "10"), ("x-secret", "1")], Framing::Length);
        if finishes {
            assert!(call.0.finish(), "short of its length");
        }
        drop(call);
        let answer = client.response();
        assert_eq!((answer.status, answer.body.len()), (500, 0), "{interim} {finishes}");
        assert!(answer.fields.one("x-secret").is_none());
    }
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_response_that_breaks_off_is_seen_to() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let length = [("content-length", "10")];
    for (fields, framing) in
        [(&length[..], Framing::Length), (&[], Framing::Chunked), (&[], Framing::Length)]
    {
        for finishes in [false, true] {
            let mut client = scene.client();
            client.send(get(""));
            let (call, _) = vm.take();
            call.head(200, fields, framing);
            call.write(b"abc");
            client.read_until(b"abc").expect("the first part");
            if finishes && !fields.is_empty() {
                // Short of its length.
                call.0.finish();
            }
            drop(call);
            let broken = client.try_response(false).expect_err("broken off");
            assert!(broken.0 != End::Silent && !broken.1.is_some_and(|r| r.whole), "{framing:?}");
        }
    }
    run(async {
        let mut peer = Peer::connect(scene.mesh.address()).await;
        let (response, _) = peer.begin(crate::support::http2::get("a.test", "/"), true).await;
        let vm = vm.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let (call, _) = vm.take();
            call.head(200, &[], Framing::Chunked);
            call.write(b"abc");
            call
        });
        let call = writing.await.expect("no panic");
        let mut body = response.await.expect("the head").into_body();
        assert_eq!(body.data().await.expect("a part").expect("a part"), "abc");
        drop(call);
        body.data().await.expect("an end").expect_err("a reset");
    });
    scene.ends_clean();
}

#[test]
fn a_call_that_is_never_taken_gives_504() {
    let vm = Vm::start();
    let scene = Scene::new(|config| config.timeouts.response = ms(300));
    scene.route_to(&[vm.at(&scene.endpoint.address)]);
    let mut client = scene.client();
    assert_eq!(client.ask(get("")).status, 504);
    let call = vm.next();
    assert!(call.take().is_none() && !call.0.is_alive(), "the client has its answer");
    // Taken, and never answered.
    client.send(get(""));
    let (call, _) = vm.take();
    let gone = call.watch();
    assert_eq!(client.response().status, 504);
    arrives(&gone);
    assert!(!call.respond(200, b"late", false));
    drop((client, call));
    scene.ends_clean();
}

#[test]
fn a_client_that_leaves_is_noticed_at_every_stage() {
    let vm = Vm::start();
    let scene = scene(&vm);
    // Before the call is taken.
    let mut client = scene.client();
    client.send(get(""));
    let call = vm.next();
    client.reset();
    eventually("the call is over", || !call.0.is_alive());
    assert!(call.take().is_none());
    drop(call);
    // While the process works.
    let mut client = scene.client();
    client.send(get(""));
    let (call, _) = vm.take();
    let gone = call.watch();
    client.reset();
    arrives(&gone);
    assert!(!call.head(200, &[("content-length", "1")], Framing::Length));
    assert!(!call.write(b"a") && !call.0.finish());
    drop(call);
    // While the process waits for the body.
    for fields in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = scene.client();
        client.send(post(fields, if fields.starts_with('C') { "abc" } else { "3\r\nabc\r\n" }));
        let (call, _) = vm.take();
        assert_eq!(call.read(100), Part::Data(b"abc".to_vec()));
        let waiting = std::thread::spawn(move || call.read(100));
        client.reset();
        assert_eq!(waiting.join().expect("no panic"), Part::Closed);
    }
    // While the process waits for room.
    let mut client = scene.client();
    client.send(get(""));
    let (call, _) = vm.take();
    call.head(200, &[], Framing::Chunked);
    let waiting = std::thread::spawn(move || call.write(&vec![0; 64 << 20]));
    client.read_until(b"\r\n\r\n").expect("the head");
    client.reset();
    assert!(!waiting.join().expect("no panic"));
    scene.ends_clean();
}

/// A scene in which a client that closes its sending side has left.
fn leaving_scene(vm: &Vm) -> Scene {
    let scene = Scene::new(|config| config.on_disconnect = OnDisconnect::Exit);
    scene.route_to(&[vm.at(&scene.endpoint.address)]);
    scene
}

#[test]
fn a_client_that_closes_its_sending_side_has_left_if_the_process_is_to_end() {
    let vm = Vm::start();
    let scene = leaving_scene(&vm);
    let upload = post("Content-Length: 5\r\n", "hello");
    // Each with what the process does before: nothing, or a part of its response.
    for (request, begins) in [
        (get(""), false),
        (upload, false),
        (get_target("/1") + &get_target("/2"), false),
        (get(""), true),
    ] {
        let mut client = scene.client();
        client.send(request);
        let (call, _) = vm.take();
        assert_eq!(call.0.on_disconnect(), OnDisconnect::Exit);
        let gone = call.watch();
        if begins {
            call.head(200, &[], Framing::Chunked);
            client.read_until(b"\r\n\r\n").expect("the head");
        }
        client.fin();
        arrives(&gone);
        assert_ne!(client.read_to_end(), End::Silent);
    }
    // With the request, which is not even taken.
    let mut client = scene.client();
    client.send(get(""));
    client.fin();
    let call = vm.next();
    eventually("the call is over", || !call.0.is_alive());
    drop((client, call));
    // A client of HTTP/2 closes the sending side of a stream with each request. It leaves with its connection.
    let (asked, waiting) = (vm.clone(), scene.mesh.address());
    run(async {
        let mut peer = Peer::connect(waiting).await;
        let (response, _) = peer.begin(crate::support::http2::get("a.test", "/"), true).await;
        let answering = std::thread::spawn({
            let vm = asked.clone();
            move || vm.take().0.respond(200, b"stays", false)
        });
        assert_eq!(answer(response).await.expect("an answer").body, b"stays");
        assert!(answering.join().expect("no panic"));
        let (_response, _) = peer.begin(crate::support::http2::get("a.test", "/"), true).await;
        let call = tokio::task::spawn_blocking(move || asked.take().0).await.expect("a call");
        let gone = call.watch();
        drop((peer, _response));
        tokio::task::spawn_blocking(move || {
            arrives(&gone);
            drop(call);
        })
        .await
        .expect("it left");
    });
    scene.ends_clean();
}

/// By default the client gets its response.
#[test]
fn a_client_that_closes_its_sending_side_has_not_left() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(get(""));
    let (call, _) = vm.take();
    assert_eq!(call.0.on_disconnect(), OnDisconnect::Ignore);
    let gone = call.watch();
    client.fin();
    // Nothing tells that the gateway has seen it but its answer to another request.
    scene.others_are_served();
    assert!(gone.try_recv().is_err());
    assert!(call.respond(200, b"late", false));
    assert_eq!(client.response().body, b"late");
    drop((client, call));
    scene.ends_clean();
}

/// The option is about requests without a socket.
#[test]
fn a_client_that_closes_its_sending_side_gets_the_response_of_an_endpoint() {
    let vm = Vm::start();
    let scene = leaving_scene(&vm);
    scene.route_to(std::slice::from_ref(&scene.endpoint.address));
    let late = vec![Do::Gate("go"), send(ok("late"))];
    scene.endpoint.script(late);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    client.fin();
    scene.others_are_served();
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().body, b"late");
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_client_that_has_its_response_did_not_leave() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let mut client = scene.client();
    client.send(get(""));
    let (call, _) = vm.take();
    let gone = call.watch();
    assert!(call.respond(200, b"all", false));
    assert_eq!(client.response().body, b"all");
    client.reset();
    scene.mesh.wait_idle();
    assert!(gone.try_recv().is_err());
    drop(call);
    scene.ends_clean();
}

/// A request waits in its worker, not in a mailbox, and has the time that a connection would have.
#[test]
fn calls_that_no_process_takes_are_bounded() {
    let vm = Vm::start();
    let scene = Scene::new(|config| config.timeouts.connect = ms(500));
    scene.route_to(&[vm.at(&scene.endpoint.address)]);
    let clients: Vec<Client> = (0..MAX_WAITING)
        .map(|_| {
            let mut client = scene.client();
            client.send(get(""));
            client
        })
        .collect();
    eventually("all calls wait", || vm.waiting() == MAX_WAITING);
    let mut late = scene.client();
    assert_eq!(late.ask(get("")).status, 504);
    assert_eq!(vm.waiting(), MAX_WAITING);
    // A place is free once a call is taken, or its client leaves.
    late.send(get(""));
    eventually("it waits", || scene.mesh.service_stats().in_flight as usize == MAX_WAITING + 1);
    let (first, _) = vm.take();
    eventually("the next one is sent", || vm.waiting() == MAX_WAITING);
    first.respond(200, b"", false);
    let mut later = scene.client();
    later.send(get(""));
    let served = std::thread::spawn({
        let vm = vm.clone();
        move || {
            for _ in 0..MAX_WAITING + 1 {
                if let call = vm.next()
                    && call.take().is_some()
                {
                    call.respond(200, b"", false);
                }
            }
        }
    });
    drop(clients);
    assert_eq!((late.response().status, later.response().status), (200, 200));
    served.join().expect("no panic");
    drop((late, later, first));
    scene.ends_clean();
}

#[test]
fn a_stopping_gateway_waits_for_its_calls() {
    let vm = Vm::start();
    let endpoint = Endpoint::start();
    let mut mesh = Mesh::to(Default::default(), &vm.at(&endpoint.address));
    let mut client = Client::connect(mesh.address());
    client.send(get(""));
    let (call, _) = vm.take();
    let gone = call.watch();
    mesh.gateway.stop(Some(Duration::from_secs(30)));
    assert!(mesh.is_running());
    call.respond(200, b"last words", false);
    let answer = client.response();
    assert_eq!((answer.body.as_slice(), client.read_to_end()), (&b"last words"[..], End::Closed));
    mesh.join();
    assert!(gone.try_recv().is_err());
}

#[test]
fn calls_end_with_the_gateway() {
    let vm = Vm::start();
    let endpoint = Endpoint::start();
    let mut mesh = Mesh::to(Default::default(), &vm.at(&endpoint.address));
    let mut client = Client::connect(mesh.address());
    client.send(get(""));
    let (call, _) = vm.take();
    let mut untaken = Client::connect(mesh.address());
    untaken.send(get(""));
    let waiting = vm.next();
    let gone = call.watch();
    mesh.stop(Some(Duration::ZERO));
    arrives(&gone);
    assert!(!call.0.is_alive() && waiting.take().is_none());
    assert!(!call.respond(200, b"late", false));
    drop((mesh, call, waiting));
}

/// The process that has taken a call can be killed at any moment, also while a task of another one streams.
#[test]
fn a_call_can_fail_while_another_thread_uses_it() {
    let vm = Vm::start();
    let scene = scene(&vm);
    for _ in 0..50 {
        let mut client = scene.client();
        client.send(post("Content-Length: 10000000\r\n", ""));
        let mut sender = client.sender();
        let uploading = std::thread::spawn(move || drop(sender.write_all(&vec![b'x'; 10_000_000])));
        let (call, _) = vm.take();
        let other = crate::support::vm::Held(std::sync::Arc::clone(&call.0));
        let streaming = std::thread::spawn(move || {
            other.head(200, &[], Framing::Chunked);
            while other.write(&[b'y'; 10_000]) && matches!(other.read(100_000), Part::Data(_)) {}
            std::mem::forget(other);
        });
        assert!(matches!(call.read(1), Part::Data(_) | Part::End | Part::Closed));
        call.0.fail();
        assert_ne!(client.read_to_end(), End::Silent);
        streaming.join().expect("no panic");
        uploading.join().expect("no panic");
    }
    scene.ends_clean();
}
