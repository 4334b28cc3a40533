//! Fuzz targets for mesh_core as plain functions: `fuzz_targets/` hands them to cargo-fuzz, and a
//! stable `cargo test` replays the committed inputs and mutates them for a moment. Each panics when
//! the gateway breaks a promise; README.md lists what is promised.

#![forbid(unsafe_code)]

mod gateway;
mod model;
mod reader;
mod second;

#[cfg(test)]
mod downgrade;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod sockets;

use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_core::ProxyProtocol;
use mesh_core::fuzzing::Error;
use mesh_core::host::Host;
use mesh_core::http1::chunked::{Decoder, Output};
use mesh_core::http1::request::{BodyLength, Method};
use mesh_core::http1::response::{self, Downstream, Timing};

use gateway::{Cuts, MOST_FIELDS};
use model::{Framing, Hop};
use reader::{Field, Read};

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
            (Read::Whole(Err(_)) | Read::Wrong(_), Err(error)) => assert_refusal(&error),
            (Read::Whole(Err(why)) | Read::Wrong(why), Ok(got)) => {
                panic!("{cuts:?}: it should be refused ({why}), but: {got:?}")
            }
            // Something may be wrong already, with the line that is not complete.
            (Read::Partial, Ok(None)) => {}
            (Read::Partial, Err(error)) => assert_refusal(&error),
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
        assert_eq!(info.expect_continue, request.expect_continue);
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
/// what is behind the body stays untouched.
pub fn chunked(data: &[u8]) {
    let expected = reader::chunked(data);
    for cuts in Cuts::all(data) {
        for output in [Output::Chunked, Output::Data] {
            let passed = gateway::pass_chunked(data, cuts, decoder(output));
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
    let again = |text: &str| Host::parse(text.as_bytes()).expect("what it says itself");
    assert_eq!((again(name).as_str(), again(name).port), (name, None));
    let with_port = again(&format!("{name}:4000"));
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
        let mut storage = mesh_core::http1::head::storage();
        let head = response::parse(data, &mut storage, MOST_FIELDS, method);
        let head = head.expect("accepted").expect("whole");
        assert_eq!(head.info.status, expected.head.status);
        assert_eq!(head.info.keep_alive, expected.keep_alive);
        assert_eq!(head.info.websocket, expected.websocket);
        assert_eq!(head.info.names_fields, model::names_fields(&expected.head.fields));
        let framing = match head.info.body {
            response::BodyLength::None => Framing::None,
            response::BodyLength::Length(length) => Framing::Length(length),
            response::BodyLength::Chunked => Framing::Chunked,
            response::BodyLength::Close => Framing::Close,
        };
        assert_eq!(framing, expected.framing);
        for minor in [0, 1] {
            let open_ended = matches!(framing, Framing::Chunked | Framing::Close);
            for wish in [false, true] {
                let keep_alive = wish && !(open_ended && minor == 0);
                let chunked = open_ended && minor == 1;
                let timing = wish.then_some(Timing { gateway: 1_000, upstream: 2_000_000 });
                let to = Downstream { minor, keep_alive, chunked, timing };
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
                (Read::Whole((_, None)), Err(_)) if version == ProxyProtocol::V1 => {}
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
    let expected = read_stream(data);
    for trusted in [false, true] {
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

/// What `differential` says, of a gateway with sockets.
#[cfg(test)]
fn over_sockets(data: &[u8], stage: &sockets::Stage) {
    let expected = read_stream(data);
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
    let plain = |name: &[u8]| !SPECIAL.contains(&name);
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
            let Read::Whole(body) = reader::chunked(&forwarded.body) else { panic!("no body") };
            assert_eq!(body.data, sent.body);
        }
        _ => assert_eq!(forwarded.body, sent.body),
    }
}

fn assert_same_requests(got: &[gateway::Forwarded], expected: &[Message], hop: Hop<'_>) {
    assert_eq!(got.len(), expected.len(), "requests");
    for (forwarded, request) in got.iter().zip(expected) {
        assert_forwarded(&forwarded.head, &request.head, hop);
        assert_body(forwarded, request);
        assert_second_opinion(forwarded, request);
    }
}

/// A request with its body.
struct Message {
    head: model::Request,
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

struct Stream {
    requests: Vec<Message>,
    /// It ends with something that is no request.
    wrong: bool,
}

/// What a client's bytes are by the book.
fn read_stream(mut rest: &[u8]) -> Stream {
    let mut stream = Stream { requests: Vec::new(), wrong: false };
    loop {
        let head = match reader::request_head(rest, MOST_FIELDS) {
            Read::Whole(head) => model::request(head),
            Read::Partial => return stream,
            Read::Wrong(why) => Err(why),
        };
        let Ok(head) = head else {
            stream.wrong = true;
            return stream;
        };
        rest = &rest[head.head.size..];
        let mut message = Message { head, data: Vec::new(), trailers: Vec::new() };
        match message.head.framing {
            Framing::Length(length) if length > rest.len() as u64 => return stream,
            Framing::Length(length) => {
                let (data, next) = rest.split_at(length as usize);
                message.data = data.to_vec();
                rest = next;
            }
            Framing::Chunked if message.head.max_forwards == Some(0) => return stream,
            Framing::Chunked => match reader::chunked(rest) {
                Read::Whole(body) => {
                    rest = &rest[body.size..];
                    if !model::names_fields(&message.head.head.fields) {
                        message.trailers = model::kept_trailers(&body);
                    }
                    message.data = body.data;
                }
                Read::Partial => return stream,
                Read::Wrong(_) => {
                    stream.wrong = true;
                    return stream;
                }
            },
            Framing::None | Framing::Close => {}
        }
        let keep_alive = message.head.keep_alive;
        if message.head.max_forwards == Some(0) {
            // The gateway answers itself, and reads no body for that.
            if message.head.framing != Framing::None {
                return stream;
            }
        } else {
            stream.requests.push(message);
        }
        if !keep_alive {
            return stream;
        }
    }
}

fn decoder(output: Output) -> Decoder {
    Decoder::new(output, gateway::MOST_TRAILER)
}

fn framing_of(body: BodyLength) -> Framing {
    match body {
        BodyLength::None => Framing::None,
        BodyLength::Length(length) => Framing::Length(length),
        BodyLength::Chunked => Framing::Chunked,
    }
}

/// A refusal is the client's fault, and says so with a status of its own.
fn assert_refusal(error: &Error) {
    let answer = error.answer().expect("somebody is there to be answered");
    assert!(matches!(answer.status, 400 | 414 | 431 | 501 | 505), "{error:?}");
}

fn assert_same_host(got: Option<&Host>, expected: Option<&model::Host>) {
    let got = got.map(|h| (h.as_str(), h.port, h.is_address()));
    assert_eq!(got, expected.map(|h| (&h.name[..], h.port, h.is_address())));
}

/// The head for the endpoint is, to the byte or to the field, the one that the model expects.
fn assert_forwarded(written: &[u8], request: &model::Request, hop: Hop<'_>) {
    // The gateway adds up to ten fields.
    let Read::Whole(head) = reader::request_head(written, MOST_FIELDS + 16) else {
        panic!("the endpoint gets no head: {}", written.escape_ascii())
    };
    assert_eq!(head.size, written.len(), "something comes behind the head");
    assert_eq!(head.method, request.head.method);
    assert_eq!(head.target, request.target);
    assert_eq!(head.minor, 1);
    let expected = request.expected(hop);
    assert!(head.fields.len() >= expected.kept.len(), "fields were lost");
    let (kept, added) = head.fields.split_at(expected.kept.len());
    assert_eq!(kept, expected.kept, "the lines that stay");
    assert_eq!(by_name(added), sorted(expected.added), "the fields that are added");
    // Whatever the model thinks: the endpoint must find the framing that the gateway keeps to.
    let endpoint = model::request(head).expect("the endpoint refuses it");
    assert_eq!(endpoint.framing, request.framing);
    assert_eq!(endpoint.websocket, request.websocket);
    assert_eq!(endpoint.expect_continue, request.expect_continue && keeps_expect(request));
    if request.host.is_some() {
        assert_eq!(endpoint.host, request.host);
    }
}

/// `Connection: expect` takes the expectation away with the field.
fn keeps_expect(request: &model::Request) -> bool {
    !reader::has_member(&request.head.fields, "connection", "expect")
}

/// Exactly what Plug.RewriteOn and an RFC 7239 parser go by.
fn assert_addressed(written: &[u8], hop: Hop<'_>) {
    let Read::Whole(head) = reader::request_head(written, MOST_FIELDS + 16) else { return };
    let lines = |name: &str| -> Vec<&Field> { head.fields.iter().filter(|f| f.is(name)).collect() };
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
        assert_eq!(lines(name).len(), 1, "{name}");
    }
    let client = hop.client.to_string();
    let chain = &lines("x-forwarded-for")[0].value;
    let last = chain.rsplit(|b| *b == b',').next().map(reader::trim);
    assert_eq!(last, Some(client.as_bytes()), "the last of the chain is whom we saw");
    match &lines("forwarded")[..] {
        [] => {}
        [one] => {
            assert!(hop.trusted, "a stranger's chain");
            assert!(model::closes_its_quotes(&one.value), "our element is inside a quoted string");
            let last = elements(&one.value).pop().expect("an element");
            assert!(last.starts_with(b"for=") && last.ends_with(b";proto=http"));
            assert!(last.windows(client.len()).any(|w| w == client.as_bytes()));
        }
        _ => panic!("more than one Forwarded"),
    }
    if !hop.trusted {
        assert_eq!(chain, client.as_bytes());
        assert_eq!(lines("x-forwarded-proto")[0].value, b"http");
        assert_eq!(lines("x-forwarded-port")[0].value, b"4000");
        assert_eq!(lines("x-forwarded-host")[0].value, b"auth.local:4000");
    }
}

/// The elements of `Forwarded`, split at commas outside of quoted strings.
fn elements(value: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut from = 0;
    for (at, byte) in value.iter().enumerate() {
        if *byte == b',' && model::closes_its_quotes(&value[from..at]) {
            found.push(reader::trim(&value[from..at]));
            from = at + 1;
        }
    }
    found.push(reader::trim(&value[from..]));
    found
}

/// The body of a request, as forwarded, has the same data and the trailers that may go on.
fn assert_body(forwarded: &gateway::Forwarded, request: &Message) {
    match request.head.framing {
        Framing::Chunked => {
            let Read::Whole(body) = reader::chunked(&forwarded.body) else {
                panic!("the endpoint gets no body: {}", forwarded.body.escape_ascii())
            };
            assert_eq!(body.size, forwarded.body.len(), "something comes behind the body");
            assert_eq!(body.data, request.data);
            assert_eq!(named(&body.trailers), request.trailers);
        }
        _ => assert_eq!(forwarded.body, request.data),
    }
}

/// kawa reads the same request.
fn assert_second_opinion(forwarded: &gateway::Forwarded, request: &Message) {
    let trailers_fine =
        request.trailers.iter().all(|(_, value)| value.is_ascii() && !value.contains(&b'\t'));
    if !second::has_opinion(&forwarded.head) || !trailers_fine {
        return;
    }
    let message = [&forwarded.head[..], &forwarded.body].concat();
    // What comes behind must not become part of it.
    let stream = [&message[..], b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"].concat();
    let read = second::read(&stream);
    let read = read.unwrap_or_else(|why| panic!("{why}: {}", message.escape_ascii()));
    assert_eq!(read.size, message.len(), "where the request ends");
    assert_eq!(read.method, request.head.head.method.as_bytes());
    assert_eq!(read.target, request.head.target.as_bytes());
    assert!(read.is_1_1);
    assert_eq!(read.body, request.data);
    let trailers = request.trailers.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone()));
    assert_eq!(read.trailers, trailers.collect::<Vec<_>>());
    let Read::Whole(head) = reader::request_head(&forwarded.head, MOST_FIELDS + 16) else { return };
    let host = head.fields.iter().find(|f| f.is("host")).expect("a Host");
    assert_eq!(read.host, host.value);
    let fields = head.fields.iter().filter(|f| !f.is("host") && !f.is("cookie"));
    let fields = fields.map(|f| (f.name.clone().into_bytes(), f.value.clone()));
    assert_eq!(read.fields, fields.collect::<Vec<_>>());
}

/// Chunks with significant digits alone, no extensions, the trailers that may go on, and the data.
fn assert_canonical(passed: &[u8], body: &reader::ChunkedBody) {
    let Read::Whole(again) = reader::chunked(passed) else {
        panic!("what goes on is not chunked: {}", passed.escape_ascii())
    };
    assert_eq!(again.size, passed.len());
    assert_eq!(again.data, body.data);
    assert_eq!(named(&again.trailers), model::kept_trailers(body));
    let data_and_ends = again.data.len() + 5;
    if again.trailers.is_empty() && again.data.is_empty() {
        assert_eq!(passed.len(), data_and_ends, "an empty body is five bytes");
    }
    assert!(!passed.starts_with(b"0") || again.data.is_empty(), "leading zeros");
    // Passing on what went on changes nothing.
    let twice = gateway::pass_chunked(passed, Cuts::Whole, decoder(Output::Chunked));
    let twice = twice.expect("what it says itself");
    assert!(twice.done && twice.bytes == passed);
}

/// The head for the client.
fn assert_answered(out: &[u8], response: &model::Response, to: Downstream, to_head: bool) {
    let Read::Whole(head) = reader::response_head(out, MOST_FIELDS + 8) else {
        panic!("the client gets no head: {}", out.escape_ascii())
    };
    let status = response.head.status;
    assert_eq!(head.size, out.len(), "something comes behind the head");
    assert_eq!((head.minor, head.status), (1, status));
    // obs-text in a reason is not worth passing on.
    if response.head.reason.is_ascii() {
        assert_eq!(head.reason, response.head.reason);
    } else {
        assert_eq!(head.reason, b"");
    }
    let expected = response.kept();
    assert!(head.fields.len() >= expected.len(), "fields were lost");
    let (kept, added) = head.fields.split_at(expected.len());
    assert_eq!(kept, expected, "the lines that stay");
    let mut wanted: Vec<(String, Vec<u8>)> = Vec::new();
    let mut want = |name: &str, value: &str| wanted.push((name.into(), value.into()));
    let date = added.iter().find(|f| f.is("date"));
    if status == 101 {
        want("connection", "Upgrade");
        want("upgrade", "websocket");
    } else if status >= 200 {
        if !response.head.fields.iter().any(|f| f.is("date")) {
            let date = date.expect("a date");
            want("date", std::str::from_utf8(&date.value).expect("ASCII"));
        }
        if to.timing.is_some() {
            want("server-timing", "mesh;dur=0.001, upstream;dur=2.000");
        }
        if to.chunked {
            want("transfer-encoding", "chunked");
        }
        match (to.keep_alive, to.minor) {
            (false, _) => want("connection", "close"),
            (true, 0) => want("connection", "keep-alive"),
            (true, _) => {}
        }
    }
    assert_eq!(by_name(added), sorted(wanted), "the fields that are added");
    // The client finds the framing that the gateway will keep to.
    let client = model::response(head, to_head).expect("the client refuses it");
    let owed = match response.framing {
        Framing::Chunked | Framing::Close if to.chunked => Framing::Chunked,
        Framing::Chunked | Framing::Close => Framing::Close,
        framing => framing,
    };
    assert_eq!(client.framing, owed);
    if client.framing == Framing::Close {
        assert!(!client.keep_alive);
    }
}

fn named(fields: &[Field]) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|f| (f.name.clone(), f.value.clone())).collect()
}

fn by_name(fields: &[Field]) -> Vec<(String, Vec<u8>)> {
    sorted(fields.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.clone())).collect())
}

fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort();
    fields
}
