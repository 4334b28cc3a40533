//! Clients that leave, at every stage, and clients that are slow.

use std::io::Write;

use crate::support::client::{Client, End, get, post};
use crate::support::endpoint::{Do, ok, send};
use crate::support::scene::{Scene, ms};

/// How to leave.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
    /// Closes its side first, then is gone altogether.
    FinThenReset,
}

const ALL: [Leave; 3] = [Leave::Close, Leave::Reset, Leave::FinThenReset];

fn leave(mut client: Client, how: Leave) {
    match how {
        Leave::Close => drop(client),
        Leave::Reset => client.reset(),
        Leave::FinThenReset => {
            client.fin();
            client.reset();
        }
    }
}

const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\n\r\n";
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn a_client_may_leave_before_its_request() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        leave(scene.client(), how);
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_within_its_head() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        let mut client = scene.client();
        client.send("GET / HTTP/1.1\r\nHo");
        leave(client, how);
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_between_requests() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        let mut client = scene.client();
        assert_eq!(client.ask(get("")).status, 200);
        leave(client, how);
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_within_its_upload() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        scene.endpoint.forget();
        let mut client = scene.client();
        client.send(post("Content-Length: 100\r\n", "some"));
        scene.endpoint.wait_for_bytes(b"some");
        leave(client, how);
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
        assert!(!scene.endpoint.requests()[0].whole, "{how:?}");
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_within_an_upload_that_nothing_reads() {
    let scene = Scene::new(|_| {});
    for how in [Leave::Reset, Leave::FinThenReset] {
        scene.endpoint.forget();
        scene.endpoint.script(vec![Do::Gate("never")]);
        let client = scene.client();
        let mut sender = client.sender();
        sender.set_timeouts(std::time::Duration::from_millis(300));
        sender.write_all(post("Content-Length: 100000000\r\n", "").as_bytes()).unwrap();
        // Until all buffers on the way are full.
        while sender.write_all(&[b'x'; 65_536]).is_ok() {}
        drop(sender);
        leave(client, how);
        scene.mesh.wait_idle();
        scene.endpoint.open_gate("never");
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_before_the_response() {
    // One that has only closed cannot be told from one that still listens; the answer tells.
    let scene = Scene::new(|_| {});
    for how in [Leave::Reset, Leave::FinThenReset] {
        scene.endpoint.forget();
        scene.endpoint.script(vec![Do::Body, Do::UntilClosed]);
        let mut client = scene.client();
        client.send(get(""));
        scene.endpoint.wait_for_requests(1);
        leave(client, how);
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_with_pipelined_requests_unread() {
    let scene = Scene::new(|_| {});
    scene.endpoint.script(vec![Do::Body, Do::UntilClosed]);
    let mut client = scene.client();
    client.send(get(""));
    scene.endpoint.wait_for_requests(1);
    client.send(get("").repeat(2_000));
    client.reset();
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_within_the_response() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        scene.endpoint.forget();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
        let mut script = vec![Do::Body, send(head)];
        script.extend((0..100).map(|_| send(vec![b'x'; 1_000_000])));
        scene.endpoint.script(script);
        let mut client = scene.client();
        client.send(get("")).read_until(b"xxxx").unwrap();
        leave(client, how);
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_an_event_stream() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        scene.endpoint.forget();
        let mut script = vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\ndata: 0\n\n"), Do::Gate("go")];
        script.extend((0..10_000).map(|_| send("data: 1\n\n")));
        scene.endpoint.script(script);
        let mut client = scene.client();
        client.send(get("")).read_until(b"data: 0").unwrap();
        leave(client, how);
        scene.endpoint.open_gate("go");
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    }
    scene.ends_clean();
}

#[test]
fn a_client_may_leave_a_tunnel() {
    let scene = Scene::new(|_| {});
    for how in ALL {
        scene.endpoint.forget();
        scene.endpoint.script(vec![send(YES), Do::Echo]);
        let mut client = scene.client();
        client.send(get(ASK)).read_until(b"\r\n\r\n").unwrap();
        client.send("ping").read_until(b"ping").unwrap();
        scene.mesh.eventually("it is open", |s| s.services["a.test"].tunnels_open == 1);
        leave(client, how);
        scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    }
    scene.ends_clean();
}

#[test]
fn an_endpoint_may_leave_a_tunnel() {
    let scene = Scene::new(|_| {});
    for end in [Do::Close, Do::Reset] {
        scene.endpoint.script(vec![send(YES), Do::Take(4), end]);
        let mut client = scene.client();
        client.send(get(ASK)).read_until(b"\r\n\r\n").unwrap();
        client.send("ping");
        assert_ne!(client.read_to_end(), End::Silent);
    }
    scene.ends_clean();
}

/// Both at once, byte by byte, with pauses on either side: nothing is lost and nothing mixed up.
#[test]
fn bodies_that_come_byte_by_byte_arrive_whole() {
    let scene = Scene::new(|_| {});
    let mut script = vec![Do::Take(1), send("HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n")];
    for i in 0..26u8 {
        script.push(Do::Take(i as usize + 1));
        script.push(send([b'A' + i]));
    }
    scene.endpoint.script(script);
    let mut client = scene.client();
    for byte in post("Content-Length: 26\r\n", "").bytes() {
        client.send([byte]);
    }
    for i in 0..26u8 {
        client.send([b'a' + i]);
        client.read_until(&[b'A' + i]).unwrap();
    }
    scene.endpoint.wait("the whole", |state| state.requests[0].whole);
    assert_eq!(scene.endpoint.requests()[0].body, b"abcdefghijklmnopqrstuvwxyz");
    assert_eq!(client.response().body, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    drop(client);
    scene.ends_clean();
}

#[test]
fn a_half_closed_client_still_gets_its_response() {
    let scene = Scene::new(|config| config.timeouts.idle = ms(500));
    scene.endpoint.script(vec![Do::Body, Do::Gate("go"), send(ok("late"))]);
    let mut client = scene.client();
    client.send(get("")).fin();
    scene.endpoint.wait_for_requests(1);
    scene.endpoint.open_gate("go");
    assert_eq!(client.response().body, b"late");
    assert_eq!(client.read_to_end(), End::Closed);
    drop(client);
    scene.ends_clean();
}
