//! What the gateway must make of a message: which ones it takes, and exactly what of them goes on.
//! Written from the RFCs and from the promises of the project, not from mesh_core.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::reader::{self, ChunkedBody, Field, RequestHead, ResponseHead};

/// What a maker of ids would make.
pub const MADE_ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
pub const MADE_TRACE: &[u8; 55] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Field names that are for one connection only (RFC 9110 section 7.6.1); `Close` is reserved
/// (RFC 9112 section 9.6).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "close", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Fields that the gateway alone writes.
const FORWARDED: [&str; 5] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"];

/// Of a proxy in front, which a client cannot have removed by naming them in `Connection`.
const OF_PROXIES: [&str; 10] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
];

fn is_of_proxies(name: &str) -> bool {
    OF_PROXIES.contains(&name) || name.starts_with("x-forwarded-")
}

/// Names that the gateway knows. With underscores they are the same to some servers.
const KNOWN: [&str; 12] = [
    "content-length",
    "keep-alive",
    "max-forwards",
    "proxy-connection",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
    "traceparent",
    "tracestate",
];

/// Whether a name (in lower case) passes for another that the gateway knows.
pub fn is_alias(name: &str) -> bool {
    name.contains('_') && KNOWN.contains(&name.replace('_', "-").as_str())
}

/// Without these a message means something else, whoever names them in `Connection`.
const ESSENTIAL: [&str; 3] = ["host", "content-length", "transfer-encoding"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Until the sender closes (responses).
    Close,
}

/// A host that has been read: its name as it is looked up, and the port given with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: Option<u16>,
}

impl Host {
    /// uri-host [ ":" port ]
    pub fn read(text: &[u8]) -> Option<Host> {
        let text = std::str::from_utf8(text).ok()?;
        let (name, rest) = if let Some(inner) = text.strip_prefix('[') {
            let (address, rest) = inner.split_once(']')?;
            (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), rest)
        } else {
            let colon = text.find(':').unwrap_or(text.len());
            (registered_name(&text[..colon])?, &text[colon..])
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.len() > 5 => return None,
            Some(digits) => Some(reader::digits(digits.as_bytes())?.try_into().ok()?),
        };
        Some(Host { name, port })
    }

    pub fn is_address(&self) -> bool {
        self.name.starts_with('[') || self.name.parse::<Ipv4Addr>().is_ok()
    }
}

/// reg-name (RFC 3986 section 3.2.2) made of labels, with one dot at its end or without.
fn registered_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 255 || name.split('.').any(str::is_empty) {
        return None;
    }
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => bytes.next()?.is_ascii_hexdigit() && bytes.next()?.is_ascii_hexdigit(),
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fine {
            return None;
        }
    }
    Some(name.to_ascii_lowercase())
}

/// A request that the gateway must take.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: RequestHead,
    pub framing: Framing,
    pub host: Option<Host>,
    /// The host as the client wrote it.
    pub host_text: Vec<u8>,
    pub absolute: bool,
    /// What the endpoint is asked for.
    pub target: String,
    pub max_forwards: Option<u64>,
    pub websocket: bool,
    pub expect_continue: bool,
    pub keep_alive: bool,
}

/// More members of `Connection` than any message has.
const MAX_CONNECTION_MEMBERS: usize = 64;

fn connection_is_bounded(fields: &[Field]) -> Result<(), &'static str> {
    let members = reader::members(fields, "connection").len();
    if members > MAX_CONNECTION_MEMBERS { Err("members of Connection") } else { Ok(()) }
}

/// Why a well-formed head is refused all the same.
pub fn request(head: RequestHead) -> Result<Request, &'static str> {
    let fields = &head.fields;
    connection_is_bounded(fields)?;
    let lengths: Vec<&[u8]> = length_lines(fields).collect();
    let framing = framing(&lengths, fields, head.minor)?;
    if head.method == "CONNECT" {
        return Err("CONNECT");
    }
    let hosts: Vec<&Field> = fields.iter().filter(|f| f.is("host")).collect();
    if hosts.len() > 1 {
        return Err("two Hosts");
    }
    if hosts.is_empty() && head.minor == 1 {
        return Err("no Host");
    }
    let mut host_text = hosts.first().map(|f| f.value.clone());
    if let Some(text) = &host_text {
        Host::read(text).ok_or("bad Host")?;
    }
    if head.target.contains('#') {
        return Err("fragment");
    }
    let server_wide = head.method == "OPTIONS";
    let mut target = head.target.clone();
    let mut absolute = false;
    if !(target.starts_with('/') || (server_wide && target == "*")) {
        absolute = true;
        let (scheme, rest) = head.target.split_once("://").ok_or("target form")?;
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err("scheme");
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        host_text = Some(rest.as_bytes()[..end].to_vec());
        target = match &rest[end..] {
            "" if server_wide => "*".to_string(),
            path if path.starts_with('/') => path.to_string(),
            path => format!("/{path}"),
        };
    }
    let host = match &host_text {
        Some(text) => Some(Host::read(text).ok_or("bad authority")?),
        None => None,
    };
    let counts = head.method == "OPTIONS" || head.method == "TRACE";
    let forwards = fields.iter().rfind(|f| f.is("max-forwards"));
    let passes = reader::members(fields, "via").into_iter().filter(|m| m.ends_with(b" mesh"));
    if passes.count() > 4 {
        return Err("round in circles");
    }
    let closes = reader::has_member(fields, "connection", "close");
    let stays = reader::has_member(fields, "connection", "keep-alive");
    Ok(Request {
        framing,
        host,
        host_text: host_text.unwrap_or_default(),
        absolute,
        target,
        max_forwards: forwards.and_then(|f| reader::digits(&f.value)).filter(|_| counts),
        websocket: head.minor == 1
            && head.method == "GET"
            && framing == Framing::None
            && reader::has_member(fields, "connection", "upgrade")
            && reader::has_member(fields, "upgrade", "websocket"),
        expect_continue: head.minor == 1
            && fields
                .iter()
                .any(|f| f.is("expect") && f.value.eq_ignore_ascii_case(b"100-continue")),
        keep_alive: !closes && (head.minor == 1 || stays),
        head,
    })
}

fn length_lines(fields: &[Field]) -> impl Iterator<Item = &[u8]> {
    fields.iter().filter(|f| f.is("content-length")).map(|f| &f.value[..])
}

/// The lengths of a response, in lines or in lists; the same several times is that once (RFC 9110
/// section 8.6).
fn lengths_of_response(fields: &[Field]) -> Vec<&[u8]> {
    length_lines(fields).flat_map(|line| line.split(|b| *b == b',').map(reader::trim)).collect()
}

/// RFC 9112 section 6.3, without any of the ways out that it offers.
fn framing(lengths: &[&[u8]], fields: &[Field], minor: u8) -> Result<Framing, &'static str> {
    let codings: Vec<&Field> = fields.iter().filter(|f| f.is("transfer-encoding")).collect();
    match (lengths, &codings[..]) {
        ([], []) => Ok(Framing::None),
        ([one], []) => match reader::digits(one).ok_or("bad length")? {
            0 => Ok(Framing::None),
            length => Ok(Framing::Length(length)),
        },
        ([], [one]) if minor == 1 && one.value.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        _ => Err("framing"),
    }
}

/// Who sends a request, and what the gateway knows of itself.
#[derive(Clone, Copy)]
pub struct Hop<'a> {
    pub client: IpAddr,
    pub trusted: bool,
    pub port: u16,
    pub default_host: &'a str,
    /// It gives each request an id, and begins a trace, where the client has not.
    pub names_requests: bool,
}

/// The request that the endpoint must see: the lines that stay, byte for byte and in their order,
/// and the fields that the gateway adds, in whatever order.
pub struct Expected {
    pub kept: Vec<Field>,
    pub added: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// Its target is a URL of `https`.
    pub fn is_https(&self) -> bool {
        self.absolute && self.head.target.to_ascii_lowercase().starts_with("https:")
    }

    pub fn expected(&self, hop: Hop<'_>) -> Expected {
        let named = reader::members(&self.head.fields, "connection");
        let new_id = hop.names_requests && !self.has_one("x-request-id", is_request_id);
        let new_trace = hop.names_requests && !self.has_one("traceparent", is_traceparent);
        let replaced = |field: &Field| {
            (new_id && field.is("x-request-id"))
                || (new_trace && (field.is("traceparent") || field.is("tracestate")))
        };
        let keeps = |field: &&Field| self.keeps(field, &named) && !replaced(field);
        let kept = self.head.fields.iter().filter(keeps).cloned().collect();
        let mut added: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |name: &str, value: &[u8]| added.push((name.to_string(), value.to_vec()));
        let host = match &self.host {
            Some(_) => &self.host_text[..],
            None => hop.default_host.as_bytes(),
        };
        if self.absolute || self.host.is_none() {
            add("host", host);
        }
        if self.framing == Framing::Chunked {
            add("transfer-encoding", b"chunked");
        }
        if self.websocket {
            add("connection", b"Upgrade");
            add("upgrade", b"websocket");
        }
        if let Some(hops) = self.max_forwards {
            add("max-forwards", hops.saturating_sub(1).to_string().as_bytes());
        }
        add("via", if self.head.minor == 1 { b"1.1 mesh" } else { b"1.0 mesh" });
        for (name, value) in self.forwarded(hop, host) {
            add(name, &value);
        }
        if new_id {
            add("x-request-id", format!("{MADE_ID:032x}").as_bytes());
        }
        if new_trace {
            add("traceparent", MADE_TRACE);
        }
        Expected { kept, added }
    }

    /// The client sent one such line, and a good one.
    fn has_one(&self, name: &str, rule: fn(&[u8]) -> bool) -> bool {
        let lines: Vec<&Field> = self.head.fields.iter().filter(|f| f.is(name)).collect();
        matches!(lines[..], [one] if rule(&one.value))
    }

    fn keeps(&self, field: &Field, named: &[&[u8]]) -> bool {
        let name = field.name.to_ascii_lowercase();
        let name = name.as_str();
        let is_named = !ESSENTIAL.contains(&name)
            && !is_of_proxies(name)
            && named.iter().any(|m| m.eq_ignore_ascii_case(name.as_bytes()));
        let goes = HOP_BY_HOP.contains(&name)
            || FORWARDED.contains(&name)
            || is_alias(name)
            || is_named
            || (name == "host" && self.absolute)
            || (name == "expect" && self.head.minor == 0)
            || (name == "max-forwards" && self.max_forwards.is_some());
        !goes
    }

    /// A stranger's fields are as good as absent. A trusted proxy's chain is continued, and of what
    /// it says once the last value counts; what is not what it should be says nothing.
    fn forwarded(&self, hop: Hop<'_>, host: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let client = hop.client.to_string().into_bytes();
        let theirs = |name: &str| -> Vec<&[u8]> {
            let lines = self.head.fields.iter().filter(|f| hop.trusted && f.is(name));
            lines.map(|f| &f.value[..]).collect()
        };
        let last = |name: &str| -> Option<String> {
            let joined = theirs(name).join(&b","[..]);
            let mut parts = joined.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            let last = parts.rfind(|part| !part.is_empty())?;
            // What is no text is no value of any of these.
            Some(String::from_utf8(last.to_vec()).unwrap_or("?".into()))
        };
        let hop_https = hop.trusted && self.is_https();
        let proto = last("x-forwarded-proto").map(|proto| proto.to_ascii_lowercase());
        let https = match proto.as_deref() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => hop_https,
        };
        let their_host = last("x-forwarded-host").and_then(|text| Host::read(text.as_bytes()));
        let port_text = |host: &Host| host.port.map_or(String::new(), |port| format!(":{port}"));
        let public_host = match &their_host {
            Some(host) => format!("{}{}", host.name, port_text(host)).into_bytes(),
            None => host.to_vec(),
        };
        let named = if their_host.is_some() { &their_host } else { &self.host };
        let of_scheme = match (https, &self.host) {
            (true, _) => 443,
            (false, Some(_)) => 80,
            (false, None) => hop.port,
        };
        let port = last("x-forwarded-port")
            .and_then(|text| reader::digits(text.as_bytes()))
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .or(named.as_ref().and_then(|host| host.port))
            .unwrap_or(of_scheme);
        let scheme = |https| if https { "https" } else { "http" };
        let mut chain: Vec<&[u8]> = theirs("x-forwarded-for");
        chain.retain(|value| !value.is_empty());
        chain.push(&client);
        let mut fields = vec![
            ("x-forwarded-for", chain.join(&b", "[..])),
            ("x-forwarded-proto", scheme(https).into()),
            ("x-forwarded-host", public_host),
            ("x-forwarded-port", port.to_string().into_bytes()),
        ];
        let elements = theirs("forwarded");
        if !elements.is_empty() {
            let node = match hop.client {
                IpAddr::V4(ip) => format!("for={ip}"),
                IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
            };
            let proto = scheme(hop_https).as_bytes();
            let ours = [node.as_bytes(), b";host=\"", host, b"\";proto=", proto].concat();
            let mut elements = elements;
            if !elements.iter().all(|value| closes_its_quotes(value)) {
                elements.clear();
            }
            elements.retain(|value| !value.is_empty());
            elements.push(&ours);
            fields.push(("forwarded", elements.join(&b", "[..])));
        }
        fields
    }
}

/// What Plug.RequestId takes, and a log shows.
fn is_request_id(value: &[u8]) -> bool {
    (20..=200).contains(&value.len()) && value.iter().all(|b| (b' '..=b'~').contains(b))
}

/// traceparent = version "-" trace-id "-" parent-id "-" trace-flags (W3C Trace Context), to which
/// later versions may add.
fn is_traceparent(value: &[u8]) -> bool {
    // Whatever later versions add, be it no text at all.
    let text = String::from_utf8_lossy(value);
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, parent, flags, more @ ..] = &parts[..] else { return false };
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, len: usize| is_hex(part, len) && part.bytes().any(|b| b != b'0');
    is_hex(version, 2)
        && *version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && (more.is_empty() || *version != "00")
}

/// Whether something put behind the value, after a comma, would be an element of its own
/// (quoted-string, RFC 9110 section 5.6.4).
pub fn closes_its_quotes(value: &[u8]) -> bool {
    let mut quoted = false;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(bytes.next()),
            _ => {}
        }
    }
    !quoted
}

/// A response that the gateway must take.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: ResponseHead,
    pub framing: Framing,
    pub keep_alive: bool,
    pub websocket: bool,
}

pub fn response(head: ResponseHead, to_head: bool) -> Result<Response, &'static str> {
    let fields = &head.fields;
    connection_is_bounded(fields)?;
    let mut lengths = lengths_of_response(fields);
    if lengths.iter().any(|l| reader::digits(l).is_none()) {
        return Err("bad length");
    }
    lengths.dedup_by_key(|length| reader::digits(length));
    let framing = match framing(&lengths, fields, head.minor)? {
        _ if has_no_body(head.status, to_head) => Framing::None,
        Framing::None if !fields.iter().any(|f| f.is("content-length")) => Framing::Close,
        framing => framing,
    };
    let closes = reader::has_member(fields, "connection", "close");
    let stays = reader::has_member(fields, "connection", "keep-alive");
    Ok(Response {
        framing,
        keep_alive: framing != Framing::Close && !closes && (head.minor == 1 || stays),
        websocket: reader::has_member(fields, "connection", "upgrade")
            && fields.iter().any(|f| f.is("upgrade") && f.value.eq_ignore_ascii_case(b"websocket")),
        head,
    })
}

/// RFC 9112 section 6.3, rule 1.
pub fn has_no_body(status: u16, to_head: bool) -> bool {
    to_head || status < 200 || status == 204 || status == 304
}

impl Response {
    /// The one length that goes on where there were several.
    pub fn merged_length(&self) -> Option<&str> {
        let lengths = lengths_of_response(&self.head.fields);
        let first = lengths.first().filter(|_| lengths.len() > 1 && self.head.status != 204)?;
        std::str::from_utf8(first).ok()
    }

    /// The lines that the client must see as the endpoint sent them.
    pub fn kept(&self) -> Vec<Field> {
        let named = reader::members(&self.head.fields, "connection");
        let status = self.head.status;
        let keeps = |field: &&Field| {
            let name = field.name.to_ascii_lowercase();
            let name = name.as_str();
            let is_named = !ESSENTIAL.contains(&name)
                && named.iter().any(|m| m.eq_ignore_ascii_case(name.as_bytes()));
            !HOP_BY_HOP.contains(&name)
                && !is_named
                // RFC 9110 section 8.6
                && !(name == "content-length" && (status < 200 || status == 204))
                && !(name == "content-length" && self.merged_length().is_some())
        };
        self.head.fields.iter().filter(keeps).cloned().collect()
    }
}

/// Whether `Connection` names something that is not removed anyway. Trailers that it names are for
/// the gateway only (RFC 9110 section 7.6.1), and then the gateway leaves all of them out.
pub fn names_fields(fields: &[Field]) -> bool {
    reader::members(fields, "connection")
        .iter()
        .any(|m| !HOP_BY_HOP.iter().any(|name| m.eq_ignore_ascii_case(name.as_bytes())))
}

/// Trailers that go on: none that would change what the message means (RFC 9110 section 6.5.1).
pub fn kept_trailers(body: &ChunkedBody) -> Vec<(String, Vec<u8>)> {
    const MEANINGFUL: [&str; 17] = [
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "set-cookie",
        "trailer",
    ];
    let keeps = |field: &&Field| {
        // Servers that hand fields on as variables cannot tell the two apart.
        let name = field.name.to_ascii_lowercase().replace('_', "-");
        let name = name.as_str();
        !MEANINGFUL.contains(&name)
            && name != "www-authenticate"
            && !HOP_BY_HOP.contains(&name)
            && !FORWARDED.contains(&name)
    };
    body.trailers.iter().filter(keeps).map(|f| (f.name.clone(), f.value.clone())).collect()
}
