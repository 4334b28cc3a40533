//! Last responses reach clients that are still sending: RFC 9112 section 9.6. Closing a socket with
//! something unread resets the connection, and a reset may throw away what the client has not read.

use std::io::{self, Write};
use std::thread::JoinHandle;

use crate::support::client::{Client, End, get, get_target};
use crate::support::endpoint::{Do, send};
use crate::support::scene::Scene;

/// Sends more behind `first` than all buffers on the way hold, so that the gateway cannot have read
/// it by chance.
fn flood(client: &Client, first: &str) -> JoinHandle<io::Result<()>> {
    let mut sender = client.sender();
    let all = first.to_string() + &get_target("/more").repeat(200_000);
    std::thread::spawn(move || sender.write_all(all.as_bytes()))
}

/// Neither reset nor answered, and all that was sent has been taken.
fn ends_well(mut client: Client, flood: JoinHandle<io::Result<()>>) {
    flood.join().expect("no panic").expect("the gateway stopped reading");
    assert_eq!(client.read_to_end(), End::Closed);
    assert!(client.buffer.is_empty(), "{:?}", client.buffer.escape_ascii().to_string());
}

#[test]
fn requests_after_the_last_one_do_not_lose_its_response() {
    let scene = Scene::new(|_| {});
    for last in [
        get("Connection: close\r\n"),
        "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n".into(),
    ] {
        let mut client = scene.client();
        let flood = flood(&client, &last);
        let status = client.response().status;
        assert_eq!(status, if last.contains("nobody") { 404 } else { 200 });
        ends_well(client, flood);
    }
    assert!(scene.endpoint.requests().iter().all(|request| request.target == "/"));
    scene.ends_clean();
}

#[test]
fn requests_beyond_the_limit_do_not_lose_the_last_response() {
    let scene = Scene::new(|config| config.limits.requests_per_connection = Some(3));
    let mut client = scene.client();
    let flood = flood(&client, "");
    for _ in 0..3 {
        assert_eq!(client.response().body, b"/more");
    }
    ends_well(client, flood);
    scene.ends_clean();
}

/// The client learns only from the answer that it was the last, and may have sent more by then.
#[test]
fn a_request_sent_before_the_last_response_was_read_causes_no_reset() {
    let scene = Scene::new(|config| config.limits.requests_per_connection = Some(1));
    let mut client = scene.client();
    client.send(get(""));
    scene.mesh.eventually("it is answered", |s| s.services["a.test"].responses_2xx == 1);
    for _ in 0..100 {
        client.try_send(get("").as_bytes()).expect("the connection was reset");
    }
    assert_eq!(client.response().fields.one("connection").as_deref(), Some("close"));
    assert_eq!(client.read_to_end(), End::Closed);
    drop(client);
    assert_eq!(scene.endpoint.requests().len(), 1);
    scene.ends_clean();
}

/// So does one whose connection is closed because the gateway stops.
#[test]
fn requests_during_a_stop_do_not_lose_the_last_response() {
    let mut scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::Gate("go"), send("HTTP/1.1 204 No\r\n\r\n")]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    scene.mesh.gateway.stop(None);
    scene.mesh.eventually("it has begun to stop", |_| {
        std::net::TcpStream::connect(scene.mesh.address()).is_err()
    });
    let flood = flood(&client, "");
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().status, 204);
    ends_well(client, flood);
    scene.mesh.join();
    scene.ends();
}
