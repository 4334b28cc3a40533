//! One request as its record has it.

use std::time::Instant;

use super::timings::Timings;
use crate::error::{Error, Side};

/// A bit each, of what a record is for.
pub(super) const LOG: u8 = 1;
pub(super) const SAMPLED: u8 = 2;
/// Somebody hears notices.
pub(super) const NOTICES: u8 = 4;
/// Log lines have query strings.
pub(super) const QUERY: u8 = 8;

/// What one request is to be recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(pub(super) u8);

impl Wanted {
    pub(super) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub fn query(self) -> bool {
        self.has(QUERY)
    }
}

/// The texts of a record, in the order in which they are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Method,
    Host,
    Path,
    UserAgent,
    Referer,
    TraceId,
    Client,
    /// Known only after the capture, and so the last two.
    Service,
    RequestId,
}

const FIELDS: usize = 9;
/// Each text's end, as bytes at the front.
const HEADER: usize = FIELDS * 4;

/// Longest text that is kept of each field: what clients send may be as long as a head.
const MOST: usize = 2048;

/// All texts of a record in one allocation: where each ends, then the texts.
#[derive(Clone)]
pub struct Fields(Vec<u8>);

impl Fields {
    pub fn capture(texts: [&[u8]; FIELDS - 2]) -> Fields {
        let texts = texts.map(|text| &text[..text.len().min(MOST)]);
        // Room for the two that follow.
        let room = HEADER + 96 + texts.iter().map(|t| t.len()).sum::<usize>();
        let mut fields = Vec::with_capacity(room);
        fields.resize(HEADER, 0);
        let mut fields = Fields(fields);
        for (at, text) in texts.iter().enumerate() {
            fields.append(at, |out| out.extend_from_slice(text));
        }
        fields
    }

    pub fn complete(&mut self, service: &[u8], request_id: impl FnOnce(&mut Vec<u8>)) {
        self.append(Field::Service as usize, |out| out.extend_from_slice(service));
        self.append(Field::RequestId as usize, request_id);
    }

    fn append(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.0);
        // A record is no longer than its limits allow, far below 4 GiB.
        let end = self.0.len() as u32;
        self.0[at * 4..at * 4 + 4].copy_from_slice(&end.to_ne_bytes());
    }

    fn end(&self, at: usize) -> usize {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at * 4..at * 4 + 4]);
        u32::from_ne_bytes(bytes) as usize
    }

    pub fn get(&self, field: Field) -> &[u8] {
        let at = field as usize;
        let start = if at == 0 { HEADER } else { self.end(at - 1) };
        self.0.get(start..self.end(at)).unwrap_or(b"")
    }
}

/// A request under way that is to be recorded.
pub struct Draft {
    pub fields: Fields,
    pub wanted: Wanted,
    /// When its head had been read.
    pub began: Instant,
}

/// What went wrong with a request.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// As in the statistics.
    pub kind: &'static str,
    /// On whose side.
    pub side: Side,
    /// What exactly broke the protocol.
    pub reason: Option<&'static str>,
}

impl Failure {
    pub(crate) fn of(error: &Error) -> Failure {
        Failure { kind: error.kind(), side: error.side(), reason: error.reason() }
    }
}

/// A request that is over.
pub struct Record {
    pub fields: Fields,
    pub(crate) wanted: Wanted,
    /// When its head had been read.
    pub began: Instant,
    pub timings: Timings,
    /// What the client was told; 0: nothing, it was gone.
    pub status: u16,
    /// HTTP/1.`minor`; 2 stands for HTTP/2.
    pub minor: u8,
    /// Body bytes, framing included.
    pub received: u64,
    pub sent: u64,
    pub error: Option<Failure>,
}

impl Record {
    pub(super) fn is_logged(&self) -> bool {
        self.wanted.has(LOG)
    }

    pub(super) fn is_sampled(&self) -> bool {
        self.wanted.has(SAMPLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_found_again() {
        let long = [b'x'; 5000];
        let mut fields = Fields::capture([b"GET", b"a.test", &long, b"", b"r", b"t", b"::1"]);
        assert_eq!(fields.get(Field::Service), b"");
        fields.complete(b"A", |out| out.extend_from_slice(b"id"));
        assert_eq!(fields.get(Field::Method), b"GET");
        assert_eq!(fields.get(Field::Path), &long[..MOST]);
        assert_eq!(fields.get(Field::UserAgent), b"");
        assert_eq!(fields.get(Field::Client), b"::1");
        assert_eq!(
            (fields.get(Field::Service), fields.get(Field::RequestId)),
            (&b"A"[..], &b"id"[..])
        );
    }
}
