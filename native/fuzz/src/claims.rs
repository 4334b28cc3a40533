//! What must be so: of what the gateway has taken, refused and written.

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::host::Host;
use mesh_wire::request::{BodyLength, RequestError};
use mesh_wire::response::ResponseOptions;

use crate::gateway::{self, Cuts, MOST_FIELDS};
use crate::model::{self, Framing, Hop};
use crate::reader::{self, Field, Read};
use crate::second;
use crate::stream::Message;

pub fn assert_same_requests(got: &[gateway::Forwarded], expected: &[Message], hop: Hop<'_>) {
    assert_eq!(got.len(), expected.len(), "requests");
    for (forwarded, request) in got.iter().zip(expected) {
        assert_forwarded(&forwarded.head, &request.head, hop);
        assert_body(forwarded, request);
        assert_second_opinion(forwarded, request);
    }
}

pub fn decoder(output: Output) -> Decoder {
    Decoder::new(output, gateway::MOST_TRAILER)
}

pub fn framing_of(body: BodyLength) -> Framing {
    match body {
        BodyLength::None => Framing::None,
        BodyLength::Length(length) => Framing::Length(length),
        BodyLength::Chunked => Framing::Chunked,
    }
}

/// A refusal is the client's fault. A loop would be the operator's, and no input here names the gateway so often.
pub fn assert_refusal(error: RequestError) {
    assert_ne!(error, RequestError::Loop);
}

pub fn assert_same_host(got: Option<&Host>, expected: Option<&model::Host>) {
    let got = got.map(|h| (h.as_str(), h.port, h.is_address()));
    assert_eq!(got, expected.map(|h| (&h.name[..], h.port, h.is_address())));
}

/// The head for the endpoint is, to the byte or to the field, the one that the model expects.
pub fn assert_forwarded(written: &[u8], request: &model::Request, hop: Hop<'_>) {
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
pub fn keeps_expect(request: &model::Request) -> bool {
    !reader::has_member(&request.head.fields, "connection", "expect")
}

/// Exactly what Plug.RewriteOn and an RFC 7239 parser go by.
pub fn assert_addressed(written: &[u8], hop: Hop<'_>) {
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
pub fn elements(value: &[u8]) -> Vec<&[u8]> {
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
pub fn assert_body(forwarded: &gateway::Forwarded, request: &Message) {
    match request.head.framing {
        Framing::Chunked => {
            let Read::Whole(body) = reader::chunked(&forwarded.body, false) else {
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
pub fn assert_second_opinion(forwarded: &gateway::Forwarded, request: &Message) {
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
pub fn assert_canonical(passed: &[u8], body: &reader::ChunkedBody) {
    let Read::Whole(again) = reader::chunked(passed, false) else {
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
pub fn assert_answered(out: &[u8], response: &model::Response, to: ResponseOptions, to_head: bool) {
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
        if let Some(length) = response.merged_length() {
            want("content-length", length);
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

pub fn named(fields: &[Field]) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|f| (f.name.clone(), f.value.clone())).collect()
}

pub fn by_name(fields: &[Field]) -> Vec<(String, Vec<u8>)> {
    sorted(fields.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.clone())).collect())
}

pub fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort();
    fields
}
