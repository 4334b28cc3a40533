//! Long bodies: whole, and never far ahead of the side that takes them.

use std::io::Write;
use std::time::{Duration, Instant};

use mesh_core::calls::Framing;

use super::requests::scene;
use crate::support::client::{Client, End, get, post};
use crate::support::scene::Scene;
use crate::support::vm::{A_WHILE, Part, Vm};
use crate::support::wire::{self, Length};

/// What the queues of a call, the gateway's buffers and the sockets hold together at the most.
const MAX_AHEAD: usize = 12 << 20;

/// Bytes that show it when a part is lost, doubled or moved.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8 ^ (i >> 16) as u8).collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body
        .chunks(size)
        .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    [chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
}

#[test]
fn long_uploads_arrive_whole() {
    let vm = Vm::echoing();
    let scene = scene(&vm);
    let body = pattern(3 << 20);
    let expected = [b"POST /\n", body.as_slice()].concat();
    let mut requests = vec![post(&format!("Content-Length: {}\r\n", body.len()), "").into_bytes()];
    requests[0].extend_from_slice(&body);
    for size in [7, 1000, 70_000, 3 << 20] {
        let mut request = post("Transfer-Encoding: chunked\r\n", "").into_bytes();
        request.extend(chunked(&body, size));
        requests.push(request);
    }
    let mut client = scene.client();
    for request in requests {
        let mut sender = client.sender();
        let sending = std::thread::spawn(move || sender.write_all(&request).expect("sent"));
        assert!(client.response().body == expected);
        sending.join().expect("no panic");
    }
    drop(client);
    scene.ends_clean();
}

/// Parts of any size that the process asks for.
#[test]
fn bodies_are_read_in_parts() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let body = pattern(100_000);
    for request in [
        [post(&format!("Content-Length: {}\r\n", body.len()), "").as_bytes(), &body].concat(),
        [post("Transfer-Encoding: chunked\r\n", "").as_bytes(), &chunked(&body, 999)].concat(),
    ] {
        for max in [0, 1, 777, 99_999, usize::MAX] {
            let mut client = scene.client();
            client.send(&request);
            let (call, _) = vm.take();
            let mut read = Vec::new();
            while let Part::Data(part) = call.read(max) {
                assert!(!part.is_empty() && part.len() <= max.max(1));
                read.extend(part);
            }
            assert!(read == body, "{max}");
            assert!(call.respond(200, b"", false));
            assert_eq!(client.response().status, 200);
        }
    }
    scene.ends_clean();
}

#[test]
fn an_upload_waits_for_the_process() {
    let vm = Vm::start();
    let scene = scene(&vm);
    let body = pattern(64 << 20);
    let mut client = scene.client();
    client.send(post(&format!("Content-Length: {}\r\n", body.len()), ""));
    let mut sender = client.sender();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        let mut n = 0;
        while n < sent.len() {
            match sender.write(&sent[n..sent.len().min(n + 65_536)]) {
                Ok(more) => n += more,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    let (call, _) = vm.take();
    // Nothing tells that no more will come but time.
    let ahead = || scene.mesh.service_stats().request_body_bytes as usize;
    let mut before = usize::MAX;
    while ahead() != before {
        before = ahead();
        std::thread::sleep(A_WHILE);
    }
    assert!(before <= 256 * 1024 + 16 * 1024, "{before} bytes were taken from the client");
    assert_eq!(call.read_all().map(|read| read == body), Some(true));
    assert!(call.respond(200, b"", false));
    assert_eq!(client.response().status, 200);
    sending.join().expect("no panic");
    drop((client, call));
    scene.ends_clean();
}

#[test]
fn a_response_waits_for_the_client() {
    let body = pattern(32 << 20);
    for framing in [Framing::Length, Framing::Chunked] {
        let vm = Vm::start();
        let scene = scene(&vm);
        let mut client = Client::connect_small(scene.mesh.address());
        client.send(get("Connection: close\r\n"));
        let (call, _) = vm.take();
        let length = body.len().to_string();
        let fields = [("content-length", length.as_str())];
        call.head(200, if framing == Framing::Length { &fields } else { &[] }, framing);
        let mut sent = 0;
        let mut still_since = Instant::now();
        while still_since.elapsed() < A_WHILE {
            let n = call.write_now(&body[sent..]);
            sent += n;
            if n > 0 {
                still_since = Instant::now();
            }
        }
        assert!((1 << 20..=MAX_AHEAD).contains(&sent), "{sent} bytes were accepted");
        let rest = body[sent..].to_vec();
        let writing = std::thread::spawn(move || call.write(&rest) && call.0.finish());
        assert_eq!(client.read_to_end(), End::Closed);
        let read = client.buffer.split_off(wire::head_size(&client.buffer).expect("a head"));
        let framing = match framing {
            Framing::Chunked => Length::Chunked,
            _ => Length::Known(body.len()),
        };
        let read = wire::body(&read, framing).expect("a good body");
        assert!(read.done && read.body == body);
        assert!(writing.join().expect("no panic"));
        drop(client);
        scene.ends_clean();
    }
}

/// Queues share `limits.buffer_bytes` with the other buffers. Once it is used up they are as long as a small buffer, and
/// everything still arrives.
#[test]
fn queues_count_in_the_budget_for_buffers() {
    const SMALL: usize = 16 * 1024;
    let vm = Vm::start();
    // Three quarters are for buffers.
    let scene = Scene::new(|config| config.limits.buffer_bytes = (1 << 20) / 3 * 4);
    scene.route_to(&[vm.at(&scene.endpoint.address)]);
    let body = pattern(1 << 20);
    let mut waiting = Vec::new();
    let mut queued = Vec::new();
    for _ in 0..8 {
        let mut client = scene.client();
        client.send(post(&format!("Content-Length: {}\r\n", body.len()), ""));
        let before = scene.mesh.service_stats().request_body_bytes as usize;
        let mut sender = client.sender();
        let sent = body.clone();
        let sending = std::thread::spawn(move || sender.write_all(&sent).expect("sent"));
        let (call, _) = vm.take();
        let ahead = || scene.mesh.service_stats().request_body_bytes as usize - before;
        let (mut seen, mut still_since) = (0, Instant::now());
        while still_since.elapsed() < A_WHILE {
            if ahead() != seen {
                (seen, still_since) = (ahead(), Instant::now());
            }
        }
        queued.push(seen);
        waiting.push((client, call, sending));
    }
    let total: usize = queued.iter().sum();
    assert!(queued[0] > 8 * SMALL, "the first has room: {queued:?}");
    assert!(queued[7] <= 2 * SMALL, "the last has a small buffer: {queued:?}");
    assert!(total <= (1 << 20) + 8 * 2 * SMALL, "{queued:?}");
    for (mut client, call, sending) in waiting {
        assert_eq!(call.read_all().map(|read| read == body), Some(true));
        let answering = std::thread::spawn({
            let body = body.clone();
            move || call.respond(200, &body, false)
        });
        assert!(client.response().body == body);
        assert!(answering.join().expect("no panic"));
        sending.join().expect("no panic");
    }
    // All of it has been returned.
    scene.mesh.wait_idle();
    let mut client = scene.client();
    client.send(get(""));
    let (call, _) = vm.take();
    let length = body.len().to_string();
    call.head(200, &[("content-length", &length)], Framing::Length);
    // The head is in the queue, too.
    assert!(call.write_now(&body) >= 250 * 1024);
    client.reset();
    drop(call);
    scene.ends_clean();
}

/// The process answers before it has read the body, and does not read it at all.
#[test]
fn a_response_may_come_before_the_body_is_read() {
    let vm = Vm::start();
    let scene = scene(&vm);
    for read in [false, true] {
        let body = pattern(8 << 20);
        let mut client = scene.client();
        client.send(post(&format!("Content-Length: {}\r\n", body.len()), ""));
        let mut sender = client.sender();
        let sending = std::thread::spawn(move || drop(sender.write_all(&body)));
        let (call, _) = vm.take();
        if read {
            assert!(matches!(call.read(1000), Part::Data(_)));
        }
        assert!(call.respond(413, b"too much", false));
        let answer = client.response();
        assert_eq!((answer.status, answer.body.as_slice()), (413, &b"too much"[..]));
        // Its rest must not be taken for a request.
        assert_ne!(client.read_to_end(), End::Silent);
        sending.join().expect("no panic");
        assert!(call.read_all().is_none(), "the client is gone");
    }
    scene.ends_clean();
}

/// Both directions at once.
#[test]
fn a_body_can_be_sent_back_while_it_comes() {
    let vm = Vm::serving(|call| {
        let Some(_) = call.take() else { return };
        call.head(200, &[], Framing::Chunked);
        while let Part::Data(part) = call.read(50_000) {
            assert!(call.write(&part));
        }
        assert!(call.0.finish());
    });
    let scene = scene(&vm);
    let body = pattern(16 << 20);
    let mut client = scene.client();
    client.send(post("Transfer-Encoding: chunked\r\n", ""));
    let mut sender = client.sender();
    let sent = chunked(&body, 100_000);
    let sending = std::thread::spawn(move || sender.write_all(&sent).expect("sent"));
    assert!(client.response().body == body);
    sending.join().expect("no panic");
    drop(client);
    scene.ends_clean();
}
