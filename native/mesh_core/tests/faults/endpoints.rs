//! Endpoints that refuse, fall silent, reset, die, and come back.

use std::time::Duration;

use mesh_core::UpstreamAddr;

use crate::support::client::{Client, End, get, get_target, post};
use crate::support::endpoint::{Do, Endpoint, ok, reply, send};
use crate::support::scene::{Scene, ms};

#[test]
fn a_refused_connection_gives_502() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.die();
    let mut client = scene.client();
    assert_eq!(client.ask(get("")).status, 502);
    // The connection of the client is none the worse for it.
    assert_eq!(client.ask(get("")).status, 502);
    assert_eq!(scene.mesh.service_stats().connect_errors, 2);
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_missing_unix_socket_gives_502() {
    let mut scene = Scene::with(Endpoint::start_unix, |_| {});
    assert_eq!(scene.client().ask(get("")).status, 200);
    scene.endpoint.die();
    assert_eq!(scene.client().ask(get("")).status, 502);
    scene.ends_clean();
}

#[test]
fn a_connect_timeout_gives_504() {
    let scene = Scene::new(|config| config.timeouts.connect = ms(200));
    // A queue of none, and full: the kernel answers no further SYN.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let first = std::net::TcpStream::connect(address).unwrap();
    let second = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
    scene.route_to(&[UpstreamAddr::Tcp(address)]);
    assert_eq!(scene.client().ask(get("")).status, 504);
    drop((first, second, full));
    scene.ends_clean();
}

/// As a TCP connection waits for room in the endpoint's queue, so does one to a Unix socket, which
/// the kernel refuses at once.
#[test]
fn a_full_unix_socket_queue_is_waited_for() {
    let scene = Scene::new(|config| config.timeouts.connect = ms(1000));
    let path = std::env::temp_dir().join(format!("mesh-full-{}.sock", std::process::id()));
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let full = std::os::unix::net::UnixListener::from(full);
    let first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    scene.route_to(&[UpstreamAddr::Unix(path.clone())]);
    let mut client = scene.client();
    assert_eq!(client.ask(get("")).status, 504);
    // Whoever is waited for and comes in time serves the request.
    client.send(get(""));
    scene.mesh.eventually("the request is under way", |stats| stats.total.in_flight == 1);
    drop(full.accept().unwrap());
    let (mut serving, _) = full.accept().unwrap();
    let mut head = [0; 1024];
    assert!(std::io::Read::read(&mut serving, &mut head).unwrap() > 0);
    std::io::Write::write_all(&mut serving, ok("late").as_bytes()).unwrap();
    assert_eq!(client.response().status, 200);
    drop((first, serving, full, client));
    std::fs::remove_file(path).unwrap();
    scene.ends_clean();
}

#[test]
fn a_response_timeout_gives_504() {
    let scene = Scene::new(|config| config.timeouts.response = ms(200));
    scene.endpoint.script(vec![Do::UntilClosed]);
    assert_eq!(scene.client().ask(get("")).status, 504);
    // And it is not spoken to any more.
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    scene.ends_clean();
}

#[test]
fn an_endpoint_that_reads_no_upload_gives_504() {
    let scene = Scene::new(|config| config.timeouts.response = ms(300));
    scene.endpoint.script(vec![Do::Gate("never")]);
    let mut client = scene.client();
    let mut sender = client.sender();
    let upload = std::thread::spawn(move || {
        use std::io::Write;
        let _ = sender.write_all(post("Content-Length: 100000000\r\n", "").as_bytes());
        // Ends with an error as soon as the gateway has had enough.
        while sender.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    assert_eq!(client.response().status, 504);
    client.hang_up();
    upload.join().unwrap();
    scene.endpoint.open_gate("never");
    scene.ends_clean();
}

#[test]
fn a_reset_before_the_head_gives_502() {
    let scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::Body, Do::Reset]);
    assert_eq!(scene.client().ask(post("Content-Length: 2\r\n", "hi")).status, 502);
    assert_eq!(scene.endpoint.requests().len(), 1);
    scene.ends_clean();
}

#[test]
fn a_reset_within_the_head_gives_502() {
    let scene = Scene::new(|_| {});
    for end in [Do::Reset, Do::Close] {
        scene.endpoint.script(vec![Do::Body, send("HTTP/1.1 200 OK\r\nContent-Le"), end]);
        assert_eq!(scene.client().ask(get("")).status, 502);
    }
    scene.ends_clean();
}

/// The system tells of a reset once only, and then of an end.
#[test]
fn a_reset_after_the_head_is_not_the_end_of_a_response_without_length() {
    let scene = Scene::new(|_| {});
    for _ in 0..20 {
        scene.endpoint.script(vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\n"), Do::Reset]);
        let mut client = scene.client();
        client.send(get(""));
        if let Ok(response) = client.try_response(false) {
            assert_eq!(response.status, 502, "a part looks like the whole");
        }
    }
    scene.ends_clean();
}

#[test]
fn a_reset_within_the_body_breaks_the_response_off() {
    let scene = Scene::new(|_| {});
    for end in [Do::Reset, Do::Close] {
        let half = send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        scene.endpoint.script(vec![Do::Body, half, Do::Gate("seen"), end]);
        let mut client = scene.client();
        client.send(get("")).read_until(b"half").unwrap();
        scene.endpoint.open_gate("seen");
        assert_ne!(client.read_to_end(), End::Silent);
    }
    assert_eq!(scene.mesh.service_stats().upstream_errors, 2);
    scene.ends_clean();
}

/// As long as the client has got nothing of the response, it can be told.
#[test]
fn a_body_malformed_from_its_first_byte_gives_502() {
    let scene = Scene::new(|_| {});
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["xyz\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "5\nhello\n0\n\n"] {
        scene.endpoint.forget();
        scene.endpoint.script(reply(format!("{head}{body}")));
        let mut client = scene.client();
        assert_eq!(client.ask(get("")).status, 502, "{body:?}");
        // Its connection is none the worse for it, that of the endpoint is not used again.
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
        assert_eq!(client.ask(get("")).status, 200);
        scene.endpoint.close_connections();
    }
    scene.mesh.eventually("each is counted", |stats| {
        let service = &stats.services["a.test"];
        (service.responses_2xx, service.responses_5xx) == (3, 3)
    });
    let stats = scene.mesh.service_stats();
    assert_eq!((stats.errors.bad_response, stats.upstream_errors), (3, 3));
    scene.ends_clean();
}

#[test]
fn a_body_malformed_later_breaks_the_response_off() {
    let scene = Scene::new(|_| {});
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for begun in ["", "5\r\nhello\r\n"] {
        let begun = format!("{head}{begun}");
        scene.endpoint.script(vec![Do::Body, send(&begun), Do::Gate("seen"), send("xyz\r\n")]);
        let mut client = scene.client();
        client.send(get("")).read_until(b"\r\n\r\n").unwrap();
        scene.endpoint.open_gate("seen");
        assert_eq!(client.read_to_end(), End::Reset, "{begun:?}");
        scene.endpoint.forget();
    }
    scene.mesh.eventually("each is counted", |stats| {
        let service = &stats.services["a.test"];
        (service.responses_2xx, service.errors.bad_response) == (2, 2)
    });
    scene.ends_clean();
}

/// Half an interim response is on its way to a client that does not read: whatever came behind it
/// would be taken for the rest of its fields.
#[test]
fn no_504_is_written_into_an_interim_response() {
    let scene = Scene::new(|config| {
        // Enough to read so much of a head.
        config.timeouts.response = ms(1500);
        config.limits.head_bytes = 10_000_000;
    });
    // More than the sockets on the way take.
    let long = format!("HTTP/1.1 103 Hints\r\nX: {}\r\n\r\n", "x".repeat(5_000_000));
    scene.endpoint.script(vec![Do::Body, send(&long), Do::Gate("never")]);
    let mut client = Client::connect_small(scene.mesh.address());
    client.send(get(""));
    scene.mesh.eventually("it is given up", |s| s.services["a.test"].errors.response_timeout == 1);
    assert_eq!(client.read_to_end(), End::Reset);
    let ours = b"HTTP/1.1 504";
    assert!(!client.buffer.windows(ours.len()).any(|w| w == ours));
    drop(client);
    scene.endpoint.open_gate("never");
    scene.ends_clean();
}

#[test]
fn a_reset_on_accept_gives_502() {
    let scene = Scene::new(|_| {});
    scene.endpoint.on_accept(vec![Do::Reset]);
    assert_eq!(scene.client().ask(post("Content-Length: 2\r\n", "hi")).status, 502);
    assert_eq!(scene.client().ask(get("")).status, 200);
    scene.ends_clean();
}

#[test]
fn an_endpoint_that_dies_leaves_no_request_hanging() {
    let mut scene = Scene::new(|_| {});
    let mut clients: Vec<Client> = Vec::new();
    for i in 0..40 {
        let half = send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        let script =
            if i % 2 == 0 { vec![Do::Gate("never")] } else { vec![half, Do::Gate("never")] };
        scene.endpoint.script(script);
        let mut client = scene.client();
        client.send(get_target(&format!("/{i}")));
        scene.endpoint.wait_for_requests(i + 1);
        if i % 2 == 1 {
            client.read_until(b"half").unwrap();
        }
        clients.push(client);
    }
    assert_eq!(scene.mesh.service_stats().in_flight, 40);
    scene.endpoint.die();
    for (i, client) in clients.iter_mut().enumerate() {
        if i % 2 == 0 {
            assert_eq!(client.response().status, 502, "{i}");
        } else {
            assert_ne!(client.read_to_end(), End::Silent, "{i}");
        }
    }
    drop(clients);
    scene.ends_clean();
}

#[test]
fn a_restarted_endpoint_is_used_again() {
    let mut scene = Scene::new(|_| {});
    let UpstreamAddr::Tcp(address) = scene.endpoint.address.clone() else { unreachable!() };
    let mut client = scene.client();
    for _ in 0..5 {
        assert_eq!(client.ask(get("")).status, 200);
        scene.endpoint.die();
        assert_eq!(client.ask(get("")).status, 502);
        scene.endpoint = Endpoint::on(address);
        // Idle connections to the one before are known to be dead or tried and replaced.
        assert_eq!(client.ask(post("Content-Length: 2\r\n", "hi")).status, 200);
    }
    drop(client);
    scene.ends_clean();
}

#[test]
fn an_endpoint_at_a_new_address_is_used_with_the_next_table() {
    // Nothing closes idle connections in time: that they lead nowhere any more must do.
    let mut scene = Scene::new(|config| {
        config.workers = 1;
        config.timeouts.upstream_idle = None;
    });
    let mut client = scene.client();
    assert_eq!(client.ask(get("")).status, 200);
    let next = Endpoint::start();
    let mut before = std::mem::replace(&mut scene.endpoint, next);
    scene.route_to(&[scene.endpoint.address.clone()]);
    assert_eq!(client.ask(get_target("/there")).body, b"/there");
    assert_eq!(scene.endpoint.requests().len(), 1);
    // The connections that were kept to the old place are closed, not hoarded.
    before
        .wait("the end of the old connections", |state| state.connections.iter().all(|c| c.ended));
    before.die();
    drop((client, before));
    scene.ends_clean();
}

#[test]
fn a_request_finishes_at_its_endpoint_after_a_table_change() {
    let scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("old"))]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    scene.route_to(&[]);
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().body, b"old");
    assert_eq!(client.ask(get("")).status, 503);
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_second_upstream_replaces_a_dead_one() {
    let mut scene = Scene::new(|_| {});
    let spare = Endpoint::start();
    scene.route_to(&[scene.endpoint.address.clone(), spare.address.clone()]);
    let mut client = scene.client();
    for _ in 0..4 {
        assert_eq!(client.ask(get("")).status, 200);
    }
    assert!(!scene.endpoint.requests().is_empty() && !spare.requests().is_empty());
    scene.endpoint.die();
    for _ in 0..10 {
        assert_eq!(client.ask(get("")).status, 200);
        assert_eq!(client.ask(post("Content-Length: 2\r\n", "hi")).status, 200);
    }
    drop((client, spare));
    scene.ends_clean();
}

#[test]
fn a_slow_endpoint_does_not_slow_the_others() {
    let scene = Scene::new(|config| config.workers = 1);
    let mut slow = Vec::new();
    for i in 0..50 {
        scene.endpoint.script(vec![Do::Gate("go"), send(ok("slow"))]);
        let mut client = scene.client();
        client.send(get(""));
        scene.endpoint.wait_for_requests(i + 1);
        slow.push(client);
    }
    for _ in 0..50 {
        scene.others_are_served();
    }
    scene.endpoint.open_gate("go");
    for mut client in slow {
        assert_eq!(client.response().body, b"slow");
    }
    scene.ends_clean();
}

#[test]
fn held_requests_go_to_the_endpoint_that_comes_back() {
    let mut scene = Scene::new(|config| config.timeouts.hold = ms(10_000));
    let UpstreamAddr::Tcp(address) = scene.endpoint.address.clone() else { unreachable!() };
    scene.endpoint.die();
    let mut clients: Vec<Client> = (0..10).map(|_| scene.client()).collect();
    for client in &mut clients {
        client.send(post("Content-Length: 2\r\n", "hi"));
    }
    scene.mesh.eventually("all are held", |stats| stats.services["a.test"].holds == 10);
    scene.endpoint = Endpoint::on(address);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(scene.endpoint.requests().len(), 10);
    drop(clients);
    scene.ends_clean();
}

#[test]
fn a_held_request_gets_503_after_the_hold_timeout() {
    let mut scene = Scene::new(|config| config.timeouts.hold = ms(200));
    scene.endpoint.die();
    let answer = scene.client().ask(get(""));
    assert_eq!(answer.status, 503);
    assert!(answer.fields.one("retry-after").is_some());
    scene.ends_clean();
}

#[test]
fn a_held_client_may_leave() {
    let mut scene = Scene::new(|config| config.timeouts.hold = None);
    scene.endpoint.die();
    let mut client = scene.client();
    client.send(get(""));
    scene.mesh.eventually("it is held", |stats| stats.services["a.test"].holds == 1);
    client.reset();
    scene.ends_clean();
}

#[test]
fn a_malformed_response_gives_502_to_its_client_only() {
    let scene = Scene::new(|_| {});
    for nonsense in
        ["\r\n\r\n", "\0\0\0\0", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/9"]
    {
        scene.endpoint.script([reply(nonsense), vec![Do::Close]].concat());
        assert_eq!(scene.client().ask(post("Content-Length: 2\r\n", "hi")).status, 502);
    }
    scene.ends_clean();
}
