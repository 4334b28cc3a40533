//! Tunnels whose two sides do not end together.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::client::{Client, End, get};
use crate::support::endpoint::{Do, Endpoint, send};
use crate::support::eventually;
use crate::support::scene::{Scene, ms};

const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\n\r\n";
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// A close frame with the code 1009, "message too big" (RFC 6455 section 7.4.1).
const TOO_BIG: &[u8] = b"\x88\x02\x03\xf1";

fn open(scene: &Scene) -> Client {
    let mut client = scene.client();
    client.send(get(ASK)).read_until(b"\r\n\r\n").expect("a tunnel");
    client.buffer.clear();
    client
}

/// The endpoint closes with much of what the client sends unread, which resets its connection.
fn last_words_reach_a_client_that_is_sending(endpoint: fn() -> Endpoint) {
    let scene = Scene::with(endpoint, |_| {});
    for end in [Do::Close, Do::Reset].iter().cycle().take(60) {
        scene.endpoint.script(vec![send(YES), Do::Take(100_000), send(TOO_BIG), end.clone()]);
        let mut client = open(&scene);
        let mut sender = client.sender();
        let message =
            std::thread::spawn(move || while sender.write_all(&[b'x'; 65_536]).is_ok() {});
        let end_seen = client.read_to_end();
        // A reset by the endpoint itself may overtake what it has sent.
        if matches!(end, Do::Close) {
            assert_eq!(client.buffer, TOO_BIG);
        }
        assert_eq!(end_seen, End::Closed);
        client.hang_up();
        message.join().expect("no panic");
    }
    scene.ends_clean();
}

#[test]
fn last_words_reach_a_client_that_is_sending_over_tcp() {
    last_words_reach_a_client_that_is_sending(Endpoint::start);
}

#[test]
fn last_words_reach_a_client_that_is_sending_over_a_unix_socket() {
    last_words_reach_a_client_that_is_sending(Endpoint::start_unix);
}

/// A client that stays although its endpoint has gone holds nothing for long, whether it is silent
/// or still sends.
#[test]
fn a_client_that_stays_after_its_endpoint_is_disconnected() {
    let scene = Scene::new(|config| config.timeouts.tunnel_close = ms(300));
    let mut clients = Vec::new();
    for end in [Do::Close, Do::Reset, Do::Fin] {
        for sends in [false, true] {
            scene.endpoint.script(vec![send(YES), send("bye"), end.clone(), Do::UntilClosed]);
            let mut client = open(&scene);
            assert_eq!(client.read_to_end(), End::Closed);
            let mut sender = client.sender();
            let attack = std::thread::spawn(move || {
                let until = Instant::now() + crate::support::PATIENCE;
                while sends && Instant::now() < until && sender.write_all(b"x").is_ok() {
                    // The pace of the attack, not a wait for anything.
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            clients.push((client, attack));
        }
    }
    // With every client still there.
    scene.mesh.wait_idle();
    scene.endpoint.wait("the end", |state| state.connections.iter().all(|c| c.ended));
    for (client, attack) in clients {
        client.hang_up();
        attack.join().expect("no panic");
    }
    scene.ends_clean();
}

/// An endpoint that only says that it will send no more is still sent what the client has to say.
#[test]
fn the_client_may_send_after_the_endpoints_half_is_closed() {
    let scene = Scene::new(|_| {});
    scene.endpoint.script(vec![send(YES), send("bye"), Do::Fin, Do::UntilClosed]);
    let mut client = open(&scene);
    assert_eq!(client.read_to_end(), End::Closed);
    client.send("and this");
    scene.endpoint.wait_for_bytes(b"and this");
    drop(client);
    scene.ends_clean();
}

/// The endpoint is not heard of any more after the client's end.
#[test]
fn a_silent_endpoint_is_disconnected_after_its_client_left() {
    let scene = Scene::new(|config| config.timeouts.tunnel_close = ms(300));
    scene.endpoint.script(vec![send(YES), Do::UntilClosed, Do::Gate("never")]);
    let mut client = open(&scene);
    client.fin();
    scene.mesh.wait_idle();
    assert_eq!(client.read_to_end(), End::Closed);
    scene.endpoint.open_gate("never");
    drop(client);
    scene.ends_clean();
}

/// But one that has much to say may say all of it.
#[test]
fn the_endpoint_may_send_after_the_clients_half_is_closed() {
    let scene = Scene::new(|config| config.timeouts.tunnel_close = ms(1000));
    let mut script = vec![send(YES), Do::UntilClosed];
    for gate in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        script.extend([send(gate), Do::Gate(gate)]);
    }
    scene.endpoint.script(script);
    let mut client = open(&scene);
    client.fin();
    for gate in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        client.read_until(gate.as_bytes()).expect("more");
        // Together longer than the limit.
        std::thread::sleep(Duration::from_millis(200));
        scene.endpoint.open_gate(gate);
    }
    assert_eq!(client.read_to_end(), End::Closed);
    assert_eq!(client.buffer, b"01234567");
    drop(client);
    scene.ends_clean();
}

/// A machine that is gone says nothing. The system asks now and then on both sides of a tunnel, and
/// on connections of HTTP/2.
#[test]
fn tunnels_and_http2_connections_have_tcp_keepalive() {
    let scene = Scene::new(|_| {});
    scene.endpoint.script(vec![send(YES), Do::Echo]);
    let mut client = open(&scene);
    client.send("ping").read_until(b"ping").expect("an echo");
    let gateway = scene.mesh.address().port();
    let has_timer = |port: u16, peer: u16| {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
        let ends = format!(":{port:04X} 0100007F:{peer:04X} 01 ");
        // 02 is the timer of keepalive.
        table.lines().any(|line| line.contains(&ends) && line.contains(" 02:"))
    };
    eventually("the client is looked after", || has_timer(gateway, client.port()));
    let upstream = scene.endpoint.port();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
    let to_endpoint = format!(" 0100007F:{upstream:04X} 01 ");
    assert!(
        table.lines().any(|line| line.contains(&to_endpoint) && line.contains(" 02:")),
        "the endpoint is not looked after"
    );
    let mut second = scene.client();
    second.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    second.read_exact(9).expect("settings");
    eventually("HTTP/2 is looked after", || has_timer(gateway, second.port()));
    drop((client, second));
    scene.ends_clean();
}
