//! Finding the end of a head, byte by byte strict: every line ends with CRLF. RFC 9112
//! section 2.2 would let a recipient take a bare LF for a line end; where two parsers differ on
//! that, requests are smuggled, so nobody who means well gets it here.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::fields::Field;
use crate::lines::offset_in;

/// Most header fields a head can have here, whatever the configuration says.
const MAX_FIELDS: usize = 512;

/// Nearly every head has fewer. Room for these is on the stack, which is left as small as it can be:
/// between two requests the kernel has the cache to itself.
const FEW: usize = 64;

/// Room for the fields of one head.
pub struct Storage<'b> {
    few: Fields<'b, FEW>,
    many: Option<Box<Fields<'b, MAX_FIELDS>>>,
}

struct Fields<'b, const N: usize> {
    headers: [MaybeUninit<Header<'b>>; N],
    /// What each of them means.
    kinds: [Field; N],
}

impl<const N: usize> Fields<'_, N> {
    const fn new() -> Self {
        Fields { headers: [const { MaybeUninit::uninit() }; N], kinds: [Field::Other; N] }
    }
}

pub const fn storage<'b>() -> Storage<'b> {
    Storage { few: Fields::new(), many: None }
}

impl<'b> Storage<'b> {
    /// Calls `parse` with room for `most` fields, or for as many of them as there mostly are, and
    /// with more only if that is too little; then the room for what they mean.
    pub(crate) fn parse<'h, H, T>(
        &'h mut self,
        most: usize,
        mut head: impl FnMut() -> H,
        parse: impl Fn(&mut H, &'h mut [MaybeUninit<Header<'b>>]) -> httparse::Result<T>,
    ) -> (H, httparse::Result<T>, &'h mut [Field]) {
        let most = most.min(MAX_FIELDS);
        let mut first = head();
        let parsed = parse(&mut first, &mut self.few.headers[..most.min(FEW)]);
        if most <= FEW || !matches!(parsed, Err(httparse::Error::TooManyHeaders)) {
            return (first, parsed, &mut self.few.kinds);
        }
        let many = self.many.insert(Box::new(Fields::new()));
        let mut again = head();
        let parsed = parse(&mut again, &mut many.headers[..most]);
        (again, parsed, &mut many.kinds)
    }
}

/// Whether each line of a whole head ends with CRLF, which httparse does not insist on. It has seen
/// to it that line feeds are nowhere else, so that only the byte before each line counts.
pub(crate) fn lines_end_well(head: &[u8], headers: &[Header<'_>]) -> bool {
    let line_begins = |at: usize| head[..at].ends_with(b"\r\n");
    headers.iter().all(|header| line_begins(offset_in(head, header.name.as_bytes())))
        && head.ends_with(b"\r\n\r\n")
}

/// Most empty lines that are overlooked before a request line.
const MAX_EMPTY_LINES: u8 = 8;

/// Overlooks empty lines before a request line (RFC 9112 section 2.2): old clients send one behind a
/// body, and some send them to keep a connection open. They are no request that has begun.
#[derive(Default)]
pub struct EmptyLines(u8);

impl EmptyLines {
    /// How many bytes to skip, and whether a request begins behind them. What is too much or is half
    /// of an empty line and something else is left for the parser to refuse.
    pub fn skip(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while bytes[at..].starts_with(b"\r\n") && self.0 < MAX_EMPTY_LINES {
            self.0 += 1;
            at += 2;
        }
        if bytes.get(at) == Some(&0) {
            // A header of the PROXY protocol (version 2) begins so, and its sender is told that.
            return (0, true);
        }
        (at, !matches!(bytes[at..], [] | [b'\r']))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The head is this long, empty line included.
    Whole(usize),
    /// Not yet; whether a line has ended since the last look.
    Partial { new_line: bool },
    /// A line feed without its carriage return.
    BareLf,
}

/// Looks for the end of one head in a buffer that grows.
#[derive(Default)]
pub struct HeadScan {
    scanned: usize,
    line_start: usize,
}

impl HeadScan {
    pub fn find(&mut self, bytes: &[u8]) -> Found {
        let mut new_line = false;
        for at in memchr::memchr_iter(b'\n', &bytes[self.scanned..]) {
            let at = self.scanned + at;
            if at == 0 || bytes[at - 1] != b'\r' {
                return Found::BareLf;
            }
            if at - 1 == self.line_start {
                return Found::Whole(at + 1);
            }
            self.line_start = at + 1;
            new_line = true;
        }
        self.scanned = bytes.len();
        Found::Partial { new_line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for split in 0..head.len() {
            let mut scan = HeadScan::default();
            let first = scan.find(&head[..split]);
            let found = match first {
                Found::Whole(n) => Found::Whole(n),
                _ => scan.find(head),
            };
            assert_eq!(found, Found::Whole(27), "split at {split}");
        }
    }

    #[test]
    fn empty_lines_are_overlooked_up_to_a_number() {
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
    fn a_bare_line_feed_is_no_line_end() {
        assert_eq!(HeadScan::default().find(b"GET / HTTP/1.1\nHost: a\n\n"), Found::BareLf);
        assert_eq!(HeadScan::default().find(b"\n"), Found::BareLf);
    }
}
