//! How many connections an endpoint gets, and which requests wait.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use h2::server::Builder;
use http::Method;
use mesh_core::observe::Notice;
use mesh_core::{Config, UpstreamAddr};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::observer::Observer;
use crate::support::client::{Client, get};
use crate::support::h2_endpoint::{H2Endpoint, RawEndpoint, echo, grpc};
use crate::support::http2::{Peer, answer, request, send};
use crate::support::mesh::Mesh;
use crate::support::run;
use crate::support::{PATIENCE, eventually};

/// An endpoint that accepts `most` streams at once on a connection, and answers when the semaphore has a permit.
fn limited(most: u32, gate: &Arc<Semaphore>, in_flight: &Arc<AtomicUsize>) -> H2Endpoint {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(most);
    let (gate, in_flight) = (Arc::clone(gate), Arc::clone(in_flight));
    H2Endpoint::with(settings, move |_, respond| {
        let (gate, in_flight) = (Arc::clone(&gate), Arc::clone(&in_flight));
        async move {
            in_flight.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.expect("open").forget();
            in_flight.fetch_sub(1, Ordering::Relaxed);
            grpc(respond, "done");
        }
    })
}

#[test]
fn requests_beyond_an_endpoints_limit_get_another_connection() {
    let (gate, in_flight) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let endpoint = limited(4, &gate, &in_flight);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut waiting = Vec::new();
        for _ in 0..40 {
            waiting.push(peer.begin(request(Method::POST, "a.test", "/", &[]), true).await.0);
        }
        eventually("all have arrived", || in_flight.load(Ordering::Relaxed) == 40);
        assert_eq!(endpoint.accepted(), 10);
        gate.add_permits(1000);
        for response in waiting {
            assert_eq!(answer(response).await.expect("an answer").body, b"done");
        }
        // One is kept for the next requests, the others are closed after a while.
        eventually("idle connections are closed", || endpoint.open() == 1);
        assert_eq!(peer.get("/").await.body, b"done");
        assert_eq!(endpoint.accepted(), 10);
    });
}

#[test]
fn requests_wait_in_their_order_when_there_are_connections_enough() {
    let (gate, in_flight) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let endpoint = limited(1, &gate, &in_flight);
    let mut config = Config::default();
    config.timeouts.connect = Some(Duration::from_secs(60));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let (mut peers, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut peer = Peer::connect(mesh.address()).await;
            for _ in 0..100 {
                waiting.push(peer.begin(request(Method::POST, "a.test", "/", &[]), true).await.0);
            }
            peers.push(peer);
        }
        eventually("as many as may have arrived", || in_flight.load(Ordering::Relaxed) == 128);
        gate.add_permits(1000);
        for response in waiting {
            assert_eq!(answer(response).await.expect("an answer").body, b"done");
        }
        assert_eq!(endpoint.accepted(), 128);
    });
}

#[test]
fn a_request_for_which_no_room_comes_is_answered_in_time() {
    let (gate, in_flight) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let endpoint = limited(0, &gate, &in_flight);
    let mut config = Config::default();
    config.timeouts.connect = Some(Duration::from_millis(300));
    let mesh = Mesh::to(config, &endpoint.address);
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 504);
}

#[test]
fn a_unix_socket_is_used() {
    let folder = std::env::temp_dir().join(format!("h2up-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("grpc.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
            let (socket, _) = listener.accept().await.expect("accept");
            let mut connection = h2::server::handshake(socket).await.expect("a handshake");
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::task::spawn_local(echo(request, respond));
            }
        });
    });
    let mesh = Mesh::to(Config::default(), &UpstreamAddr::Unix(path).http2());
    assert_eq!(Client::connect(mesh.address()).ask(get("")).body, b"GET /\n");
    drop(mesh);
    let _ = std::fs::remove_dir_all(folder);
}

/// The request does not reach it, and the operator hears what is wrong with which address.
#[test]
fn an_endpoint_that_does_not_speak_http2_is_named() {
    let answers: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "answers in HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "answers in TLS"),
        (b"", "closes the connection at the start of HTTP/2"),
        (b"220 mail.test ESMTP\r\n", "does not answer in HTTP/2"),
    ];
    for (bytes, what) in answers {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = UpstreamAddr::Tcp(listener.local_addr().expect("address")).http2();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accept");
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).expect("the preface");
                stream.write_all(bytes).expect("sent");
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let mesh = Mesh::to(Config::default(), &address);
        let observer = Observer::of(&mesh, None);
        for _ in 0..3 {
            assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 502, "{what}");
        }
        assert_eq!(observer.notice(Notice::NotHttp2), format!("{address} {what}"));
    }
}

/// A connection has as many as may be reset at once (`rapid_resets`), where the endpoint sets no limit.
#[test]
fn thousands_of_streams_are_open_at_once() {
    let (gate, in_flight) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let endpoint = limited(u32::MAX, &gate, &in_flight);
    let mut config = Config::default();
    config.timeouts.connect = Some(Duration::from_secs(60));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let (mut peers, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let mut peer = Peer::connect(mesh.address()).await;
            for _ in 0..100 {
                waiting.push(peer.begin(request(Method::POST, "a.test", "/", &[]), true).await.0);
            }
            peers.push(peer);
        }
        eventually("all have arrived", || in_flight.load(Ordering::Relaxed) == 2_000);
        assert_eq!((endpoint.accepted(), mesh.service_stats().in_flight), (20, 2_000));
        gate.add_permits(2_000);
        for response in waiting {
            assert_eq!(answer(response).await.expect("an answer").body, b"done");
        }
    });
    mesh.wait_idle();
}

/// As Cowboy does with a body that it has refused: what arrives of it takes the window of the connection for ever.
#[test]
fn a_body_that_nobody_reads_does_not_stop_other_calls() {
    let release = Arc::new(Semaphore::new(0));
    let released = Arc::clone(&release);
    let endpoint = H2Endpoint::start(move |request, respond| {
        let release = Arc::clone(&released);
        async move {
            if request.uri().path() == "/unread" {
                release.acquire().await.expect("open").forget();
            }
            echo(request, respond).await;
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (unread, mut upload) =
            peer.begin(request(Method::POST, "a.test", "/unread", &[]), false).await;
        // More than the window of a connection.
        let sending = tokio::spawn(async move {
            send(&mut upload, vec![b'x'; 100_000].into(), true).await.expect("upload");
        });
        let mut stuck = Vec::new();
        let until = Instant::now() + PATIENCE;
        loop {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, mut upload) =
                peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
            upload.send_data("hi".into(), true).expect("upload");
            let mut answered = tokio::spawn(answer(response));
            if let Ok(answer) = timeout(Duration::from_millis(200), &mut answered).await {
                assert_eq!(answer.expect("a task").expect("an answer").body, b"POST /\nhi");
                if endpoint.accepted() == 2 {
                    break;
                }
            } else {
                stuck.push((peer, answered));
            }
            assert!(Instant::now() < until, "no call got another connection");
        }
        // The calls that came before go on when there is a window.
        release.add_permits(1);
        for (_, answered) in stuck {
            assert_eq!(answered.await.expect("a task").expect("an answer").body, b"POST /\nhi");
        }
        sending.await.expect("a task");
        assert_eq!(
            answer(unread).await.expect("an answer").body.len(),
            100_000 + "POST /unread\n".len()
        );
    });
}

/// One after another would take a round trip each, while thousands of requests wait.
#[test]
fn requests_that_wait_open_their_connections_at_once() {
    let (all_came, come) = mpsc::channel();
    let mut open = Vec::new();
    let endpoint = RawEndpoint::start(move |number, connection| {
        open.push(connection);
        // MAX_CONCURRENT_STREAMS is 4. The first connection tells, the others wait for the last one.
        match number {
            0 => open[0].begin(&[0, 3, 0, 0, 0, 4]),
            9 => {
                open[1..].iter_mut().for_each(|it| it.begin(&[0, 3, 0, 0, 0, 4]));
                all_came.send(()).expect("the test listens");
            }
            _ => {}
        }
    });
    let mut config = Config::default();
    config.timeouts.connect = Some(PATIENCE);
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut waiting = Vec::new();
        for _ in 0..40 {
            waiting.push(peer.begin(request(Method::POST, "a.test", "/", &[]), true).await);
        }
        come.recv_timeout(PATIENCE).expect("ten connections");
    });
}
