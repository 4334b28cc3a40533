//! Kept connections that the endpoint closes at the worst moment: RFC 9110 section 9.2.2.

use crate::support::client::{get, get_target, post};
use crate::support::endpoint::{Do, ok, send};
use crate::support::scene::Scene;

/// The endpoint reads a request on a connection that has served before, and hangs up.
fn hangs_up_on_the_second(scene: &Scene, request: &str) -> u16 {
    scene.endpoint.forget();
    scene.endpoint.script(vec![Do::Body, Do::Answer]);
    scene.endpoint.script(vec![Do::Body, Do::Close]);
    let mut client = scene.client();
    assert_eq!(client.ask(get_target("/first")).status, 200);
    client.ask(request).status
}

#[test]
fn a_get_on_a_closed_pooled_connection_is_sent_again() {
    let scene = Scene::new(|config| config.workers = 1);
    for _ in 0..20 {
        assert_eq!(hangs_up_on_the_second(&scene, &get("")), 200);
    }
    assert_eq!(scene.mesh.service_stats().retries, 20);
    scene.ends_clean();
}

#[test]
fn a_post_is_never_sent_twice() {
    let scene = Scene::new(|config| config.workers = 1);
    for request in [
        post("Content-Length: 2\r\n", "hi"),
        post("Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        post("Content-Length: 0\r\n", ""),
        post("", ""),
        "PATCH / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_string(),
        // It could be sent again, but its body is gone.
        "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi".to_string(),
    ] {
        assert_eq!(hangs_up_on_the_second(&scene, &request), 502, "{request}");
        assert_eq!(scene.endpoint.requests().len(), 2);
    }
    assert_eq!(scene.mesh.service_stats().retries, 0);
    scene.ends_clean();
}

#[test]
fn a_get_with_part_of_a_response_is_never_sent_twice() {
    let scene = Scene::new(|config| config.workers = 1);
    for part in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        scene.endpoint.forget();
        scene.endpoint.script(vec![Do::Answer]);
        scene.endpoint.script(vec![send(part), Do::Close]);
        let mut client = scene.client();
        assert_eq!(client.ask(get("")).status, 200);
        client.send(get(""));
        let mut answer = client.response();
        if answer.status == 100 {
            answer = client.response();
        }
        assert_eq!(answer.status, 502, "{part:?}");
        assert_eq!(scene.endpoint.requests().len(), 2);
    }
    scene.ends_clean();
}

#[test]
fn a_get_is_sent_at_most_twice() {
    let scene = Scene::new(|config| config.workers = 1);
    scene.endpoint.script(vec![Do::Answer]);
    for _ in 0..5 {
        scene.endpoint.script(vec![Do::Close]);
    }
    let mut client = scene.client();
    assert_eq!(client.ask(get("")).status, 200);
    assert_eq!(client.ask(get("")).status, 502);
    assert_eq!(scene.endpoint.requests().len(), 3);
    drop(client);
    scene.ends_clean();
}

/// The end has arrived before the connection is taken up again: then even a POST is safe.
#[test]
fn connections_closed_while_idle_are_not_used() {
    let scene = Scene::new(|config| config.workers = 1);
    let mut client = scene.client();
    for _ in 0..50 {
        assert_eq!(client.ask(post("Content-Length: 2\r\n", "hi")).status, 200);
        scene.endpoint.close_connections();
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
        assert_eq!(client.ask(post("Content-Length: 2\r\n", "hi")).status, 200);
        scene.endpoint.close_connections();
        assert_eq!(client.ask(get("")).status, 200);
    }
    assert_eq!(scene.endpoint.requests().len(), 150);
    drop(client);
    scene.ends_clean();
}

/// Endpoints that close after each answer without saying so.
#[test]
fn an_endpoint_that_closes_unannounced_loses_no_request() {
    let scene = Scene::new(|config| config.workers = 1);
    let mut client = scene.client();
    for i in 0..200 {
        scene.endpoint.script(vec![Do::Body, Do::Answer, Do::Close]);
        let answer = client.ask(get_target(&format!("/{i}")));
        assert_eq!((answer.status, answer.body), (200, format!("/{i}").into_bytes()));
        // Scripts that a repeated request did not use.
        scene.endpoint.wait_for_requests(i + 1);
    }
    drop(client);
    scene.ends_clean();
}

#[test]
fn unexpected_bytes_on_a_pooled_connection_are_no_response() {
    let scene = Scene::new(|config| config.workers = 1);
    for request in [get(""), post("Content-Length: 2\r\n", "hi")] {
        scene.endpoint.forget();
        scene.endpoint.script(vec![
            Do::Body,
            Do::Answer,
            Do::Gate("now"),
            send(ok("evil")),
            Do::Reach("sent"),
            Do::Gate("done"),
        ]);
        let mut client = scene.client();
        assert_eq!(client.ask(get_target("/first")).body, b"/first");
        scene.endpoint.open_gate("now");
        scene.endpoint.wait_for_step("sent");
        // And the gateway's event loop has been round since.
        scene.others_are_served();
        scene.endpoint.script(vec![Do::Body, send(ok("right"))]);
        assert_eq!(client.ask(&request).body, b"right");
        scene.endpoint.open_gate("done");
    }
    scene.ends_clean();
}

/// The end of a response is where its framing says (RFC 9112 section 6.3). What comes behind it in
/// the same segment is nobody's answer, and what follows on that connection is not to be trusted:
/// it is closed, and nobody else's request goes there.
#[test]
fn bytes_after_a_response_close_its_connection() {
    let scene = Scene::new(|config| config.workers = 1);
    let evil = ok("evil");
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n";
    for (answer, body) in [
        (ok("first") + &evil, "first"),
        // Begins there and goes on when the next request has come.
        (ok("first") + &evil[..30], "first"),
        (ok("first") + "\r\n", "first"),
        (ok("first") + "x", "first"),
        (chunks.to_string() + &evil, "first"),
        (format!("HTTP/1.1 204 No\r\n\r\n{evil}"), ""),
        (format!("HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n{evil}"), ""),
    ] {
        scene.endpoint.forget();
        let before = scene.endpoint.look(|state| state.connections.len());
        scene.endpoint.script(vec![Do::Body, send(&answer), Do::UntilClosed]);
        let mut client = scene.client();
        assert_eq!(client.ask(get_target("/first")).body, body.as_bytes(), "{answer:?}");
        // The first request may have met a connection that was closed a moment ago.
        let retries = scene.mesh.service_stats().retries;
        for mut next in [scene.client(), client] {
            assert_eq!(next.ask(get_target("/next")).body, b"/next", "{answer:?}");
        }
        assert_eq!(scene.mesh.service_stats().retries, retries, "{answer:?}");
        scene.endpoint.wait("the end", |state| state.connections[before].ended);
        let first = scene.endpoint.look(|state| state.connections[before].raw.clone());
        assert!(first.starts_with(b"GET /first ") && !first.windows(5).any(|w| w == b"/next"));
        scene.endpoint.close_connections();
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    }
    scene.ends_clean();
}

#[test]
fn pooled_connections_are_closed_after_upstream_idle() {
    let scene = Scene::new(|config| config.timeouts.upstream_idle = crate::support::scene::ms(100));
    let mut client = scene.client();
    assert_eq!(client.ask(get("")).status, 200);
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    assert_eq!(client.ask(get("")).status, 200);
    drop(client);
    scene.ends_clean();
}
