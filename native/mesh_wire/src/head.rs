//! Finds the end of a head.
//!
//! Every line must end with CRLF. RFC 9112 section 2.2 lets a recipient accept a bare LF, but two parsers
//! that disagree about it allow request smuggling.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::fields::FieldKind;
use crate::lines::offset_in;

/// Upper bound on the header fields of a head, whatever the configuration allows.
const MAX_FIELDS: usize = 544;

/// Nearly every head has fewer fields. Room for these is on the stack, which stays small so that it stays
/// in the cache.
const FEW_FIELDS: usize = 64;

pub struct Storage<'b> {
    few: HeaderSlots<'b, FEW_FIELDS>,
    many: Option<Box<HeaderSlots<'b, MAX_FIELDS>>>,
}

struct HeaderSlots<'b, const N: usize> {
    headers: [MaybeUninit<Header<'b>>; N],
    kinds: [FieldKind; N],
}

impl<const N: usize> HeaderSlots<'_, N> {
    const fn new() -> Self {
        HeaderSlots { headers: [const { MaybeUninit::uninit() }; N], kinds: [FieldKind::Other; N] }
    }
}

pub const fn storage<'b>() -> Storage<'b> {
    Storage { few: HeaderSlots::new(), many: None }
}

impl<'b> Storage<'b> {
    /// Calls `parse` with room for `FEW_FIELDS` fields, and again with room for `max` fields if that was too
    /// little. Returns the storage for their kinds too.
    pub(crate) fn parse<'h, H, T>(
        &'h mut self,
        max: usize,
        mut head: impl FnMut() -> H,
        parse: impl Fn(&mut H, &'h mut [MaybeUninit<Header<'b>>]) -> httparse::Result<T>,
    ) -> (H, httparse::Result<T>, &'h mut [FieldKind]) {
        let max = max.min(MAX_FIELDS);
        let mut first = head();
        let parsed = parse(&mut first, &mut self.few.headers[..max.min(FEW_FIELDS)]);
        if max <= FEW_FIELDS || !matches!(parsed, Err(httparse::Error::TooManyHeaders)) {
            return (first, parsed, &mut self.few.kinds);
        }
        let many = self.many.insert(Box::new(HeaderSlots::new()));
        let mut again = head();
        let parsed = parse(&mut again, &mut many.headers[..max]);
        (again, parsed, &mut many.kinds)
    }
}

/// Whether every line of a complete head ends with CRLF, which httparse does not enforce. It does reject
/// line feeds elsewhere, so only the bytes before each line matter.
pub(crate) fn lines_end_well(head: &[u8], headers: &[Header<'_>]) -> bool {
    let line_begins = |at: usize| head[..at].ends_with(b"\r\n");
    headers.iter().all(|header| line_begins(offset_in(head, header.name.as_bytes())))
        && head.ends_with(b"\r\n\r\n")
}

/// Copies the lines of the fields that `keeps` accepts, in contiguous runs. `run` is the start of a run that
/// begins before the first field.
pub(crate) fn copy_fields<'h, 'b>(
    head: &[u8],
    headers: &'h [Header<'b>],
    mut run: Option<usize>,
    out: &mut Vec<u8>,
    mut keeps: impl FnMut(usize, &'h Header<'b>) -> bool,
) {
    for (i, header) in headers.iter().enumerate() {
        let start = offset_in(head, header.name.as_bytes());
        if keeps(i, header) {
            run.get_or_insert(start);
        } else if let Some(from) = run.take() {
            out.extend_from_slice(&head[from..start]);
        }
    }
    if let Some(from) = run {
        out.extend_from_slice(&head[from..head.len() - 2]);
    }
}

/// How many empty lines may precede a request line.
const MAX_EMPTY_LINES: u8 = 8;

/// Skips empty lines before a request line (RFC 9112 section 2.2). Old clients send one after a body; some
/// send them to keep a connection open. They do not begin a request.
#[derive(Default)]
pub struct EmptyLines(u8);

impl EmptyLines {
    /// Returns how many bytes to skip, and whether a request begins after them. The parser rejects excess
    /// empty lines and a CR without LF.
    pub fn skip(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while bytes[at..].starts_with(b"\r\n") && self.0 < MAX_EMPTY_LINES {
            self.0 += 1;
            at += 2;
        }
        if bytes.get(at) == Some(&0) {
            // A PROXY protocol header (version 2) begins like this. Its sender gets an error that says so.
            return (0, true);
        }
        (at, !matches!(bytes[at..], [] | [b'\r']))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadEnd {
    /// The head ends after this many bytes, including the empty line.
    Whole(usize),
    /// The head is incomplete. `new_line`: a line has ended since the last call.
    Partial {
        new_line: bool,
    },
    BareLf,
}

/// Searches a growing buffer for the end of one head.
#[derive(Default)]
pub struct HeadScan {
    scanned: usize,
    line_start: usize,
}

impl HeadScan {
    pub fn find(&mut self, bytes: &[u8]) -> HeadEnd {
        let mut new_line = false;
        for at in memchr::memchr_iter(b'\n', &bytes[self.scanned..]) {
            let at = self.scanned + at;
            if at == 0 || bytes[at - 1] != b'\r' {
                return HeadEnd::BareLf;
            }
            if at - 1 == self.line_start {
                return HeadEnd::Whole(at + 1);
            }
            self.line_start = at + 1;
            new_line = true;
        }
        self.scanned = bytes.len();
        HeadEnd::Partial { new_line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_at_any_split() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for split in 0..head.len() {
            let mut scan = HeadScan::default();
            let first = scan.find(&head[..split]);
            let found = match first {
                HeadEnd::Whole(n) => HeadEnd::Whole(n),
                _ => scan.find(head),
            };
            assert_eq!(found, HeadEnd::Whole(27), "split at {split}");
        }
    }

    #[test]
    fn a_limited_number_of_empty_lines_is_skipped() {
        let skip = |bytes: &[u8]| EmptyLines::default().skip(bytes);
        assert_eq!(skip(b""), (0, false));
        assert_eq!(skip(b"GET"), (0, true));
        assert_eq!(skip(b"\r\nG"), (2, true));
        assert_eq!(skip(b"\r\n\r\n\r"), (4, false));
        assert_eq!(skip(b"\r"), (0, false));
        assert_eq!(skip(b"\rG"), (0, true));
        assert_eq!(skip(b"\n"), (0, true));
        assert_eq!(skip(b"\r\n\r\n\0\r\nQUIT\n"), (0, true));
        let mut lines = EmptyLines::default();
        for _ in 0..MAX_EMPTY_LINES {
            assert_eq!(lines.skip(b"\r\n"), (2, false));
        }
        assert_eq!(lines.skip(b"\r\n"), (0, true));
    }

    #[test]
    fn a_bare_line_feed_is_rejected() {
        assert_eq!(HeadScan::default().find(b"GET / HTTP/1.1\nHost: a\n\n"), HeadEnd::BareLf);
        assert_eq!(HeadScan::default().find(b"\n"), HeadEnd::BareLf);
    }
}
