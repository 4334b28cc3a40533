//! Finding the end of a head, byte by byte strict: every line ends with CRLF. RFC 9112
//! section 2.2 would let a recipient take a bare LF for a line end; where two parsers differ on
//! that, requests are smuggled, so nobody who means well gets it here.

use std::mem::MaybeUninit;

use httparse::Header;

use super::fields::Field;

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
    pub(super) fn parse<'h, H, T>(
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
/// to it that line feeds are nowhere else, so that only the byte before each line counts. One empty
/// line may come before the first, which begins at `first` (RFC 9112 section 2.2).
pub(super) fn lines_end_well(head: &[u8], first: usize, headers: &[Header<'_>]) -> bool {
    let line_begins = |at: usize| head[..at].ends_with(b"\r\n");
    (first == 0 || (first == 2 && line_begins(first)))
        && headers.iter().all(|header| line_begins(offset_in(head, header.name.as_bytes())))
        && head.ends_with(b"\r\n\r\n")
}

/// Where `part`, which is a slice of `whole`, begins in it.
pub(super) fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
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
            // An empty line ends the head, unless nothing came before it.
            if at - 1 == self.line_start && self.line_start > 0 {
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
    fn a_bare_line_feed_is_no_line_end() {
        assert_eq!(HeadScan::default().find(b"GET / HTTP/1.1\nHost: a\n\n"), Found::BareLf);
        assert_eq!(HeadScan::default().find(b"\n"), Found::BareLf);
    }
}
