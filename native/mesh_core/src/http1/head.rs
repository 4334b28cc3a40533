//! Finding the end of a head, byte by byte strict: every line ends with CRLF. RFC 9112
//! section 2.2 would let a recipient take a bare LF for a line end; where two parsers differ on
//! that, requests are smuggled, so nobody who means well gets it here.

use std::mem::MaybeUninit;

use httparse::Header;

/// Most header fields a head can have here, whatever the configuration says.
pub const MAX_FIELDS: usize = 512;

/// Room for the fields of one head, on the stack and not initialised.
pub type Storage<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

pub const fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
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
