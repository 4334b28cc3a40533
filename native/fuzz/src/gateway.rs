//! mesh_wire, put together as a client connection puts it together, less the sockets.

use std::net::{IpAddr, SocketAddr};

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::client_addr::ClientAddr;
use mesh_wire::head::{self, EmptyLines, HeadEnd, HeadScan};
use mesh_wire::ids::RequestId;
use mesh_wire::method::Method;
use mesh_wire::proxy_protocol::{ProxyHeader, ProxyProtocol};
use mesh_wire::request::{self, BodyLength, Forwarding, RequestError, RequestHead};
use mesh_wire::response::{self, BadResponse};

use crate::model::{Hop, MADE_ID, MADE_TRACE};
use crate::reader::Proxied;

/// Fields a head may have. Lower than the default, so that short inputs reach it.
pub const MOST_FIELDS: usize = 40;
pub const MOST_TRAILER: usize = 64 * 1024;
pub const LISTENER_PORT: u16 = 4000;
pub const DEFAULT_HOST: &str = "default.local";

pub fn client(hop: Hop<'_>) -> ClientAddr {
    let everybody = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a network"));
    ClientAddr::new(SocketAddr::new(hop.client, 5678), if hop.trusted { &everybody } else { &[] })
}

pub fn hop(client: impl Into<IpAddr>, trusted: bool) -> Hop<'static> {
    // Either way of either is seen: what one does is no business of the other.
    let names_requests = !trusted;
    Hop {
        client: client.into(),
        trusted,
        port: LISTENER_PORT,
        default_host: DEFAULT_HOST,
        names_requests,
    }
}

/// How the bytes of a stream arrive: in pieces whose ends are these.
#[derive(Clone, Copy, Debug)]
pub enum Cuts {
    Whole,
    Bytes,
    /// Pieces of pseudo-random length, the same for the same seed.
    Seeded(u64),
}

impl Cuts {
    /// Every way, for an input; which random cuts is up to its bytes, so that a finding repeats.
    pub fn all(data: &[u8]) -> [Cuts; 3] {
        let seed = hash(data);
        // Byte by byte is dear for long inputs, and tells nothing that short ones do not.
        let fine = if data.len() <= 256 { Cuts::Bytes } else { Cuts::Seeded(!seed) };
        [Cuts::Whole, fine, Cuts::Seeded(seed)]
    }

    pub fn ends(self, len: usize) -> Vec<usize> {
        match self {
            Cuts::Whole => vec![len],
            Cuts::Bytes => (1..=len).collect(),
            Cuts::Seeded(mut seed) => {
                let mut ends = Vec::new();
                let mut at = 0;
                while at < len {
                    seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    // Short pieces mostly, a long one now and then.
                    let most = if seed >> 60 == 0 { 400 } else { 24 };
                    at = (at + 1 + (seed >> 33) as usize % most).min(len);
                    ends.push(at);
                }
                ends
            }
        }
    }
}

/// FNV-1a.
pub fn hash(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Reads a request head as it arrives. `Ok(None)`: the stream ended before it did.
pub fn request_size(bytes: &[u8], cuts: Cuts) -> Result<Option<usize>, RequestError> {
    let parse = |so_far: &[u8]| -> Result<Option<usize>, RequestError> {
        let mut storage = head::storage();
        let head = request::parse(so_far, &mut storage, MOST_FIELDS)?;
        Ok(head.map(|head| head.size()))
    };
    let mut scan = HeadScan::default();
    let mut looked = false;
    for end in cuts.ends(bytes.len()) {
        let so_far = &bytes[..end];
        if !looked && let Some(size) = parse(so_far)? {
            return Ok(Some(size));
        }
        match scan.find(so_far) {
            HeadEnd::Whole(size) => {
                let malformed = RequestError::Malformed("the request head is malformed");
                let parsed = parse(so_far)?.ok_or(malformed)?;
                assert_eq!(parsed, size, "two opinions on where the head ends");
                return Ok(Some(size));
            }
            HeadEnd::BareLf => {
                return Err(RequestError::Malformed("a line does not end with CRLF"));
            }
            HeadEnd::Partial { new_line } => {
                if new_line && looked {
                    parse(so_far)?;
                }
                looked = true;
            }
        }
    }
    Ok(None)
}

pub fn response_size(
    bytes: &[u8],
    cuts: Cuts,
    method: Method,
) -> Result<Option<usize>, BadResponse> {
    let parse = |so_far: &[u8]| -> Result<Option<usize>, BadResponse> {
        let mut storage = head::storage();
        let head = response::parse(so_far, &mut storage, MOST_FIELDS, method)?;
        Ok(head.map(|head| head.size()))
    };
    let mut scan = HeadScan::default();
    let mut looked = false;
    for end in cuts.ends(bytes.len()) {
        let so_far = &bytes[..end];
        if !looked && let Some(size) = parse(so_far)? {
            return Ok(Some(size));
        }
        looked = true;
        match scan.find(so_far) {
            HeadEnd::Whole(size) => {
                let malformed = BadResponse("the head is malformed");
                let parsed = parse(so_far)?.ok_or(malformed)?;
                assert_eq!(parsed, size, "two opinions on where the head ends");
                return Ok(Some(size));
            }
            HeadEnd::BareLf => return Err(BadResponse("a line does not end with CRLF")),
            HeadEnd::Partial { new_line: true } => drop(parse(so_far)?),
            HeadEnd::Partial { new_line: false } => {}
        }
    }
    Ok(None)
}

/// Reads what a load balancer announces.
pub fn announced(
    bytes: &[u8],
    cuts: Cuts,
    version: ProxyProtocol,
) -> Result<Option<Proxied>, &'static str> {
    for end in cuts.ends(bytes.len()) {
        if let ProxyHeader::Whole { size, client, tls } = version.read(&bytes[..end])? {
            return Ok(Some((size, client, tls)));
        }
    }
    Ok(None)
}

/// Parses an accepted head again and shows it, with all that came behind it in the same buffer.
pub fn with_head<T>(bytes: &[u8], look: impl FnOnce(&RequestHead<'_, '_>) -> T) -> T {
    let mut storage = head::storage();
    let head = request::parse(bytes, &mut storage, MOST_FIELDS);
    look(&head.expect("accepted before").expect("whole before"))
}

pub fn write(head: &RequestHead<'_, '_>, hop: Hop<'_>) -> Vec<u8> {
    let client = client(hop);
    let request_id = match head.request_id() {
        _ if !hop.names_requests => RequestId::None,
        Some(given) => RequestId::Given(given.into()),
        None => RequestId::Made(MADE_ID),
    };
    let forwarding = Forwarding {
        client: &client,
        listener_port: hop.port,
        default_host: hop.default_host,
        request_id: &request_id,
        traceparent: (hop.names_requests && head.trace_id().is_none()).then_some(*MADE_TRACE),
    };
    let mut out = Vec::new();
    head.write(&forwarding, &mut out);
    out
}

/// What became of a body that arrived in pieces.
pub struct Passed {
    pub bytes: Vec<u8>,
    pub consumed: usize,
    pub done: bool,
}

/// Follows a chunked body. Each piece is decoded in a buffer that holds what is behind it, too, as
/// the gateway's do, and must leave that alone.
pub fn pass_chunked(body: &[u8], cuts: Cuts, mut decoder: Decoder) -> Result<Passed, &'static str> {
    let mut passed = Passed { bytes: Vec::new(), consumed: 0, done: false };
    for end in cuts.ends(body.len()) {
        let mut buffer = body[passed.consumed..end].to_vec();
        let decoded = decoder.decode(&mut buffer)?;
        assert!(decoded.written <= decoded.consumed, "more passed on than came");
        assert!(decoded.done || decoded.consumed == buffer.len(), "bytes left for no reason");
        assert_eq!(decoded.done, decoder.is_done());
        let behind = passed.consumed + decoded.consumed;
        assert_eq!(buffer[decoded.consumed..], body[behind..end], "the next request was touched");
        passed.bytes.extend_from_slice(&buffer[..decoded.written]);
        passed.consumed = behind;
        if decoded.done {
            passed.bytes.extend_from_slice(decoder.tail());
            passed.done = true;
            break;
        }
    }
    Ok(passed)
}

/// One request as the endpoint sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// What became of all that a client sent on one connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Served {
    /// Requests that went through whole.
    pub requests: Vec<Forwarded>,
    /// Something was refused, and with it everything behind.
    pub refused: bool,
}

/// Serves a whole connection, whose endpoints answer at once and politely.
pub fn serve(stream: &[u8], cuts: Cuts, hop: Hop<'_>) -> Served {
    let mut served = Served { requests: Vec::new(), refused: false };
    let mut rest = stream;
    loop {
        let (skipped, begins) = EmptyLines::default().skip(rest);
        rest = &rest[skipped..];
        if !begins {
            return served;
        }
        let size = match request_size(rest, cuts) {
            Ok(Some(size)) => size,
            Ok(None) => return served,
            Err(_) => {
                served.refused = true;
                return served;
            }
        };
        let (info, ends_here, head) = with_head(rest, |head| {
            let misdirected = head.is_https() && !client(hop).speaks_https();
            (head.info, misdirected || head.max_forwards == Some(0), write(head, hop))
        });
        rest = &rest[size..];
        if ends_here {
            // Answered here. Without a body, the connection goes on.
            if info.body == BodyLength::None && info.keep_alive {
                continue;
            }
            return served;
        }
        let body = match info.body {
            BodyLength::None => Vec::new(),
            BodyLength::Length(length) => {
                let Some(length) = usize::try_from(length).ok().filter(|n| *n <= rest.len()) else {
                    return served;
                };
                let body = rest[..length].to_vec();
                rest = &rest[length..];
                body
            }
            BodyLength::Chunked => {
                let decoder = Decoder::new(Output::Chunked, MOST_TRAILER);
                let decoder = decoder.without_trailers_if(info.names_fields);
                match pass_chunked(rest, cuts, decoder) {
                    Ok(passed) if passed.done => {
                        rest = &rest[passed.consumed..];
                        passed.bytes
                    }
                    Ok(_) => return served,
                    Err(_) => {
                        served.refused = true;
                        return served;
                    }
                }
            }
        };
        served.requests.push(Forwarded { head, body });
        if !info.keep_alive {
            return served;
        }
    }
}
