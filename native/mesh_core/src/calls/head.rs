//! Takes apart the request head that the gateway has written.
//!
//! It was checked when the client sent it: every line ends with CRLF, and there is one way to read each.

use mesh_wire::fields::content_length;
use mesh_wire::request::BodyLength;

/// The version of HTTP that the client speaks with the first gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientVersion {
    Http10,
    Http11,
    Http2,
}

#[derive(Debug)]
pub struct CallHead<'b> {
    pub method: &'b [u8],
    pub target: &'b [u8],
    /// Names as they came, in the order of the head.
    pub fields: Vec<(&'b [u8], &'b [u8])>,
    pub body: BodyLength,
    pub version: ClientVersion,
}

impl CallHead<'_> {
    /// `None` if the head is none that the gateway writes.
    pub fn parse(head: &[u8]) -> Option<CallHead<'_>> {
        let mut lines = Lines(head);
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let (method, target) = (words.next()?, words.next()?);
        let mut fields = Vec::with_capacity(24);
        let mut body = BodyLength::None;
        let mut version = ClientVersion::Http11;
        for line in lines {
            if line.is_empty() {
                return Some(CallHead { method, target, fields, body, version });
            }
            let colon = memchr::memchr(b':', line)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            match name.len() {
                3 if name.eq_ignore_ascii_case(b"via") => version = received_by(value),
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    body = BodyLength::Length(content_length(value)?);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => body = BodyLength::Chunked,
                _ => {}
            }
            fields.push((name, value));
        }
        None
    }
}

/// The version in the `Via` of the gateway, which is the last one.
fn received_by(via: &[u8]) -> ClientVersion {
    match via {
        [b'2', ..] => ClientVersion::Http2,
        [b'1', b'.', b'0', ..] => ClientVersion::Http10,
        _ => ClientVersion::Http11,
    }
}

struct Lines<'b>(&'b [u8]);

impl<'b> Iterator for Lines<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let end = memchr::memchr(b'\n', self.0)?;
        let line = self.0[..end].strip_suffix(b"\r")?;
        self.0 = &self.0[end + 1..];
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_taken_apart() {
        let head = b"POST /a?b HTTP/1.1\r\nHost: a.test\r\nX-Empty:\r\nX-Space:  a b \t\r\nContent-Length: 5\r\n\
            Via: 1.0 other\r\nVia: 2.0 mesh\r\n\r\nrest: not a field\r\n";
        let head = CallHead::parse(head).unwrap();
        assert_eq!((head.method, head.target), (&b"POST"[..], &b"/a?b"[..]));
        assert_eq!(
            head.fields[..3],
            [(&b"Host"[..], &b"a.test"[..]), (b"X-Empty", b""), (b"X-Space", b"a b")]
        );
        assert_eq!((head.fields.len(), head.body), (6, BodyLength::Length(5)));
        assert_eq!(head.version, ClientVersion::Http2);
    }

    #[test]
    fn what_is_no_whole_head_is_refused() {
        for bad in
            [&b""[..], b"GET", b"GET /\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / a\n\n"]
        {
            assert!(CallHead::parse(bad).is_none(), "{}", bad.escape_ascii());
        }
    }
}
