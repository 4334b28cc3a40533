//! Records of single requests.

use std::time::Instant;

use super::timings::Timings;
use crate::error::{Error, Side};

/// Bits of [`RecordFlags`] and of the observer's mode.
pub(super) const LOG: u8 = 1;
pub(super) const SAMPLED: u8 = 2;
/// Notices are wanted.
pub(super) const NOTICES: u8 = 4;
/// Log lines include query strings.
pub(super) const QUERY: u8 = 8;

/// What to record a request for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFlags(pub(super) u8);

impl RecordFlags {
    pub(super) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Without the access log, which has the requests of this node's clients only.
    pub fn of_peer(self) -> Option<RecordFlags> {
        let flags = RecordFlags(self.0 & !LOG);
        flags.has(SAMPLED).then_some(flags)
    }

    pub fn query(self) -> bool {
        self.has(QUERY)
    }
}

/// The texts of a record, in the order of their capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordField {
    Method,
    Host,
    Path,
    UserAgent,
    Referer,
    TraceId,
    Client,
    /// This and the next are known only after the capture, so they come last.
    Service,
    RequestId,
}

const FIELDS: usize = 9;
/// The end offset of each text, at the front of the buffer.
const HEADER: usize = FIELDS * 4;

/// Longest text kept per field: client input may be as long as a head.
const MAX_TEXT: usize = 2048;

/// All texts of a record in one allocation: end offsets, then texts.
#[derive(Clone)]
pub struct RecordFields(Vec<u8>);

impl RecordFields {
    pub fn capture(texts: [&[u8]; FIELDS - 2]) -> RecordFields {
        let texts = texts.map(|text| &text[..text.len().min(MAX_TEXT)]);
        // Room for the two texts that follow.
        let room = HEADER + 96 + texts.iter().map(|t| t.len()).sum::<usize>();
        let mut fields = Vec::with_capacity(room);
        fields.resize(HEADER, 0);
        let mut fields = RecordFields(fields);
        for (at, text) in texts.iter().enumerate() {
            fields.append(at, |out| out.extend_from_slice(text));
        }
        fields
    }

    pub fn complete(&mut self, service: &[u8], request_id: impl FnOnce(&mut Vec<u8>)) {
        self.append(RecordField::Service as usize, |out| out.extend_from_slice(service));
        self.append(RecordField::RequestId as usize, request_id);
    }

    fn append(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.0);
        // Limits keep a record far below 4 GiB.
        let end = self.0.len() as u32;
        self.0[at * 4..at * 4 + 4].copy_from_slice(&end.to_ne_bytes());
    }

    fn end(&self, at: usize) -> usize {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at * 4..at * 4 + 4]);
        u32::from_ne_bytes(bytes) as usize
    }

    pub fn get(&self, field: RecordField) -> &[u8] {
        let at = field as usize;
        let start = if at == 0 { HEADER } else { self.end(at - 1) };
        self.0.get(start..self.end(at)).unwrap_or(b"")
    }
}

/// A request in flight that will be recorded.
pub struct Draft {
    pub fields: RecordFields,
    pub wanted: RecordFlags,
    /// When its head had been read.
    pub began: Instant,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// The kind in the statistics.
    pub kind: &'static str,
    /// The side that caused the failure.
    pub side: Side,
    /// How the protocol was violated.
    pub reason: Option<&'static str>,
}

impl Failure {
    pub(crate) fn of(error: &Error) -> Failure {
        Failure { kind: error.kind(), side: error.side(), reason: error.reason() }
    }
}

/// A finished request.
pub struct Record {
    pub fields: RecordFields,
    pub(crate) wanted: RecordFlags,
    /// When its head had been read.
    pub began: Instant,
    pub timings: Timings,
    /// The response status. 0: none, because the client was gone.
    pub status: u16,
    /// HTTP/1.`minor`; 2 stands for HTTP/2.
    pub minor: u8,
    /// Body bytes, framing included.
    pub received: u64,
    pub sent: u64,
    pub error: Option<Failure>,
    pub hop: Option<Hop>,
    /// The status of a gRPC call.
    pub grpc_status: Option<u16>,
}

/// On which side of a hop between two gateways a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// It came from the gateway of another node, which has a record of it, too.
    In,
    /// The gateway of another node served it.
    Out,
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
    fn captured_texts_are_returned_by_field() {
        let long = [b'x'; 5000];
        let mut fields = RecordFields::capture([b"GET", b"a.test", &long, b"", b"r", b"t", b"::1"]);
        assert_eq!(fields.get(RecordField::Service), b"");
        fields.complete(b"A", |out| out.extend_from_slice(b"id"));
        assert_eq!(fields.get(RecordField::Method), b"GET");
        assert_eq!(fields.get(RecordField::Path), &long[..MAX_TEXT]);
        assert_eq!(fields.get(RecordField::UserAgent), b"");
        assert_eq!(fields.get(RecordField::Client), b"::1");
        assert_eq!(
            (fields.get(RecordField::Service), fields.get(RecordField::RequestId)),
            (&b"A"[..], &b"id"[..])
        );
    }
}
