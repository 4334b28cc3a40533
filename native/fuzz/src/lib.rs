//! Fuzz targets for mesh_core as plain functions: `fuzz_targets/` hands them to cargo-fuzz, and a
//! stable `cargo test` replays the committed inputs and mutates them for a moment. Each panics when
//! the gateway breaks a promise; README.md lists what is promised.

#![forbid(unsafe_code)]

mod calls;
mod claims;
mod client;
mod frames;
mod gateway;
mod h2_endpoint;
mod input;
mod model;
mod reader;
mod second;
mod stream;

#[cfg(test)]
mod downgrade;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod sockets;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, OnceLock};

use mesh_wire::chunked::Output;
use mesh_wire::host::Host;
use mesh_wire::method::Method;
use mesh_wire::proxy_protocol::ProxyProtocol;
use mesh_wire::response::{self, ResponseOptions, ServerTiming};

use claims::*;
use gateway::{Cuts, MOST_FIELDS};
use model::{Framing, Hop};
use reader::Read;
use stream::read_stream;

/// The body of a file in `fuzz_targets/`. Without a fuzzer it is a program that runs the target on
/// the files it is given, so that a finding can be looked at with a debugger and a stable compiler.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$name(data));

        #[cfg(not(fuzzing))]
        fn main() {
            for path in std::env::args().skip(1) {
                $crate::$name(&std::fs::read(&path).expect(&path));
                println!("{path}: nothing to complain about");
            }
        }
    };
}

const MOST_PROXY_V2: usize = 4096;
const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// A request head is taken exactly when the naive reader takes it, however it arrives; what is
/// known about it and what is written for the endpoint are what the model says.
pub fn request_head(data: &[u8]) {
    let expected = match reader::request_head(data, MOST_FIELDS) {
        Read::Whole(head) => Read::Whole(model::request(head)),
        Read::Partial => Read::Partial,
        Read::Wrong(why) => Read::Wrong(why),
    };
    for cuts in Cuts::all(data) {
        let got = gateway::request_size(data, cuts);
        match (&expected, got) {
            (Read::Whole(Ok(request)), Ok(Some(size))) => assert_eq!(size, request.head.size),
            (Read::Whole(Ok(_)), got) => panic!("{cuts:?}: a good request is refused: {got:?}"),
            (Read::Whole(Err(_)) | Read::Wrong(_), Err(error)) => assert_refusal(error),
            (Read::Whole(Err(why)) | Read::Wrong(why), Ok(got)) => {
                panic!("{cuts:?}: it should be refused ({why}), but: {got:?}")
            }
            // Something may be wrong already, with the line that is not complete.
            (Read::Partial, Ok(None)) => {}
            (Read::Partial, Err(error)) => assert_refusal(error),
            (Read::Partial, Ok(Some(size))) => panic!("{cuts:?}: a head that is not whole: {size}"),
        }
    }
    let Read::Whole(Ok(request)) = expected else { return };
    gateway::with_head(data, |head| {
        assert_eq!(head.method(), request.head.method);
        let info = head.info;
        assert_eq!(info.minor, request.head.minor);
        assert_eq!(framing_of(info.body), request.framing);
        assert_eq!(info.keep_alive, request.keep_alive);
        assert_eq!(info.websocket, request.websocket);
        assert_eq!(info.names_fields, model::names_fields(&request.head.fields));
        assert_eq!(head.max_forwards, request.max_forwards);
        assert_same_host(head.host.as_ref(), request.host.as_ref());
        for (trusted, ip) in [(false, V4.into()), (true, V6.into())] {
            let hop: Hop<'_> = Hop { client: ip, ..gateway::hop(V4, trusted) };
            assert_forwarded(&gateway::write(head, hop), &request, hop);
        }
    });
}

/// A chunked body is followed exactly as the naive reader reads it, however it arrives: what goes
/// on is the same data in canonical chunks with the trailers that may go on, or the data alone, and
/// what is behind the body stays untouched. A response's sizes may be padded, a request's may not.
pub fn chunked(data: &[u8]) {
    for padded in [false, true] {
        chunked_of(data, padded);
    }
}

fn chunked_of(data: &[u8], padded: bool) {
    let expected = reader::chunked(data, padded);
    for cuts in Cuts::all(data) {
        for output in [Output::Chunked, Output::Data] {
            let decoder = decoder(output);
            let decoder = if padded { decoder.with_padded_sizes() } else { decoder };
            let passed = gateway::pass_chunked(data, cuts, decoder);
            let body = match (&expected, &passed) {
                (Read::Whole(body), Ok(passed)) if passed.done => body,
                (Read::Whole(_), Ok(_)) => panic!("{cuts:?}: the end was missed"),
                (Read::Whole(_), Err(why)) => panic!("{cuts:?}: a good body is refused: {why}"),
                (Read::Wrong(_), Err(_)) | (Read::Partial, Err(_)) => continue,
                (Read::Wrong(why), Ok(_)) => panic!("{cuts:?}: it should be refused: {why}"),
                (Read::Partial, Ok(passed)) => {
                    assert!(!passed.done, "{cuts:?}: an end that is none");
                    continue;
                }
            };
            let Ok(passed) = passed else { unreachable!() };
            assert_eq!(passed.consumed, body.size);
            match output {
                Output::Data => assert_eq!(passed.bytes, body.data),
                Output::Chunked => assert_canonical(&passed.bytes, body),
            }
        }
    }
}

/// A host is taken exactly when the grammar has it, comes out in one form however it was written,
/// and that form is its own.
pub fn host(data: &[u8]) {
    let expected = model::Host::read(data);
    let got = Host::parse(data);
    assert_same_host(got.as_ref().ok(), expected.as_ref());
    let Ok(host) = got else { return };
    let name = host.as_str();
    assert!(!name.is_empty() && !name.ends_with('.'));
    assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
    assert!(!name.contains(['/', '@', '"', '\\', '?', '#', '<', '>']));
    fn again(text: &str) -> Host<'_> {
        Host::parse(text.as_bytes()).expect("what it says itself")
    }
    assert_eq!((again(name).as_str(), again(name).port), (name, None));
    let with_port = format!("{name}:4000");
    let with_port = again(&with_port);
    assert_eq!((with_port.as_str(), with_port.port), (name, Some(4000)));
    if !name.starts_with('[') {
        assert_eq!(again(&format!("{}.", name.to_ascii_uppercase())).as_str(), name);
    }
}

/// Field lines from a client: of `Forwarded` and `X-Forwarded-*` the endpoint sees one line each at
/// most, a stranger's never, and of a trusted proxy's chain ours is the last element.
pub fn forwarded(data: &[u8]) {
    let stream = [b"GET / HTTP/1.1\r\nHost: auth.local:4000\r\n", data, b"\r\n\r\n"].concat();
    let Ok(Some(_)) = gateway::request_size(&stream, Cuts::Whole) else { return };
    let Read::Whole(head) = reader::request_head(&stream, MOST_FIELDS) else {
        panic!("accepted, and not readable")
    };
    let request = model::request(head).expect("accepted");
    gateway::with_head(&stream, |head| {
        // A dual-stack listener's IPv4 clients are IPv4 clients.
        for (listener_sees, ip) in [
            (V4.into(), V4.into()),
            (V6.into(), V6.into()),
            (V4.to_ipv6_mapped().into(), V4.into()),
        ] {
            for trusted in [false, true] {
                let written = gateway::write(
                    head,
                    Hop { client: listener_sees, ..gateway::hop(V4, trusted) },
                );
                let hop = Hop { client: ip, ..gateway::hop(V4, trusted) };
                assert_forwarded(&written, &request, hop);
                assert_addressed(&written, hop);
            }
        }
    });
}

/// A response head is taken exactly when the naive reader takes it; what is written for the client
/// has the framing that the gateway will keep to, and nothing hop-by-hop of the endpoint's.
pub fn response_head(data: &[u8]) {
    for method in [Method::Get, Method::Head] {
        let to_head = method == Method::Head;
        let expected = match reader::response_head(data, MOST_FIELDS) {
            Read::Whole(head) => Read::Whole(model::response(head, to_head)),
            Read::Partial => Read::Partial,
            Read::Wrong(why) => Read::Wrong(why),
        };
        for cuts in Cuts::all(data) {
            match (&expected, gateway::response_size(data, cuts, method)) {
                (Read::Whole(Ok(response)), Ok(Some(size))) => {
                    assert_eq!(size, response.head.size);
                }
                (Read::Whole(Ok(_)), got) => panic!("{cuts:?}: a good response refused: {got:?}"),
                (Read::Whole(Err(_)) | Read::Wrong(_), Err(_)) => {}
                (Read::Whole(Err(why)) | Read::Wrong(why), Ok(got)) => {
                    panic!("{cuts:?}: it should be refused ({why}), but: {got:?}")
                }
                (Read::Partial, got) => assert!(!matches!(got, Ok(Some(_))), "not whole: {got:?}"),
            }
        }
        let Read::Whole(Ok(expected)) = expected else { continue };
        let mut storage = mesh_wire::head::storage();
        let head = response::parse(data, &mut storage, MOST_FIELDS, method);
        let head = head.expect("accepted").expect("whole");
        assert_eq!(head.info.status, expected.head.status);
        assert_eq!(head.info.keep_alive, expected.keep_alive);
        assert_eq!(head.info.websocket, expected.websocket);
        assert_eq!(head.info.names_fields, model::names_fields(&expected.head.fields));
        let framing = match head.info.body {
            response::ResponseLength::None => Framing::None,
            response::ResponseLength::Length(length) => Framing::Length(length),
            response::ResponseLength::Chunked => Framing::Chunked,
            response::ResponseLength::Close => Framing::Close,
        };
        assert_eq!(framing, expected.framing);
        for minor in [0, 1] {
            let open_ended = matches!(framing, Framing::Chunked | Framing::Close);
            for wish in [false, true] {
                let keep_alive = wish && !(open_ended && minor == 0);
                let chunked = open_ended && minor == 1;
                let timing = wish.then_some(ServerTiming { gateway: 1_000, upstream: 2_000_000 });
                let date = || "Sun, 06 Nov 1994 08:49:37 GMT".to_string();
                let to = ResponseOptions { minor, keep_alive, chunked, timing, date };
                let mut out = Vec::new();
                head.write(to, &mut out);
                assert_answered(&out, &expected, to, to_head);
            }
        }
    }
}

/// What a load balancer says first: taken exactly when the specification has it, in whichever pieces
/// it comes, and the client is the one that it names.
pub fn proxy_protocol(data: &[u8]) {
    let readings = [
        (ProxyProtocol::V1, reader::proxy_v1(data)),
        (ProxyProtocol::V2, reader::proxy_v2(data, MOST_PROXY_V2)),
    ];
    for (version, expected) in readings {
        for cuts in Cuts::all(data) {
            let got = gateway::announced(data, cuts, version);
            match (&expected, got) {
                (Read::Whole(expected), Ok(Some(got))) => assert_eq!(got, *expected),
                (Read::Wrong(_) | Read::Partial, Err(_)) | (Read::Partial, Ok(None)) => {}
                // What comes behind UNKNOWN is to be ignored. Nobody sends it.
                (Read::Whole((_, None, _)), Err(_)) if version == ProxyProtocol::V1 => {}
                (expected, got) => panic!("{cuts:?}: {expected:?}, but {got:?}"),
            }
            // Asked for either version, it takes the one that it is.
            if let Ok(Some(got)) = got {
                let either = gateway::announced(data, cuts, ProxyProtocol::Any);
                assert_eq!(either, Ok(Some(got)));
            }
        }
    }
}

/// All that a client sends on one connection: the naive reader finds in it the requests that the
/// gateway forwards, no more and no fewer; and each of those, as forwarded, is by the naive reader
/// and by kawa the request that was accepted: method, target, fields, body, trailers.
pub fn differential(data: &[u8]) {
    for trusted in [false, true] {
        let expected = read_stream(data, trusted);
        let hop = gateway::hop(V4, trusted);
        let served = gateway::serve(data, Cuts::Whole, hop);
        assert_same_requests(&served.requests, &expected.requests, hop);
        if expected.wrong {
            assert!(served.refused, "the end should be refused");
        }
        for cuts in Cuts::all(data) {
            let requests = gateway::serve(data, cuts, hop).requests;
            assert_eq!(requests, served.requests, "{cuts:?}: it depends on how the bytes arrive");
        }
    }
}

/// What an application says with the functions of a call, in any order: the client gets it as valid HTTP/1.1, sees
/// when something is missing, and the next response on its connection is the next request's.
pub fn call(data: &[u8]) {
    static STAGE: OnceLock<Mutex<calls::CallStage>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Mutex::new(calls::CallStage::new()));
    stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).play(data);
}

/// The frames of an endpoint that speaks HTTP/2, good and bad: a client gets what was sent, whole only if it was, and
/// requests that have nothing to do with it are served.
pub fn http2(data: &[u8]) {
    static STAGE: OnceLock<Mutex<h2_endpoint::H2Stage>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Mutex::new(h2_endpoint::H2Stage::new()));
    stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).play(data);
}

/// What `differential` says, of a gateway with sockets.
#[cfg(test)]
fn over_sockets(data: &[u8], stage: &sockets::Stage) {
    let expected = read_stream(data, false);
    for cuts in [Cuts::Whole, Cuts::Seeded(gateway::hash(data))] {
        assert_same_requests(&stage.serve(data, cuts), &expected.requests, stage.hop());
    }
}

/// A request of HTTP/2 is refused, or the endpoint sees it and no other: one request, with method,
/// path, body and fields as they were sent, less those that a gateway must drop or writes itself.
#[cfg(test)]
fn downgraded(data: &[u8], stage: &sockets::Stage) {
    const SPECIAL: [&[u8]; 17] = [
        b"host",
        b"cookie",
        b"te",
        b"close",
        b"connection",
        b"transfer-encoding",
        b"content-length",
        b"max-forwards",
        b"via",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"sec-websocket-key",
        b"http2-settings",
        b":protocol",
    ];
    let Some(sent) = downgrade::translate(data) else { return };
    let seen = stage.serve_h2(&sent);
    assert!(seen.len() <= 1, "one stream, and {} requests", seen.len());
    let Some(forwarded) = seen.first() else { return };
    let Read::Whole(head) = reader::request_head(&forwarded.head, MOST_FIELDS + 16) else {
        panic!("the endpoint gets no head")
    };
    assert_eq!(head.method.as_bytes(), sent.method);
    // A fragment is no part of what is asked for; h2 takes it away.
    let path = sent.path.split(|b| *b == b'#').next().unwrap_or_default();
    assert_eq!(head.target.as_bytes(), path);
    let hop_by_hop =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    for (name, value) in &sent.fields {
        assert!(!hop_by_hop.iter().any(|h| h.as_bytes() == name), "it should be refused");
        assert!(!value.iter().any(|b| b"\r\n\0".contains(b)), "it should be refused");
    }
    let plain = |name: &[u8]| {
        !SPECIAL.contains(&name) && !std::str::from_utf8(name).is_ok_and(model::is_alias)
    };
    let mut got: Vec<(Vec<u8>, Vec<u8>)> = head
        .fields
        .iter()
        .map(|f| (f.name.to_ascii_lowercase().into_bytes(), f.value.clone()))
        .filter(|(name, _)| plain(name))
        .collect();
    let mut wanted: Vec<_> = sent.fields.iter().filter(|(name, _)| plain(name)).cloned().collect();
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
    let count = |name: &str| head.fields.iter().filter(|f| f.is(name)).count();
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
        assert_eq!(count(name), 1, "{name}");
    }
    assert_eq!(count("forwarded"), 0, "a stranger's chain");
    let request = model::request(head).expect("the endpoint refuses it");
    match request.framing {
        Framing::Chunked => {
            let Read::Whole(body) = reader::chunked(&forwarded.body, false) else {
                panic!("no body")
            };
            assert_eq!(body.data, sent.body);
        }
        _ => assert_eq!(forwarded.body, sent.body),
    }
}
