//! A client of HTTP/2 that sends whatever it likes: the text of a request of HTTP/1.1, line by line,
//! as the fields of a stream. Between HTTP/2, where a length is a length, and HTTP/1.1, where it is
//! what a line says, requests are smuggled; what leaves the gateway must be the one that came.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, MAX_FRAME, PREFACE, RST_STREAM, SETTINGS,
    frame, put,
};
use crate::gateway::hash;

/// The one request that is sent.
pub struct Sent {
    pub method: Vec<u8>,
    pub path: Vec<u8>,
    /// Names in lower case, pseudo fields left out.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    block: Vec<u8>,
}

/// `None`: it has no first line, or is too long for one frame each.
pub fn translate(data: &[u8]) -> Option<Sent> {
    let end = data.windows(4).position(|w| w == b"\r\n\r\n")?;
    let (head, body) = (&data[..end], &data[end + 4..]);
    let mut lines = split_lines(head).into_iter();
    let first = lines.next()?;
    let space = first.iter().position(|b| *b == b' ')?;
    let (method, rest) = (&first[..space], &first[space + 1..]);
    let path = rest.strip_suffix(b" HTTP/1.1").unwrap_or(rest);
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = lines
        .map(|line| {
            let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            (line[..colon].to_ascii_lowercase(), value.strip_prefix(b" ").unwrap_or(value).to_vec())
        })
        .collect();
    // The first Host is the authority, stays a field, or both.
    let mut authority = None;
    if let Some(at) = fields.iter().position(|(name, _)| name == b"host") {
        match hash(data) % 4 {
            0 => {}
            1 => authority = Some(fields[at].1.clone()),
            _ => authority = Some(fields.remove(at).1),
        }
    }
    let mut block = Vec::new();
    put(&mut block, b":method", method);
    put(&mut block, b":scheme", b"http");
    put(&mut block, b":path", path);
    if let Some(authority) = &authority {
        put(&mut block, b":authority", authority);
    }
    for (name, value) in &fields {
        put(&mut block, name, value);
    }
    let body = body.to_vec();
    let fits = block.len() <= MAX_FRAME && body.len() <= MAX_FRAME;
    let (method, path) = (method.to_vec(), path.to_vec());
    fits.then_some(Sent { method, path, fields, body, block })
}

/// At CRLF only: a CR or a LF alone is part of a value, and an attack.
fn split_lines(mut head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = head.windows(2).position(|w| w == b"\r\n") {
        lines.push(&head[..end]);
        head = &head[end + 2..];
    }
    lines.push(head);
    lines
}

/// Sends it, and waits until the gateway has done with it, one way or another.
pub fn send(sent: &Sent, client: &mut TcpStream) -> std::io::Result<()> {
    let mut out = PREFACE.to_vec();
    frame(SETTINGS, 0, 0, b"", &mut out);
    let ends = if sent.body.is_empty() { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | ends, 1, &sent.block, &mut out);
    if !sent.body.is_empty() {
        frame(DATA, END_STREAM, 1, &sent.body, &mut out);
    }
    client.write_all(&out)?;
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        client.read_exact(&mut payload)?;
        let is_over = match head[3] {
            HEADERS | DATA => head[4] & END_STREAM != 0,
            RST_STREAM | GOAWAY => true,
            _ => false,
        };
        if is_over {
            return Ok(());
        }
    }
}
