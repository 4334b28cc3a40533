//! Clients that cost more than they ask for (RFC 9113 section 10.5): their connection is closed or
//! held up, and the others are served on.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use mesh_core::Config;

use crate::support::client::{Client, get};
use crate::support::endpoint::{Do, Endpoint};
use crate::support::frames::*;
use crate::support::mesh::Mesh;

fn bench() -> (Endpoint, Mesh) {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    (endpoint, mesh)
}

fn others_are_served(mesh: &Mesh) {
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 200);
    assert_eq!(Raw::open(mesh.address()).ask(1, &GET).status(1), 200);
}

/// Reads to the GOAWAY, if one comes before the end.
fn dismissed(raw: &mut Raw) -> Option<u32> {
    loop {
        match raw.next() {
            Ok(frame) if frame.kind == GOAWAY && frame.error() != 0 => return Some(frame.error()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Sends the same bytes again and again, until nobody takes them any more.
fn flood(mesh: &Mesh, first: &[u8], again: &[u8]) {
    const MOST: usize = 64 << 20;
    let mut socket = TcpStream::connect(mesh.address()).expect("connect");
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), first].concat()).expect("write");
    socket.set_nonblocking(true).expect("nonblocking");
    let batch = again.repeat(1000);
    let (mut sent, mut at, mut rounds) = (0, 0, 0);
    while rounds < 20 {
        match socket.write(&batch[at..]) {
            Ok(n) => {
                sent += n;
                at = (at + n) % batch.len();
                rounds = 0;
                assert!(sent < MOST, "nobody minds");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Held up, or only slow? Others show how time goes by.
                others_are_served(mesh);
                rounds += 1;
            }
            Err(_) => break,
        }
    }
    others_are_served(mesh);
}

/// CVE-2023-44487: streams that are opened only to be reset.
#[test]
fn rapid_resets_end_the_connection() {
    let (endpoint, mesh) = bench();
    let mut raw = Raw::open(mesh.address());
    let mut batch = Vec::new();
    for stream in 0..2000 {
        let stream = 2 * stream + 1;
        batch.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET)));
        batch.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    // It may be closed before all of them are written.
    let _ = raw.0.try_send(&batch);
    assert!(matches!(dismissed(&mut raw), Some(ENHANCE_YOUR_CALM) | None));
    mesh.eventually("it is gone", |stats| stats.gateway.connections_open == 0);
    assert!(endpoint.requests().len() < 500, "the endpoint was asked too often");
    others_are_served(&mesh);
}

/// What is given up before anything was done for it costs the endpoint nothing, few as they may be.
#[test]
fn a_request_that_is_given_up_at_once_reaches_no_endpoint() {
    let (endpoint, mesh) = bench();
    let mut raw = Raw::open(mesh.address());
    assert_eq!(raw.ask(1, &GET).status(1), 200);
    let batch: Vec<u8> = (1..=10)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let ask = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
            [ask, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    raw.0.send(batch);
    mesh.eventually("all of them are over", |stats| {
        (mesh.service_stats().requests, stats.total.in_flight) == (11, 0)
    });
    assert_eq!(raw.ask(101, &GET).status(101), 200);
    assert_eq!(endpoint.requests().len(), 2);
    assert_eq!(endpoint.look(|state| state.connections.len()), 1);
}

/// The same, slowly enough that every request reaches the endpoint before it is given up.
#[test]
fn resets_of_requests_in_flight_end_the_connection() {
    let (endpoint, mesh) = bench();
    let mut raw = Raw::open(mesh.address());
    for n in 0..1000 {
        endpoint.script(vec![Do::UntilClosed]);
        let stream = 2 * n + 1;
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
        let give_up = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if raw.0.try_send(&ask).is_err() {
            break;
        }
        mesh.eventually("it is asked, or all is over", |stats| {
            let asked = mesh.service_stats().requests > u64::from(n);
            asked || stats.gateway.connections_open == 0
        });
        if raw.0.try_send(&give_up).is_err() {
            break;
        }
    }
    assert!(matches!(dismissed(&mut raw), Some(ENHANCE_YOUR_CALM) | None));
    mesh.eventually("it is gone", |stats| stats.gateway.connections_open == 0);
    assert!(mesh.service_stats().requests < 500);
    endpoint.forget();
    others_are_served(&mesh);
}

/// CVE-2024-27316: a head that does not end.
#[test]
fn a_flood_of_continuation_is_stopped() {
    let (_endpoint, mesh) = bench();
    let first = frame(HEADERS, END_STREAM, 1, &block(&GET));
    flood(&mesh, &first, &frame(CONTINUATION, 0, 1, &block(&[("x", "y")])));
    flood(&mesh, &first, &frame(CONTINUATION, 0, 1, &[]));
}

/// RFC 7541 section 7.3: a few bytes that stand for many.
#[test]
fn an_hpack_bomb_is_refused() {
    let (endpoint, mesh) = bench();
    let mut raw = Raw::open(mesh.address());
    // One long field put into the dynamic table (literal with incremental indexing), and then
    // named again and again: 4000 bytes for each byte sent.
    let long = "x".repeat(4000);
    let mut head = block(&GET);
    let literal = block(&[("bomb", &long)]);
    head.push(0x40);
    head.extend_from_slice(&literal[1..]);
    head.extend(std::iter::repeat_n(0xbe, 10_000));
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &head);
    // Told with a 431, or closed.
    while let Ok(frame) = raw.next() {
        if frame.kind == GOAWAY || frame.kind == RST_STREAM || frame.kind == HEADERS {
            break;
        }
    }
    assert!(endpoint.requests().is_empty());
    others_are_served(&mesh);
}

/// RFC 9113 section 6.5.3: settings that nobody waits to have acknowledged.
#[test]
fn a_flood_of_settings_is_held_up() {
    let (_endpoint, mesh) = bench();
    flood(&mesh, &[], &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
}

/// RFC 9113 section 6.7: pings whose answers nobody reads.
#[test]
fn a_flood_of_pings_is_held_up() {
    let (_endpoint, mesh) = bench();
    flood(&mesh, &[], &frame(PING, 0, 0, &[7; 8]));
}

/// RFC 9113 section 10.5: frames without content, which no window holds back.
#[test]
fn a_flood_of_empty_data_is_stopped() {
    let (_endpoint, mesh) = bench();
    let mut post = GET;
    post[0] = (":method", "POST");
    let head = frame(HEADERS, END_HEADERS, 1, &block(&post));
    flood(&mesh, &head, &frame(DATA, 0, 1, &[]));
}

/// RFC 9113 section 5.1.2: streams beyond the number that was granted.
#[test]
fn streams_beyond_the_limit_are_refused() {
    let (endpoint, mesh) = bench();
    for _ in 0..200 {
        endpoint.script(vec![Do::UntilClosed]);
    }
    let mut raw = Raw::open(mesh.address());
    let batch: Vec<u8> = (0..200)
        .flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&GET)))
        .collect();
    raw.0.send(batch);
    assert_eq!(raw.until(RST_STREAM, 257).error(), REFUSED_STREAM);
    endpoint.wait_for_requests(128);
    assert_eq!(mesh.service_stats().in_flight, 128);
    endpoint.forget();
    others_are_served(&mesh);
}
