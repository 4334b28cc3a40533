//! Writes response heads of HTTP/1.1, for the worker to read as from any endpoint.

use std::fmt;

use http::StatusCode;
use mesh_wire::fields::{content_length, is_token_char, repeated_length};
use mesh_wire::lines::{field, number};

/// How the end of a response body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By the content-length among the fields, or by the end of the call.
    Length,
    Chunked,
    /// There is no body: the answer to HEAD, 204, 304.
    None,
    /// An interim response (1xx): another head follows.
    Interim,
}

/// Why a head is not sent.
#[derive(Debug, PartialEq, Eq)]
pub enum BadHead {
    Status(i64),
    Name(Vec<u8>),
    Value(Vec<u8>),
    Lengths,
    LengthOfChunks,
    Second,
    TooManyInterim,
    TooLong,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadHead::Status(101) => {
                f.write_str("status 101: a request that is answered in the VM cannot be upgraded")
            }
            BadHead::Status(status) => write!(
                f,
                "status {status}: expected 100..199 for an interim response and 200..999 for any other"
            ),
            BadHead::Name(name) => {
                write!(f, "header name \"{}\" is not a token", name.escape_ascii())
            }
            BadHead::Value(name) => write!(
                f,
                "the value of header \"{}\" has a control character, such as a line break",
                name.escape_ascii()
            ),
            BadHead::Lengths => f.write_str("content-length is not one number"),
            BadHead::LengthOfChunks => f.write_str("a chunked response has a content-length"),
            BadHead::Second => f.write_str("the response has already been sent"),
            BadHead::TooManyInterim => f.write_str("there are too many interim responses"),
            BadHead::TooLong => f.write_str("the response head is too long"),
        }
    }
}

/// A head, and the length that it announces.
pub struct WrittenHead {
    pub bytes: Vec<u8>,
    pub length: Option<u64>,
}

/// Longest head. `limits.head_bytes` allows less.
const MAX_HEAD: usize = 1024 * 1024;

pub fn write_head<'f>(
    status: i64,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    framing: Framing,
) -> Result<WrittenHead, BadHead> {
    let fits = match framing {
        Framing::Interim => (100..200).contains(&status) && status != 101,
        _ => (200..1000).contains(&status),
    };
    let status = match u16::try_from(status) {
        Ok(status) if fits => status,
        _ => return Err(BadHead::Status(status)),
    };
    // Room for a small body, too: most responses are one part.
    let mut bytes = Vec::with_capacity(2048);
    bytes.extend_from_slice(b"HTTP/1.1 ");
    number(&mut bytes, u64::from(status));
    bytes.push(b' ');
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    bytes.extend_from_slice(reason.unwrap_or("").as_bytes());
    bytes.extend_from_slice(b"\r\n");
    let mut length = None;
    for (name, value) in fields {
        if name.is_empty() || !name.iter().all(|byte| is_token_char(*byte)) {
            return Err(BadHead::Name(name.to_vec()));
        }
        if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
            return Err(BadHead::Value(name.to_vec()));
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let repeated = || repeated_length(value).map(|(_, number)| number);
                let number = content_length(value).or_else(repeated).ok_or(BadHead::Lengths)?;
                if length.replace(number).is_some_and(|before| before != number) {
                    return Err(BadHead::Lengths);
                }
                if framing == Framing::Chunked {
                    return Err(BadHead::LengthOfChunks);
                }
            }
            // The framing is written here.
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => continue,
            _ => {}
        }
        field(&mut bytes, name, value);
        if bytes.len() > MAX_HEAD {
            return Err(BadHead::TooLong);
        }
    }
    match framing {
        Framing::Interim => {}
        // A call is over with its response, so the stream is never reused.
        Framing::Chunked => {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\nconnection: close\r\n");
        }
        Framing::Length | Framing::None => bytes.extend_from_slice(b"connection: close\r\n"),
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(WrittenHead { bytes, length })
}

/// What the client gets if the process ends before it has sent a head.
pub const FAILED: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: i64, fields: &[(&str, &str)], framing: Framing) -> Result<String, BadHead> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let written = write_head(status, fields, framing)?;
        Ok(String::from_utf8(written.bytes).unwrap())
    }

    #[test]
    fn heads_are_written_with_their_framing() {
        assert_eq!(
            head(200, &[("content-length", "2"), ("x", "a\tb")], Framing::Length).unwrap(),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: a\tb\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            head(599, &[("transfer-encoding", "chunked")], Framing::Chunked).unwrap(),
            "HTTP/1.1 599 \r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            head(103, &[("link", "<a>")], Framing::Interim).unwrap(),
            "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"
        );
    }

    #[test]
    fn heads_that_could_be_read_in_another_way_are_refused() {
        let long = "a".repeat(MAX_HEAD);
        for (status, name, value, framing) in [
            (99, "a", "", Framing::Length),
            (1000, "a", "", Framing::Length),
            (100, "a", "", Framing::Length),
            (200, "a", "", Framing::Interim),
            (101, "a", "", Framing::Interim),
            (200, "", "", Framing::Length),
            (200, "a b", "", Framing::Length),
            (200, "a:", "", Framing::Length),
            (200, "a\r\nb", "", Framing::Length),
            (200, "a", "b\r\nc: d", Framing::Length),
            (200, "a", "b\nc", Framing::Length),
            (200, "a", "\0", Framing::Length),
            (200, "content-length", "1, 2", Framing::Length),
            (200, "content-length", "1,", Framing::Length),
            (200, "content-length", "1", Framing::Chunked),
            (200, "a", &long, Framing::None),
        ] {
            assert!(head(status, &[(name, value)], framing).is_err(), "{status} {name:?}");
        }
        let twice = [("content-length", "1"), ("Content-Length", "2")];
        assert_eq!(head(200, &twice, Framing::Length), Err(BadHead::Lengths));
    }
}
