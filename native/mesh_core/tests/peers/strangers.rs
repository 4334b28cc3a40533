//! What the mesh port gives to others: no byte of HTTP, and little work.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use mesh_core::observe::Notice;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::dial::{Identity, PROTOCOL, ask, builder, known, read_head, tcp, tls, with_protocol};
use crate::nodes::{Node, nodes};
use crate::support::endpoint::Endpoint;
use crate::support::eventually;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nExmesh-Service: A\r\n\r\n";
/// A self-signed certificate for an Ed25519 key, and the key.
const CERTIFICATE: &str = "3082012e3081e1a0030201020214099d67ff566fd2fb401ea68d3f2fce7b34bdfc93300506032b6570300c310a300806035504030c01783020170d3236313132363036353334305a180f32313236313130323036353334305a300c310a300806035504030c0178302a300506032b6570032100b1d1f43ef2056631ccc1c1edb1a9d877d183f823dfda56b2e3f9b020003e4882a3533051301d0603551d0e041604144b87042aef0a0e31f63b70f7947af7a85ccbbfc8301f0603551d230418301680144b87042aef0a0e31f63b70f7947af7a85ccbbfc8300f0603551d130101ff040530030101ff300506032b6570034100542b202eed5b0e69d277566f1de82f5b90e95560391421910bcbbd91615991c81b16646d9b3296d6873d9eaa7ba57c949082831a84655ac9898e9debb532f40b";
const CERTIFIED: &str = "302e020100300506032b657004220420490320154e698817aef2b2f115dd2a21fd58a6466428bae829b099f88319a89c";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).expect("text"));
    digits.map(|two| u8::from_str_radix(two, 16).expect("hexadecimal")).collect()
}

/// A node with an endpoint that a stranger must not reach, and a peer that it knows.
fn scene() -> (Node, Endpoint, Identity) {
    let [node] = nodes();
    let endpoint = Endpoint::start();
    node.routes(std::slice::from_ref(&endpoint.address));
    let friend = Identity::new();
    node.knows(&[friend.spec()]);
    (node, endpoint, friend)
}

fn is_served(node: &Node, friend: &Identity) {
    let mut stream = known(friend, node);
    stream.write_all(GET).expect("sent");
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
}

/// All that a stranger may see: an alert, and the end.
fn gets_no_http(what: &str, mut tcp: TcpStream, sent: &[u8]) {
    let began = Instant::now();
    let _ = tcp.write_all(sent);
    let mut got = Vec::new();
    match tcp.read_to_end(&mut got) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
    }
    assert!(!got.windows(4).any(|w| w == b"HTTP"), "{what}: {}", got.escape_ascii());
    assert!(got.is_empty() || got[0] == 0x15, "{what}: {}", got.escape_ascii());
    assert!(began.elapsed() < Duration::from_secs(6), "{what}");
}

#[test]
fn what_is_not_tls_gets_an_alert_at_most() {
    let (node, endpoint, friend) = scene();
    let hello = {
        let mut client = tls(friend.config(), tcp([127, 0, 0, 1], &node, None));
        let mut hello = Vec::new();
        client.conn.write_tls(&mut hello).expect("a ClientHello");
        hello
    };
    let mut oversized = vec![0x16, 3, 1, 0xff, 0xff];
    oversized.extend([1; 66_000]);
    // A handshake message of 16 MiB, of which the first records come.
    let mut endless = Vec::new();
    for first in [true, false, false, false, false, false] {
        endless.extend([0x16, 3, 1, 0x40, 0]);
        endless.extend(if first { [1, 0xff, 0xff, 0xff] } else { [0; 4] });
        endless.extend([0; 16_380]);
    }
    let cases: [(&str, Vec<u8>); 11] = [
        ("HTTP", GET.to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
        ("a byte", vec![0x16]),
        ("half a ClientHello", hello[..hello.len() / 2].to_vec()),
        ("a ClientHello", hello.clone()),
        ("a ClientHello and more", [&hello[..], &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]].concat()),
        ("zeros", vec![0; 100_000]),
        ("random", (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("an oversized record", oversized),
        ("an endless message", endless),
    ];
    std::thread::scope(|scope| {
        for (name, sent) in &cases {
            let node = &node;
            scope.spawn(move || {
                for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
                    let tcp = tcp(from, node, None);
                    if !name.starts_with("a ClientHello") {
                        gets_no_http(name, tcp, sent);
                        continue;
                    }
                    // The server's part of the handshake is no secret, and then it waits in vain.
                    let mut got = Vec::new();
                    let mut tcp = tcp;
                    tcp.write_all(sent).expect("sent");
                    let _ = tcp.read_to_end(&mut got);
                    assert!(!got.windows(4).any(|w| w == b"HTTP") && got.first() == Some(&0x16));
                }
            });
        }
        // One byte after the other: the time is for all of them.
        let mut slow = tcp([127, 0, 0, 2], &node, None);
        slow.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let began = Instant::now();
        for byte in &hello {
            if slow.write_all(&[*byte]).is_err() {
                break;
            }
            let mut answer = [0];
            match slow.read(&mut answer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    });
    is_served(&node, &friend);
    assert_eq!(endpoint.requests().len(), 1);
    node.wait_for_notice(Notice::MeshStranger, "127.0.0.2: ");
    node.is_well();
}

fn is_turned_away(what: &str, node: &Node, config: ClientConfig) {
    for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let mut stream = tls(config.clone(), tcp(from, node, None));
        let (got, ended) = ask(&mut stream, GET);
        assert!(got.is_empty(), "{what}: {}", got.escape_ascii());
        assert!(ended.is_err(), "{what}: not even an orderly end");
    }
}

#[test]
fn tls_clients_that_are_no_peers_are_turned_away() {
    let (node, endpoint, friend) = scene();
    is_turned_away("an unknown key", &node, Identity::new().config());
    is_turned_away("no key", &node, with_protocol(builder(true).with_no_client_auth()));
    let x509 = |raw| {
        let certificate = CertificateDer::from(bytes(CERTIFICATE));
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(bytes(CERTIFIED)));
        with_protocol(builder(raw).with_client_auth_cert(vec![certificate], key).expect("a client"))
    };
    is_turned_away("X.509", &node, x509(false));
    is_turned_away("X.509 for a raw key", &node, x509(true));
    let protocols: [&[&[u8]]; 4] = [&[], &[b"h2"], &[b"http/1.1"], &[b"exmesh/2"]];
    for protocols in protocols {
        // Even with a known key.
        let mut config = friend.config();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        is_turned_away("another protocol", &node, config);
    }
    let mut both = friend.config();
    both.alpn_protocols.insert(0, b"h2".to_vec());
    let mut stream = tls(both, tcp([127, 0, 0, 2], &node, None));
    stream.write_all(GET).expect("sent");
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    assert_eq!(stream.conn.alpn_protocol(), Some(PROTOCOL));
    assert_eq!(endpoint.requests().len(), 1);
    drop(stream);
    eventually("no connection is left", || node.open_sockets() == 0);
    node.is_well();
}

/// Those from addresses where no peer is known cannot take the places of peers.
#[test]
fn idle_strangers_do_not_keep_peers_out() {
    let (node, _endpoint, friend) = scene();
    let strangers: Vec<_> = (0..200).map(|_| tcp([127, 0, 0, 2], &node, None)).collect();
    for _ in 0..20 {
        is_served(&node, &friend);
    }
    // All of them are disconnected, and nothing is left of them.
    for mut stranger in strangers {
        let ended = stranger.read(&mut [0]);
        assert!(
            matches!(&ended, Ok(0)) || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
        );
    }
    eventually("no connection is left", || node.open_sockets() == 0);
}

#[test]
fn a_peer_that_breaks_the_rules_harms_only_itself() {
    let (node, endpoint, friend) = scene();
    let refused = |request: &[u8]| {
        let mut stream = known(&friend, &node);
        stream.write_all(request).expect("sent");
        read_head(&mut stream)
    };
    assert!(refused(b"\x16\x03\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(refused(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 505 "));
    for service in [
        "",
        "Exmesh-Service: B\r\n",
        "Exmesh-Service: \r\n",
        "Exmesh-Service: a.test\r\n",
        "Exmesh-Service: \u{ff}\r\n",
    ] {
        let head = refused(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{service}\r\n").as_bytes());
        assert!(
            head.starts_with("HTTP/1.1 421 ") && head.contains("exmesh-refused: not-here\r\n"),
            "{head}"
        );
    }
    assert!(endpoint.requests().is_empty());
    // A handshake, and then nothing; and one that ends without a word.
    let mut idle = known(&friend, &node);
    idle.conn.complete_io(&mut idle.sock).expect("a handshake");
    let mut rude = known(&friend, &node);
    rude.write_all(&GET[..10]).expect("sent");
    rude.sock.shutdown(Shutdown::Both).expect("open");
    is_served(&node, &friend);
    drop((idle, rude));
    // Garbage after the handshake, and after a request.
    let record = [&[0x17, 3, 3, 0, 40][..], &[9; 40]].concat();
    for garbage in [vec![record.clone()], vec![record.repeat(3)], vec![record.clone(); 3]] {
        for asks in [false, true] {
            let mut broken = known(&friend, &node);
            broken.conn.complete_io(&mut broken.sock).expect("a handshake");
            if asks {
                broken.write_all(GET).expect("sent");
                endpoint.wait_for_requests(1);
                endpoint.forget();
            }
            for part in &garbage {
                // The node may have closed the connection before the last one.
                let _ = broken.sock.write_all(part);
            }
            let mut got = Vec::new();
            let error = broken.read_to_end(&mut got).expect_err("an alert");
            assert!(
                error.to_string().contains("BadRecordMac")
                    || error.kind() == ErrorKind::ConnectionReset,
                "{error}"
            );
        }
    }
    eventually("no connection is left", || node.open_sockets() == 0);
    node.is_well();
}

/// Requests of a peer go to upstreams on this node only.
#[test]
fn a_request_of_a_peer_is_not_sent_to_a_third_node() {
    let [a, b, c] = nodes();
    let endpoint = Endpoint::start();
    c.routes(std::slice::from_ref(&endpoint.address));
    b.routes(&[b.peer(&c)]);
    a.routes(&[a.peer(&b)]);
    let answer = a.client().ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(answer.status, 503);
    assert!(endpoint.requests().is_empty());
}
