//! Feeds [`TlsSocket`] with ciphertext that is cut at random, and reads and writes pieces of random sizes.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::mesh::{Mesh, Peer, PeerSpec};
use crate::transport::{TlsSocket, Transport, finish};

fn spec(mesh: &Mesh) -> PeerSpec {
    let (id, name) = ("peer".into(), "peer".into());
    PeerSpec { id, name, key: mesh.identity.public_key.clone(), addresses: Vec::new() }
}

/// Both ends of a connection whose bytes are cut into pieces of at most `most` bytes.
async fn pair(most: usize, seed: u64) -> (TlsSocket, TlsSocket) {
    let [a, b] = [(); 2].map(|()| Mesh::new(Default::default()).unwrap());
    b.set_peers(vec![spec(&a)]).unwrap();
    let peer = Peer::new(spec(&b), &a.identity, &Default::default()).unwrap();
    let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(near.local_addr().unwrap()).await.unwrap();
    let middle = near.accept().await.unwrap().0.into_split();
    let onward = TcpStream::connect(far.local_addr().unwrap()).await.unwrap().into_split();
    let server = far.accept().await.unwrap().0;
    tokio::task::spawn_local(cut(middle.0, onward.1, most, Rng::with_seed(seed)));
    tokio::task::spawn_local(cut(onward.0, middle.1, most, Rng::with_seed(!seed)));
    let client = TlsSocket::new(client, peer.connect().unwrap());
    let server = TlsSocket::new(server, b.identity.accept().unwrap());
    let (ours, theirs) = tokio::join!(client.handshake(), server.handshake());
    ours.and(theirs).unwrap();
    (client, server)
}

async fn cut(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, most: usize, mut rng: Rng) {
    let mut piece = vec![0; most];
    loop {
        let n = rng.usize(1..=most);
        match from.read(&mut piece[..n]).await {
            Ok(n) if n > 0 => to.write_all(&piece[..n]).await.unwrap(),
            _ => return,
        }
        if rng.bool() {
            tokio::task::yield_now().await;
        }
    }
}

async fn send(to: &TlsSocket, bytes: &[u8], mut rng: Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = rng.usize(1..=rest.len().min(100_000));
        match to.try_write(&rest[..n]) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|cx| to.poll_write_ready(cx)).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        if rng.bool() {
            tokio::task::yield_now().await;
        }
    }
    finish(to).await.unwrap();
}

async fn receive(from: &TlsSocket, mut rng: Rng) -> Vec<u8> {
    let (mut got, mut piece) = (Vec::new(), vec![0; 40_000]);
    loop {
        poll_fn(|cx| from.poll_read_ready(cx)).await.unwrap();
        let n = if rng.bool() { rng.usize(1..=64) } else { rng.usize(1..=piece.len()) };
        match from.try_read(&mut piece[..n]) {
            Ok(0) => return got,
            Ok(n) => got.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Both directions at once. Each ends when its sender ends it, with all that was sent.
    #[test]
    fn all_bytes_arrive_in_order(
        seed: u64,
        most in prop_oneof![1..8usize, 8..2_000usize, 2_000..70_000usize],
        sizes in (0..120_000usize, 0..120_000usize),
    ) {
        let scale = if most < 8 { 20 } else { 1 };
        let bytes = |n: usize| -> Vec<u8> { (0..n / scale).map(|i| (i / 3) as u8).collect() };
        let (up, down) = (bytes(sizes.0), bytes(sizes.1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let all = tokio::task::LocalSet::new().block_on(&runtime, async {
            let (client, server) = pair(most, seed).await;
            let rng = |n| Rng::with_seed(seed ^ n);
            let exchange = async {
                tokio::join!(
                    send(&client, &up, rng(1)),
                    send(&server, &down, rng(2)),
                    receive(&client, rng(3)),
                    receive(&server, rng(4)),
                )
            };
            tokio::time::timeout(Duration::from_secs(30), exchange).await
        });
        let (_, _, got_down, got_up) = all.expect("it ends");
        prop_assert!(got_up == up && got_down == down);
    }
}
