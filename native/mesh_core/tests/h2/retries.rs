//! RFC 9110 section 9.2.2: a request is sent a second time only where it cannot have run twice. The same
//! rule as for clients of HTTP/1.1, in `faults/pool.rs`.

use http::Method;
use mesh_core::Config;

use crate::support::endpoint::{Do, Endpoint, send};
use crate::support::http2::{Peer, answer, request, send as upload};
use crate::support::mesh::Mesh;
use crate::support::run;

/// Sends a request on a pooled connection, which the endpoint closes once it has read it and done `before`.
/// Returns the status, how many requests the endpoint has had in all, and how many were retries.
fn on_a_closing_connection(method: &Method, body: &'static str, before: &str) -> (u16, usize, u64) {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    endpoint.script(vec![Do::Body, Do::Answer]);
    endpoint.script(vec![Do::Body, send(before), Do::Close]);
    let status = run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        assert_eq!(peer.get("/first").await.status, 200);
        let asked = request(method.clone(), "a.test", "/second", &[]);
        let (response, mut stream) = peer.begin(asked, body.is_empty()).await;
        if !body.is_empty() {
            upload(&mut stream, body.into(), true).await.expect("upload");
        }
        answer(response).await.expect("an answer").status.as_u16()
    });
    (status, endpoint.requests().len(), mesh.service_stats().retries)
}

#[test]
fn an_idempotent_request_on_a_closed_pooled_connection_is_sent_again() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        assert_eq!(on_a_closing_connection(&method, "", ""), (200, 3, 1), "{method}");
    }
}

#[test]
fn a_request_that_is_not_idempotent_or_has_a_body_is_never_sent_twice() {
    for (method, body) in
        [(Method::POST, ""), (Method::PATCH, ""), (Method::POST, "hi"), (Method::PUT, "hi")]
    {
        assert_eq!(on_a_closing_connection(&method, body, ""), (502, 2, 0), "{method} {body}");
    }
}

#[test]
fn a_request_that_was_partly_answered_is_never_sent_twice() {
    for part in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        assert_eq!(on_a_closing_connection(&Method::GET, "", part), (502, 2, 0), "{part:?}");
    }
}

#[test]
fn a_request_is_sent_at_most_twice() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    endpoint.script(vec![Do::Answer]);
    for _ in 0..5 {
        endpoint.script(vec![Do::Close]);
    }
    let statuses = run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        [peer.get("/first").await.status, peer.get("/second").await.status]
    });
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 502]);
    assert_eq!(endpoint.requests().len(), 3);
}
