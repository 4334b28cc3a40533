//! Limits, with their status and their counter.

use crate::support::client::{Client, End, get, get_target, post};
use crate::support::endpoint::{Do, ok, reply, send};
use crate::support::scene::Scene;

#[test]
fn heads_are_limited() {
    let scene = Scene::new(|config| config.limits.head_bytes = 1000);
    let fits = get(&format!("X: {}\r\n", "y".repeat(1000 - get("X: \r\n").len())));
    assert_eq!(fits.len(), 1000);
    assert_eq!(scene.client().ask(&fits).status, 200);
    let over = fits.replacen("yy", "yyy", 1);
    assert_eq!(scene.client().ask(&over).status, 431);
    assert_eq!(scene.client().ask(get_target(&format!("/{}", "y".repeat(2000)))).status, 414);
    // In pieces, too.
    let mut client = scene.client();
    client.send(&over[..990]);
    client.send(&over[990..]);
    assert_eq!(client.response().status, 431);
    drop(client);
    assert_eq!(scene.mesh.stats().gateway.requests_refused, 3);
    scene.ends_clean();
}

#[test]
fn an_endless_head_is_refused() {
    let scene = Scene::new(|_| {});
    for junk in ["GET /", "GET / HTTP/1.1\r\nHost: a.test\r\nX: "] {
        let mut client = scene.client();
        client.send(junk);
        let mut sent = 0;
        while sent < 10_000_000 && client.try_send(&[b'a'; 10_000]).is_ok() {
            sent += 10_000;
        }
        let status = client.response().status;
        assert!(status == 431 || status == 414, "{status}");
    }
    scene.ends_clean();
}

#[test]
fn fields_are_limited() {
    let scene = Scene::new(|config| config.limits.header_count = 10);
    assert_eq!(scene.client().ask(get(&"X: y\r\n".repeat(9))).status, 200);
    assert_eq!(scene.client().ask(get(&"X: y\r\n".repeat(10))).status, 431);
    scene.ends_clean();
}

/// More of them than nearly all heads have are kept somewhere else.
#[test]
fn as_many_fields_as_allowed_are_forwarded() {
    let scene = Scene::new(|_| {});
    let fields = |n: usize| (0..n).map(|i| format!("X-{i}: {i}\r\n")).collect::<String>();
    scene.endpoint.script(reply(format!("HTTP/1.1 204 No\r\n{}\r\n", fields(250))));
    // With Host.
    let answer = scene.client().ask(get(&fields(99)));
    assert_eq!((answer.status, answer.fields.one("x-249").as_deref()), (204, Some("249")));
    let request = &scene.endpoint.requests()[0];
    assert!((0..99).all(|i| request.fields.one(&format!("x-{i}")) == Some(i.to_string())));
    assert_eq!(scene.client().ask(get(&fields(100))).status, 431);
    scene.ends_clean();
}

#[test]
fn uploads_are_limited() {
    let scene = Scene::new(|config| config.limits.body_bytes = Some(10));
    let chunks = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    assert_eq!(scene.client().ask(post("Content-Length: 10\r\n", "0123456789")).status, 200);
    assert_eq!(scene.client().ask(chunks("A\r\n0123456789\r\n0\r\n\r\n")).status, 200);
    scene.endpoint.forget();
    // Before a byte of it has come, and with nothing for the endpoint.
    assert_eq!(scene.client().ask(post("Content-Length: 11\r\n", "")).status, 413);
    assert_eq!(
        scene.client().ask(post("Content-Length: 18446744073709551615\r\n", "")).status,
        413
    );
    assert!(scene.endpoint.requests().is_empty());
    assert_eq!(scene.client().ask(chunks("B\r\n0123456789X\r\n0\r\n\r\n")).status, 413);
    assert_eq!(scene.client().ask(chunks("A\r\n0123456789\r\n1\r\nX\r\n0\r\n\r\n")).status, 413);
    scene.endpoint.settle();
    assert!(scene.endpoint.requests().iter().all(|r| !r.whole), "the endpoint took it for whole");
    scene.ends_clean();
}

#[test]
fn the_413_reaches_a_client_that_is_still_sending() {
    let scene = Scene::new(|config| config.limits.body_bytes = Some(1_000_000));
    let mut client = scene.client();
    let mut sender = client.sender();
    let upload = std::thread::spawn(move || {
        use std::io::Write;
        let _ = sender.write_all(post("Content-Length: 5000000\r\n", "").as_bytes());
        let _ = sender.write_all(&vec![b'x'; 5_000_000]);
    });
    assert_eq!(client.response().status, 413);
    upload.join().unwrap();
    drop(client);
    scene.ends_clean();
}

#[test]
fn connections_are_limited() {
    let scene = Scene::new(|config| config.limits.connections = Some(3));
    let mut inside: Vec<_> = (0..3).map(|_| scene.client()).collect();
    for client in &mut inside {
        assert_eq!(client.ask(get("")).status, 200);
    }
    for n in 1..=5 {
        let mut outside = scene.client();
        assert_eq!(outside.response().status, 503);
        assert_ne!(outside.read_to_end(), End::Silent);
        assert_eq!(scene.mesh.stats().gateway.connections_refused, n);
    }
    for client in &mut inside {
        assert_eq!(client.ask(get("")).status, 200);
    }
    drop(inside);
    scene.mesh.wait_idle();
    assert_eq!(scene.client().ask(get("")).status, 200);
    scene.mesh.wait_idle();
    scene.ends_clean();
}

#[test]
fn connections_per_client_are_limited() {
    let scene = Scene::new(|config| config.limits.connections_per_client = Some(2));
    let mut inside: Vec<_> = (0..2).map(|_| scene.client()).collect();
    for client in &mut inside {
        assert_eq!(client.ask(get("")).status, 200);
    }
    let mut outside = scene.client();
    outside.send(get(""));
    let status = outside.response().status;
    assert!(status == 429 || status == 503, "{status}");
    drop(outside);
    drop(inside);
    scene.mesh.wait_idle();
    assert_eq!(scene.client().ask(get("")).status, 200);
    scene.mesh.wait_idle();
    scene.ends_clean();
}

/// A tunnel is a connection like any other: it keeps its place.
#[test]
fn tunnels_count_as_connections() {
    const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\n\r\n";
    let scene = Scene::new(|config| {
        config.limits.connections = Some(10);
        config.limits.connections_per_client = Some(1);
    });
    scene.endpoint.script(vec![send(YES), Do::Echo]);
    let mut tunnel = scene.client();
    tunnel.send(get("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    tunnel.read_until(b"\r\n\r\n").unwrap();
    scene.mesh.eventually("it is open", |s| s.services["a.test"].tunnels_open == 1);
    let mut second = scene.client();
    second.send(get(""));
    assert_ne!(second.response().status, 200);
    drop((tunnel, second));
    scene.mesh.wait_idle();
    scene.ends_clean();
}

/// One client cannot keep the others out: what is refused takes no place, though it is read on.
#[test]
fn refused_connections_do_not_count_as_connections() {
    let scene = Scene::new(|config| {
        config.limits.connections = Some(10);
        config.limits.connections_per_client = Some(2);
    });
    let mut greedy: Vec<_> = (0..30).map(|_| scene.client()).collect();
    scene.mesh.eventually("most are refused", |s| s.gateway.connections_refused == 28);
    assert_eq!(scene.mesh.stats().gateway.limits.connections_per_client, 28);
    let mut other = Client::connect_from("127.0.0.2".parse().unwrap(), scene.mesh.address());
    assert_eq!(other.ask(get("")).status, 200);
    // The refused ones can still read why, and the others are served.
    let mut refused = 0;
    for client in &mut greedy {
        client.send(get(""));
        match client.response().status {
            503 => refused += 1,
            status => assert_eq!(status, 200),
        }
    }
    assert_eq!(refused, 28);
    drop((greedy, other));
    scene.mesh.wait_idle();
    // Their places have not been given back twice.
    let ip = |n: u8| std::net::IpAddr::from([127, 0, 1, n]);
    let address = scene.mesh.address();
    let mut clients: Vec<_> = (0..11).map(|n| Client::connect_from(ip(n), address)).collect();
    for client in &mut clients {
        client.send(get(""));
    }
    let served = clients.iter_mut().filter_map(|c| c.try_response(false).ok());
    assert_eq!(served.filter(|answer| answer.status == 200).count(), 10);
    drop(clients);
    scene.mesh.wait_idle();
    scene.ends_clean();
}

#[test]
fn refused_connections_are_limited() {
    let scene = Scene::new(|config| config.limits.connections_per_client = Some(2));
    let clients: Vec<_> = (0..400).map(|_| scene.client()).collect();
    scene.mesh.eventually("all have been seen", |s| s.gateway.connections_refused == 398);
    let open = scene.mesh.stats().gateway.connections_open;
    assert!(open <= 2 + 128, "{open} are open");
    drop(clients);
    scene.mesh.wait_idle();
    scene.ends_clean();
}

#[test]
fn requests_per_connection_are_limited() {
    let scene = Scene::new(|config| config.limits.requests_per_connection = Some(3));
    let mut client = scene.client();
    for i in 1..=3 {
        let answer = client.ask(get(""));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.fields.one("connection").is_some(), i == 3);
    }
    assert_eq!(client.read_to_end(), End::Closed);
    drop(client);
    scene.ends_clean();
}

/// Requests that go nowhere count as well.
#[test]
fn refused_requests_count_as_requests_of_a_connection() {
    let scene = Scene::new(|config| config.limits.requests_per_connection = Some(3));
    let mut client = scene.client();
    for _ in 0..3 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").status, 404);
    }
    assert_eq!(client.read_to_end(), End::Closed);
    drop(client);
    scene.ends_clean();
}

#[test]
fn held_requests_are_limited() {
    let mut scene = Scene::new(|config| {
        config.timeouts.hold = crate::support::scene::ms(10_000);
        config.limits.held_requests = 2;
    });
    let mesh_core::UpstreamAddr::Tcp(address) = scene.endpoint.address.clone() else {
        unreachable!()
    };
    scene.endpoint.die();
    let mut held: Vec<_> = (0..2).map(|_| scene.client()).collect();
    for client in &mut held {
        client.send(get(""));
    }
    scene.mesh.eventually("two are held", |stats| stats.services["a.test"].holds == 2);
    assert!(scene.client().ask(get("")).status >= 502);
    scene.endpoint = crate::support::endpoint::Endpoint::on(address);
    for client in &mut held {
        assert_eq!(client.response().status, 200);
    }
    drop(held);
    scene.ends_clean();
}

/// Answers of a size that fits no buffer come through whole, and leave nothing behind.
#[test]
fn many_large_responses_arrive_whole() {
    let scene = Scene::new(|_| {});
    let body = "z".repeat(2_000_000);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            scene.endpoint.script(vec![Do::Body, send(ok(&body))]);
            let mut client = scene.client();
            std::thread::spawn(move || client.ask(get("")).body.len())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 2_000_000);
    }
    scene.ends_clean();
}
