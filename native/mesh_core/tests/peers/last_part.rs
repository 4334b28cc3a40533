//! The last part of what a node sends to a peer that does not read: the connection's buffers are full, and the
//! node holds it encrypted.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::dial::{Identity, Stream, read_head, tcp, tls};
use crate::nodes::{Node, nodes};
use crate::support::endpoint::{Do, Endpoint, send};
use crate::support::eventually;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const OPEN_BYTES: usize = 12_000_000;

struct Scene {
    node: Node,
    endpoint: Endpoint,
    friend: Identity,
}

impl Scene {
    fn ask(&self, fields: &str) -> Stream {
        let mut stream = tls(self.friend.config(), tcp([127, 0, 0, 1], &self.node, Some(4096)));
        let ask = format!("GET / HTTP/1.1\r\nHost: a.test\r\nExmesh-Service: A\r\n{fields}\r\n");
        stream.write_all(ask.as_bytes()).expect("sent");
        stream
    }

    /// A tunnel whose sending side this client has closed.
    fn tunnel(&self) -> Stream {
        let mut tunnel = self.ask(UPGRADE);
        assert!(read_head(&mut tunnel).starts_with("HTTP/1.1 101 "));
        tunnel.conn.send_close_notify();
        tunnel.conn.complete_io(&mut tunnel.sock).expect("sent");
        tunnel
    }

    /// How much the node accepts for a client that does not read.
    fn capacity(&self) -> usize {
        self.endpoint.script(vec![Do::Upgrade, Do::UntilClosed, Do::Send(body(OPEN_BYTES))]);
        let tunnel = self.tunnel();
        let sent = || self.node.served_for_peers().tunnel_sent_bytes;
        let (mut last, mut since) = (0, Instant::now());
        eventually("the connection is full", || {
            if sent() != last {
                (last, since) = (sent(), Instant::now());
            }
            last > 0 && since.elapsed() > Duration::from_millis(300)
        });
        drop(tunnel);
        last as usize
    }
}

fn body(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i / 5) as u8).collect()
}

#[test]
fn it_arrives_before_the_connection_ends() {
    let [node] = nodes();
    let endpoint = Endpoint::start();
    node.routes(std::slice::from_ref(&endpoint.address));
    let friend = Identity::new();
    node.knows(&[friend.spec()]);
    let scene = Scene { node, endpoint, friend };
    let full = scene.capacity();
    assert!(full < OPEN_BYTES, "the test needs more bytes");
    let mut clients = Vec::new();
    for more in [4_000, 22_000] {
        let n = full - 16_000 + more;
        scene.endpoint.script(vec![Do::Upgrade, Do::UntilClosed, Do::Send(body(n)), Do::Close]);
        clients.push((scene.tunnel(), n));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n");
        let gate =
            vec![Do::Body, Do::Gate("last"), send([head.as_bytes(), &body(n)].concat()), Do::Close];
        scene.endpoint.script(gate);
        clients.push((scene.ask(""), n));
        scene.endpoint.wait_for_requests(clients.len() + 1);
    }
    // Each response is the last on its connection.
    scene.node.mesh.gateway.lame_duck();
    scene.endpoint.open_gate("last");
    eventually("the endpoint has sent all", || scene.endpoint.open_connections() == 0);
    let began = Instant::now();
    eventually("more than a connection lingers", || began.elapsed() > Duration::from_millis(2_500));
    for (i, (mut client, n)) in clients.into_iter().enumerate() {
        if i % 2 == 1 {
            read_head(&mut client);
        }
        let mut got = vec![0; n];
        client.read_exact(&mut got).unwrap_or_else(|error| panic!("{i}, {n}: {error}"));
        assert!(got == body(n), "{i}, {n}");
    }
    scene.node.is_well();
}
