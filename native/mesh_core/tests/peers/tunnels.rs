//! WebSockets over a hop.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::ext::Protocol;
use http::Request;
use mesh_core::Config;

use crate::nodes::{Node, nodes};
use crate::support::client::{Client, End, get};
use crate::support::endpoint::{Do, Endpoint};
use crate::support::eventually;
use crate::support::http2::{Peer, read, send as upload};
use crate::support::run;

const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const MIB: usize = 1024 * 1024;

fn hop() -> ([Node; 2], Endpoint) {
    let [a, b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    ([a, b], endpoint)
}

fn open(mut client: Client) -> Client {
    client.send(get(ASK)).read_until(b"\r\n\r\n").expect("a head");
    assert!(client.buffer.starts_with(b"HTTP/1.1 101 "));
    client.buffer.clear();
    client
}

fn ends(nodes: &[Node; 2]) {
    for node in nodes {
        node.mesh.wait_idle();
        eventually("no tunnel is open", || node.served_for_peers().tunnels_open == 0);
        node.is_well();
    }
}

#[test]
fn messages_of_all_sizes_pass_in_both_directions() {
    let (nodes, endpoint) = hop();
    endpoint.usually(vec![Do::Upgrade, Do::Echo]);
    let mut client = open(nodes[0].client());
    for size in [1, 2, 125, 4_096, 16_384, 16_385, 65_536, 1_000_003] {
        let message: Vec<u8> = (0..size).map(|i| i as u8).collect();
        let mut sender = client.sender();
        let sent = message.clone();
        let up = std::thread::spawn(move || sender.write_all(&sent));
        assert!(client.read_exact(size).expect("an echo") == message, "{size}");
        up.join().expect("no panic").expect("sent");
    }
    for n in 0..2_000_u32 {
        let message = n.to_be_bytes();
        assert_eq!(client.send(message).read_exact(4).expect("an echo"), message);
    }
    assert_eq!((nodes[0].stats().tunnels_open, nodes[1].served_for_peers().tunnels_open), (1, 1));
    assert_eq!(nodes[0].peer_stats(&nodes[1]).connections, 2, "the tunnel's and the watch's");
    client.hang_up();
    ends(&nodes);
}

/// The client has said all and reads slowly: what the endpoint says then comes to its end.
#[test]
fn each_side_may_close_its_half_first() {
    let (nodes, endpoint) = hop();
    for _ in 0..2 {
        let last: Vec<u8> = (0..2 * MIB).map(|i| (i / 7) as u8).collect();
        let script = vec![Do::Upgrade, Do::UntilClosed, Do::Send(last.clone()), Do::Fin];
        endpoint.script(script);
        let mut client = open(Client::connect_small(nodes[0].mesh.address()));
        client.send("goodbye").fin();
        assert_eq!(client.read_to_end(), End::Closed);
        assert!(client.buffer == last, "{} of {} bytes", client.buffer.len(), last.len());
        client.hang_up();
    }
    // The endpoint first.
    endpoint.script(vec![Do::Upgrade, Do::Fin, Do::UntilClosed]);
    let mut client = open(nodes[0].client());
    assert_eq!(client.read_to_end(), End::Closed);
    client.send("still here").fin();
    endpoint.wait_for_bytes(b"still here");
    ends(&nodes);
}

/// The endpoint sends more after a pause: nothing stays behind although the client's half is closed.
#[test]
fn parts_do_not_wait_for_the_next_after_a_half_close() {
    let (nodes, endpoint) = hop();
    let part = vec![b'x'; 2 * MIB];
    endpoint.script(vec![
        Do::Upgrade,
        Do::UntilClosed,
        Do::Send(part.clone()),
        Do::Gate("read"),
        Do::Fin,
    ]);
    let mut client = open(Client::connect_small(nodes[0].mesh.address()));
    client.fin();
    assert_eq!(client.read_exact(part.len()).map(|got| got == part), Ok(true));
    endpoint.open_gate("read");
    assert_eq!(client.read_to_end(), End::Closed);
    ends(&nodes);
}

#[test]
fn the_end_of_either_side_ends_the_tunnel() {
    let (nodes, endpoint) = hop();
    for end in [Do::Close, Do::Reset] {
        endpoint.script(vec![Do::Upgrade, Do::Take(3), end]);
        let mut client = open(nodes[0].client());
        client.send("bye");
        assert_eq!(client.read_to_end(), End::Closed);
    }
    for resets in [true, false] {
        endpoint.script(vec![Do::Upgrade, Do::UntilClosed]);
        let client = open(nodes[0].client());
        if resets {
            client.reset()
        } else {
            client.hang_up()
        }
        eventually("the endpoint's end", || endpoint.open_connections() == 0);
    }
    ends(&nodes);
}

#[test]
fn a_refused_handshake_is_a_response() {
    let (nodes, endpoint) = hop();
    endpoint.script(vec![Do::Answer]);
    let mut client = nodes[0].client();
    assert_eq!(client.ask(get(ASK)).status, 200);
    assert_eq!(client.ask(get("")).status, 200);
    assert_eq!(nodes[0].stats().upstream_connections_opened, 1);
}

/// RFC 8441.
#[test]
fn http2_clients_have_websockets_over_a_hop() {
    let (nodes, endpoint) = hop();
    endpoint.usually(vec![Do::Upgrade, Do::Echo]);
    run(async {
        let mut peer = Peer::connect(nodes[0].mesh.address()).await;
        eventually("the setting has come", || peer.requests.is_extended_connect_protocol_enabled());
        let mut tunnels = Vec::new();
        for _ in 0..3 {
            let mut request = Request::connect("http://a.test/socket")
                .header("sec-websocket-version", "13")
                .body(())
                .expect("a request");
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            let (response, mut up) = peer.begin(request, false).await;
            let mut down = response.await.expect("a response").into_body();
            tunnels.push(tokio::spawn(async move {
                for size in [1, 30_000, MIB, 17] {
                    let message: Vec<u8> = (0..size).map(|i| (i / 3) as u8).collect();
                    let mut got = Vec::new();
                    let sent = upload(&mut up, Bytes::from(message.clone()), false);
                    let back = async {
                        while got.len() < size {
                            let data = down.data().await.expect("data").expect("no error");
                            down.flow_control().release_capacity(data.len()).expect("release");
                            got.extend_from_slice(&data);
                        }
                    };
                    let (sent, ()) = tokio::join!(sent, back);
                    sent.expect("sent");
                    assert!(got == message, "{size}");
                }
                up.send_data(Bytes::new(), true).expect("end");
                assert!(read(&mut down).await.expect("an orderly end").0.is_empty());
            }));
        }
        for tunnel in tunnels {
            tunnel.await.expect("no panic");
        }
    });
    ends(&nodes);
}

/// Many silent tunnels hold, and a drain of the node that serves them ends them.
#[test]
fn a_drain_closes_tunnels_of_peers() {
    let (mut nodes, endpoint) = hop();
    endpoint.usually(vec![Do::Upgrade, Do::Echo]);
    let mut clients: Vec<_> = (0..20).map(|_| open(nodes[0].client())).collect();
    for client in &mut clients {
        assert_eq!(client.send("x").read_exact(1).expect("an echo"), b"x");
    }
    nodes[1].mesh.stop(Some(Duration::from_secs(5)));
    for client in &mut clients {
        assert_eq!(client.read_to_end(), End::Closed);
    }
    drop(clients);
    ends(&nodes);
}

/// Not a hop: the same configuration is used for tunnels with and without one.
#[test]
fn idle_tunnels_end_at_the_node_of_the_client() {
    let [b] = nodes();
    let mut config = Config::default();
    config.timeouts.tunnel_idle = Some(Duration::from_millis(200));
    let a = Node::start("other", config);
    a.knows(&[b.spec()]);
    b.knows(&[a.spec()]);
    let endpoint = Endpoint::start();
    endpoint.usually(vec![Do::Upgrade, Do::Echo]);
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    let mut client = open(a.client());
    assert_eq!(client.read_to_end(), End::Closed);
    let mut rest = [0; 1];
    assert!(matches!(client.sender().read(&mut rest), Ok(0) | Err(_)));
    eventually("the endpoint's end", || endpoint.open_connections() == 0);
}

/// Its peers ask a node that drains whether it is there, and must not take it for lost.
#[test]
fn a_draining_node_finishes_what_takes_longer_than_a_peer_may_be_silent() {
    let (mut nodes, endpoint) = hop();
    endpoint.usually(vec![Do::Upgrade, Do::Echo]);
    let mut tunnel = open(nodes[0].client());
    endpoint.script(vec![Do::Body, Do::Gate("news"), Do::Answer]);
    let mut poll = nodes[0].client();
    poll.send(get(""));
    endpoint.wait_for_requests(2);
    let began = Instant::now();
    nodes[1].mesh.gateway.stop(Some(Duration::from_secs(30)));
    // The control plane has heard of it.
    nodes[0].routes(&[]);
    while began.elapsed() < Duration::from_secs(8) {
        assert_eq!(
            tunnel.send("x").read_exact(1).as_deref(),
            Ok(&b"x"[..]),
            "{:?}",
            began.elapsed()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    endpoint.open_gate("news");
    assert_eq!(poll.response().status, 200);
    drop(poll);
    tunnel.hang_up();
    nodes[1].mesh.join();
    nodes[1].is_well();
}

/// Distribution is cut for so long that the nodes have forgotten each other.
#[test]
fn a_tunnel_outlives_the_knowledge_of_its_node() {
    let (nodes, endpoint) = hop();
    endpoint.usually(vec![Do::Upgrade, Do::Echo]);
    let mut tunnel = open(nodes[0].client());
    nodes[0].routes(&[]);
    for node in &nodes {
        node.knows(&[]);
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        assert_eq!(
            tunnel.send("x").read_exact(1).as_deref(),
            Ok(&b"x"[..]),
            "{:?}",
            began.elapsed()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    tunnel.hang_up();
    ends(&nodes);
}
