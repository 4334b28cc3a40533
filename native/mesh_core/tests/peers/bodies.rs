//! Bodies over a hop: whole, unchanged and in time, whatever their size and pace.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use mesh_core::Config;

use crate::nodes::{Node, nodes, nodes_with};
use crate::support::client::{Client, End, get_target};
use crate::support::endpoint::{Do, Endpoint, reply, send};
use crate::support::eventually;
use crate::support::http2::{self, Peer, answer};
use crate::support::run;

const MIB: usize = 1024 * 1024;
/// How many handshakes at once a busy machine does in the time of one, without optimisation.
const CLIENTS: usize = 64;

/// Bytes that show where they belong.
fn pattern(n: usize) -> Vec<u8> {
    (0..n.div_ceil(4) as u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_be_bytes())
        .take(n)
        .collect()
}

fn hop(config: &Config) -> ([Node; 2], Endpoint) {
    let [a, b] = nodes_with(config);
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    ([a, b], endpoint)
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body.chunks(size);
    let mut all: Vec<u8> = chunks
        .flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat())
        .collect();
    all.extend_from_slice(b"0\r\n\r\n");
    all
}

#[test]
fn long_bodies_pass_whole_in_both_directions() {
    let ([a, _b], endpoint) = hop(&Config::default());
    let long = pattern(16 * MIB + 3);
    let short = pattern(2 * MIB + 3);
    for (fields, body, bytes) in [
        (format!("Content-Length: {}", long.len()), long.clone(), long),
        ("Transfer-Encoding: chunked".to_string(), short.clone(), chunked(&short, 70_001)),
    ] {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        let take = Do::Take(length);
        endpoint.script(vec![take, Do::Body, send([head.as_bytes(), &bytes].concat())]);
        let mut client = a.client();
        let mut sender = client.sender();
        let up = std::thread::spawn(move || {
            sender.write_all(
                format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n").as_bytes(),
            )?;
            sender.write_all(&bytes)
        });
        let most = client.read_exact(length).expect("most of it");
        client.buffer.splice(..0, most);
        let got = client.response();
        assert!(got.status == 200 && got.body == body, "{} of {length} bytes", got.body.len());
        up.join().expect("no panic").expect("sent");
        let seen = endpoint.requests().pop().expect("a request");
        assert!(seen.whole && seen.body == body, "{} of {length} bytes", seen.body.len());
    }
}

/// The client sends and reads a little at a time, with buffers that hold little.
#[test]
fn slow_clients_get_and_send_all() {
    let ([a, _b], endpoint) = hop(&Config::default());
    let body = pattern(MIB);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n");
    endpoint.script(vec![Do::Body, send([head.as_bytes(), &body].concat())]);
    let client = Client::connect_small(a.mesh.address());
    let mut socket = client.sender();
    socket
        .write_all(
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {MIB}\r\n\r\n").as_bytes(),
        )
        .expect("sent");
    for piece in body.chunks(1499) {
        socket.write_all(piece).expect("sent");
    }
    let mut got = Vec::new();
    let mut piece = [0; 1201];
    while got.len() < head.len() + MIB {
        let n = socket.read(&mut piece).expect("more");
        assert!(n > 0, "after {} bytes", got.len());
        got.extend_from_slice(&piece[..n]);
    }
    assert!(got.ends_with(&body));
    assert!(endpoint.requests()[0].body == body);
}

/// Both nodes have accepted all that they hold. The rest must come without a further push.
#[test]
fn the_end_of_a_response_reaches_a_client_that_paused() {
    let ([a, b], endpoint) = hop(&Config::default());
    let body = pattern(4 * MIB);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    endpoint.script(vec![Do::Body, send([head.as_bytes(), &body].concat()), Do::Reach("sent")]);
    let mut client = Client::connect_small(a.mesh.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.read_until(b"\r\n\r\n").expect("a head");
    // Each response is the last on its connection from here on.
    b.mesh.gateway.lame_duck();
    let got = client.response();
    assert!(got.body == body, "{} bytes", got.body.len());
}

#[test]
fn an_early_response_ends_an_upload() {
    let ([a, b], endpoint) = hop(&Config::default());
    let body = pattern(400_000);
    let no = format!("HTTP/1.1 413 Content Too Large\r\nContent-Length: {}\r\n\r\n", body.len());
    for n in [200_000, 64 * MIB] {
        endpoint.script(vec![Do::Take(100_000), send([no.as_bytes(), &body].concat()), Do::Close]);
        let mut client = a.client();
        let mut sender = client.sender();
        let up = std::thread::spawn(move || {
            let _ =
                write!(sender, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {n}\r\n\r\n");
            // Goes on until it is disconnected.
            while sender.write_all(&[b'x'; 65_536]).is_ok() {}
        });
        let got = client.try_response(false);
        // An endpoint that closes with unread bytes resets: its response may be cut short, but not changed.
        match got {
            Ok(got) => assert!(got.status == 413 && got.body == body),
            Err((_, Some(got))) => assert!(body.starts_with(&got.body)),
            Err((end, None)) => assert_eq!(end, End::Reset),
        }
        client.hang_up();
        up.join().expect("no panic");
    }
    for node in [&a, &b] {
        node.mesh.wait_idle();
        node.is_well();
    }
}

/// Both directions at once: each part of the response follows a part of the request.
#[test]
fn a_response_may_begin_while_the_request_goes_on() {
    let ([a, _b], endpoint) = hop(&Config::default());
    let mut script = vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")];
    for n in 1..=20 {
        script.extend([Do::Take(n * 10_000), send("5\r\nhello\r\n")]);
    }
    script.extend([Do::Body, send("0\r\n\r\n")]);
    endpoint.script(script);
    let mut client = a.client();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n");
    for n in 1..=20 {
        client.send([b'x'; 10_000]);
        let mut all = 0;
        while all < n {
            client.read_until(b"hello\r\n").expect("a part");
            all = client.buffer.windows(5).filter(|w| w == b"hello").count();
            if all < n {
                client.read_exact(0).expect("open");
                std::thread::yield_now();
                let seen = client.buffer.len();
                eventually("another part", || {
                    let mut piece = [0; 4096];
                    let read = client.sender().read(&mut piece).unwrap_or(0);
                    client.buffer.extend_from_slice(&piece[..read]);
                    client.buffer.len() > seen
                });
            }
        }
    }
    assert_eq!(client.response().body, b"hello".repeat(20));
}

/// Server-sent events, and a long poll: nothing waits for more.
#[test]
fn events_come_one_by_one() {
    let ([a, _b], endpoint) = hop(&Config::default());
    let mut script = vec![send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")];
    const GATES: [&str; 4] = ["0", "1", "2", "3"];
    for gate in GATES {
        script.extend([send(format!("data: {gate}\n\n")), Do::Gate(gate)]);
    }
    script.push(Do::Close);
    endpoint.script(script);
    let mut client = a.client();
    client.send(get_target("/events"));
    for gate in GATES {
        client.read_until(format!("data: {gate}\n\n").as_bytes()).expect("an event");
        endpoint.open_gate(gate);
    }
    assert_eq!(client.response().body, b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n");
}

/// The endpoint learns that a client has left, also one that waits for its response.
#[test]
fn clients_that_leave_are_noticed_by_the_endpoint() {
    let ([a, b], endpoint) = hop(&Config::default());
    endpoint.usually(vec![Do::Body, Do::UntilClosed]);
    for how in 0..3 {
        let mut client = a.client();
        if how == 0 {
            client.send(get_target("/poll"));
        } else {
            client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 900000\r\n\r\n");
            client.send([0; 200_000]);
        }
        endpoint.wait_for_requests(how + 1);
        // The end of the sending side alone leaves a client that waits for its response.
        if how < 2 {
            client.reset()
        } else {
            client.hang_up()
        }
        eventually("the endpoint's connection ends", || endpoint.open_connections() == 0);
    }
    for node in [&a, &b] {
        node.mesh.wait_idle();
        eventually("nothing is in flight", || node.served_for_peers().in_flight == 0);
    }
}

#[test]
fn many_at_once_get_their_own_answers() {
    let ([a, b], endpoint) = hop(&Config { workers: 2, ..Config::default() });
    let address = a.mesh.address();
    let clients = (0..CLIENTS).map(|i| {
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            for n in 0..20 {
                let target = format!("/{i}/{n}");
                let body = "z".repeat(i * 300);
                let length = body.len();
                let ask = format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{body}");
                assert_eq!(client.ask(ask).body, target.as_bytes());
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("no panic"));
    let requests = endpoint.requests();
    assert_eq!(requests.len(), CLIENTS * 20);
    let whole = requests.iter().all(|r| {
        let client: usize =
            r.target.split('/').nth(1).and_then(|i| i.parse().ok()).expect("a number");
        r.whole && r.body.len() == client * 300
    });
    assert!(whole);
    for node in [&a, &b] {
        node.is_well();
    }
}

#[test]
fn uploads_and_downloads_of_http2_clients_pass_whole() {
    let ([a, _b], endpoint) = hop(&Config::default());
    let body = pattern(4 * MIB);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    endpoint.usually(vec![Do::Body, send([head.as_bytes(), &body].concat())]);
    run(async {
        let mut peer = Peer::connect(a.mesh.address()).await;
        let length = body.len().to_string();
        let length = [("content-length", length.as_str())];
        let mut answers = Vec::new();
        for fields in [&length[..], &[], &length] {
            let request = http2::request(Method::PUT, "a.test", "/", fields);
            let (response, mut up) = peer.begin(request, false).await;
            let body = Bytes::from(body.clone());
            let sent = tokio::spawn(async move { http2::send(&mut up, body, true).await });
            answers.push((tokio::spawn(answer(response)), sent));
        }
        for (got, sent) in answers {
            let got = got.await.expect("no panic").expect("an answer");
            sent.await.expect("no panic").expect("sent");
            assert!(got.status == 200 && got.body == body);
        }
    });
    assert!(endpoint.requests().iter().all(|request| request.whole && request.body == body));
    assert_eq!(endpoint.requests().len(), 3);
}

/// A request that waits for its answer longer than a peer is watched.
#[test]
fn a_long_poll_is_not_silence() {
    let [a, b] = nodes();
    let endpoint = Endpoint::start();
    b.routes(std::slice::from_ref(&endpoint.address));
    a.routes(&[a.peer(&b)]);
    endpoint.script(vec![
        Do::Body,
        Do::Gate("news"),
        send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews"),
    ]);
    let mut client = a.client();
    let began = Instant::now();
    client.send(get_target("/poll"));
    endpoint.wait_for_requests(1);
    // More than a peer has to answer a question.
    eventually("3 seconds pass", || began.elapsed() > Duration::from_secs(3));
    endpoint.open_gate("news");
    assert_eq!(client.response().body, b"news");
    endpoint.script(reply("HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(client.ask(get_target("/next")).status, 204);
    assert_eq!(a.stats().upstream_connections_opened, 1);
}

/// As long as the endpoint likes: a pause is no loss, although the node's kernel accepts nothing meanwhile.
#[test]
fn an_endpoint_may_pause_an_upload_for_long() {
    let ([a, _b], endpoint) = hop(&Config::default());
    // More than all buffers on the way.
    let body = vec![b'x'; 64 * MIB];
    endpoint.script(vec![Do::Gate("read"), Do::Take(64 * MIB), Do::Body, Do::Answer]);
    let mut client = a.client();
    let mut sender = client.sender();
    let length = body.len();
    let up = std::thread::spawn(move || {
        let head =
            format!("POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
        sender.write_all(head.as_bytes())?;
        sender.write_all(&body)
    });
    endpoint.wait_for_requests(1);
    // A peer that does not answer for five seconds is lost.
    std::thread::sleep(Duration::from_secs(8));
    assert!(!up.is_finished(), "the pause must be felt");
    endpoint.open_gate("read");
    assert_eq!(client.response().body, b"/slow");
    up.join().expect("no panic").expect("sent");
    assert!(endpoint.requests()[0].whole);
}
