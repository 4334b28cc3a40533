//! Decodes chunked bodies strictly while they pass through (RFC 9112 section 7.1).
//!
//! The decoder works in the reader's buffer: it moves the bytes to pass on to the front, where they mostly are
//! already. It drops chunk extensions, and holds trailers back until all are known to be valid and allowed.

use crate::fields;

/// Longest rest of a chunk-size line. Sane chunk extensions are shorter.
const MAX_CHUNK_LINE: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Chunks: sizes, data, trailers.
    Chunked,
    /// Data only, for a receiver without chunked coding (HTTP/1.0, HTTP/2).
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    /// White space after the size, which belongs to an extension (BWS).
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Done,
}

pub struct Decoder {
    state: State,
    output: Output,
    /// Data bytes left in this chunk.
    left: u64,
    digits: u8,
    line: usize,
    trailer: Vec<u8>,
    max_trailer: usize,
    keep_trailers: bool,
    padded_sizes: bool,
    /// Data bytes seen in all chunks.
    pub data: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes consumed from the input.
    pub consumed: usize,
    /// Bytes at the front of the input to pass on.
    pub written: usize,
    /// The body is complete: pass [`Decoder::tail`] on after those bytes.
    pub done: bool,
}

impl Decoder {
    /// `most_trailer` bounds the bytes of the trailer section.
    pub fn new(output: Output, max_trailer: usize) -> Decoder {
        Decoder {
            state: State::SizeStart,
            output,
            left: 0,
            digits: 0,
            line: 0,
            trailer: Vec::new(),
            max_trailer,
            keep_trailers: true,
            padded_sizes: false,
            data: 0,
        }
    }

    /// Drops all trailers if `drop`: some may be hop-by-hop.
    pub fn without_trailers_if(mut self, drop: bool) -> Decoder {
        self.keep_trailers = !drop;
        self
    }

    /// Accepts white space after a size without an extension. Servers on small devices write sizes into a
    /// field of fixed width (`5   `). Not in the grammar, and for responses only: the operator chose their
    /// senders. In a request they would be ambiguous.
    pub fn with_padded_sizes(mut self) -> Decoder {
        self.padded_sizes = true;
        self
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes `bytes` in place, up to the end of the body.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, &'static str> {
        self.decode_up_to(bytes, usize::MAX)
    }

    /// The same, but stops before more than `most` bytes of data.
    pub fn decode_up_to(
        &mut self,
        bytes: &mut [u8],
        mut most: usize,
    ) -> Result<Decoded, &'static str> {
        let mut at = 0;
        let mut written = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                let n = n.min(most);
                if n == 0 {
                    break;
                }
                most -= n;
                pass(bytes, at, n, &mut written);
                at += n;
                self.left -= n as u64;
                self.data += n as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let byte = bytes[at];
            let framing = self.step(byte)?;
            if framing && self.output == Output::Chunked {
                pass(bytes, at, 1, &mut written);
            }
            at += 1;
        }
        Ok(Decoded { consumed: at, written, done: self.state == State::Done })
    }

    /// Processes one byte of framing. Returns whether to pass it on.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        match (self.state, byte) {
            (State::SizeStart, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.left = 0;
                self.digits = 0;
                self.line = 0;
                self.state = State::Size;
                self.digit(byte)
            }
            (State::SizeStart, _) => Err("a chunk size is not hexadecimal"),
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Size | State::SizeSpace, b';') => {
                self.state = State::Extension;
                Ok(false)
            }
            (State::Size | State::Extension, b'\r') => {
                self.state = State::SizeLf;
                Ok(self.left > 0)
            }
            (State::SizeSpace, b'\r') if self.padded_sizes => {
                self.state = State::SizeLf;
                Ok(self.left > 0)
            }
            (State::Size | State::SizeSpace, b'\t' | b' ') => {
                self.state = State::SizeSpace;
                self.behind_size()
            }
            (State::SizeSpace, b'\r') => Err("there is white space after a chunk size"),
            (State::Size | State::SizeSpace, _) => Err("a chunk size is not hexadecimal"),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.behind_size(),
            (State::Extension, _) => Err("a chunk extension has a control character"),
            (State::SizeLf, b'\n') => {
                let more = self.left > 0;
                self.state = if more { State::Data } else { State::Trailer };
                Ok(more)
            }
            (State::SizeLf, _) => Err("a chunk size line does not end with CRLF"),
            (State::DataCr, b'\r') => {
                self.state = State::DataLf;
                Ok(true)
            }
            (State::DataLf, b'\n') => {
                self.state = State::SizeStart;
                Ok(true)
            }
            (State::DataCr | State::DataLf, _) => Err("chunk data does not end with CRLF"),
            (State::Trailer, _) => self.trailer_byte(byte).map(|()| false),
            (State::Data | State::Done, _) => Ok(false),
        }
    }

    /// Counts a dropped byte of the size line against its bound.
    fn behind_size(&mut self) -> Result<bool, &'static str> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE { Err("a chunk extension is too long") } else { Ok(false) }
    }

    fn digit(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.digits += 1;
        if self.digits > 16 {
            return Err("a chunk size has too many digits");
        }
        let value = (byte as char).to_digit(16).unwrap_or(0);
        self.left = self.left << 4 | u64::from(value);
        // The last chunk's digits belong to the tail. Leading zeros are dropped, because the size may turn
        // out to be zero: "0005" is passed on as "5".
        Ok(self.left > 0)
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.trailer.len() >= self.max_trailer {
            return Err("the trailer section is too long");
        }
        self.trailer.push(byte);
        if byte != b'\n' {
            // Otherwise CR CR LF would move the end into the next request.
            return match self.trailer[..] {
                [.., b'\r', _] => Err("a trailer line does not end with CRLF"),
                _ => Ok(()),
            };
        }
        if !self.trailer.ends_with(b"\r\n") {
            return Err("a trailer line does not end with CRLF");
        }
        if self.trailer.len() == 2 || self.trailer.ends_with(b"\r\n\r\n") {
            self.trailer = allowed_trailers(&self.trailer, self.keep_trailers)?;
            self.state = State::Done;
        }
        Ok(())
    }

    /// The end of a complete body: last chunk, trailers, empty line.
    pub fn tail(&self) -> &[u8] {
        match self.output {
            Output::Chunked if self.trailer.is_empty() => b"0\r\n\r\n",
            Output::Chunked => &self.trailer,
            Output::Data => b"",
        }
    }

    /// The trailers to pass on, for a receiver that does not get the tail.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        // `allowed_trailers` wrote the last chunk, then lines with one colon and one space.
        let lines = self.trailer.split(|b| *b == b'\n').skip(1);
        lines.filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = line.iter().position(|b| *b == b':')?;
            Some((&line[..colon], line.get(colon + 2..)?))
        })
    }
}

/// Moves `n` bytes at `from` to the end of the written bytes.
fn pass(bytes: &mut [u8], from: usize, n: usize, written: &mut usize) {
    if from != *written {
        bytes.copy_within(from..from + n, *written);
    }
    *written += n;
}

/// Returns the tail with the allowed trailers, or nothing if none is left.
fn allowed_trailers(section: &[u8], keep: bool) -> Result<Vec<u8>, &'static str> {
    if section == b"\r\n" {
        return Ok(Vec::new());
    }
    let mut storage = [httparse::EMPTY_HEADER; 64];
    let headers = match httparse::parse_headers(section, &mut storage) {
        Ok(httparse::Status::Complete((used, headers))) if used == section.len() => headers,
        _ => return Err("the trailer section is malformed"),
    };
    let mut tail = Vec::with_capacity(section.len() + 3);
    tail.extend_from_slice(b"0\r\n");
    let allowed = headers.iter().filter(|h| keep && !fields::forbidden_in_trailer(h.name));
    for header in allowed {
        tail.extend_from_slice(header.name.as_bytes());
        tail.extend_from_slice(b": ");
        tail.extend_from_slice(header.value);
        tail.extend_from_slice(b"\r\n");
    }
    if tail.len() == 3 {
        return Ok(Vec::new());
    }
    tail.extend_from_slice(b"\r\n");
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes. Returns what is passed on, and how many bytes are left.
    fn run(input: &[u8], step: usize, output: Output) -> Result<(Vec<u8>, usize), &'static str> {
        let mut decoder = Decoder::new(output, 1024);
        let mut passed = Vec::new();
        let mut used = 0;
        for piece in input.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece)?;
            passed.extend_from_slice(&piece[..decoded.written]);
            used += decoded.consumed;
            if decoded.done {
                passed.extend_from_slice(decoder.tail());
                return Ok((passed, input.len() - used));
            }
        }
        Err("not done")
    }

    #[test]
    fn bodies_are_decoded_at_any_split() {
        let body = b"5\r\nhello\r\nA;name=\"v\"\r\n0123456789\r\n000\r\n\r\nGET";
        for step in 1..body.len() {
            let (chunked, left) = run(body, step, Output::Chunked).unwrap();
            assert_eq!(chunked, b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", "step {step}");
            assert!(left <= 3);
            let (data, _) = run(body, step, Output::Data).unwrap();
            assert_eq!(data, b"hello0123456789");
        }
    }

    /// RFC 9112 section 7.1.1: chunk-ext = *( BWS ";" BWS ... BWS is accepted and dropped.
    #[test]
    fn white_space_may_come_before_an_extension() {
        let body = b"5 ;x\r\nhello\r\n5\t \t;x = y ; z\r\nhello\r\n0 ;x\r\n\r\n";
        for step in 1..body.len() {
            let (passed, _) = run(body, step, Output::Chunked).unwrap();
            assert_eq!(passed, b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n", "step {step}");
        }
        for bad in [&b"5 5\r\n"[..], b"5 \n;x\r\n", b"5 \0;x\r\n", b"5 x;y\r\n", b" ;x\r\n"] {
            assert!(run(bad, 1, Output::Chunked).is_err_and(|why| why != "not done"));
        }
        let long = [b"5".as_slice(), &[b' '; 1025], b";x\r\n"].concat();
        assert_eq!(run(&long, 64, Output::Chunked).unwrap_err(), "a chunk extension is too long");
    }

    #[test]
    fn padded_sizes_are_accepted_only_where_allowed() {
        let mut body = *b"5   \r\nhello\r\n0\t\r\n\r\n";
        let mut decoder = Decoder::new(Output::Data, 1024).with_padded_sizes();
        let decoded = decoder.decode(&mut body).unwrap();
        assert_eq!((&body[..decoded.written], decoded.done), (&b"hello"[..], true));
        let refused = Decoder::new(Output::Data, 1024).decode(&mut b"5   \r\n".to_vec());
        assert_eq!(refused, Err("there is white space after a chunk size"));
        let mut decoder = Decoder::new(Output::Data, 1024).with_padded_sizes();
        assert!(decoder.decode(&mut b"5 5\r\n".to_vec()).is_err());
    }

    #[test]
    fn trailers_pass_unless_they_change_the_message() {
        let body = b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: evil\r\n\r\n";
        for step in 1..body.len() {
            let (passed, _) = run(body, step, Output::Chunked).unwrap();
            assert_eq!(passed, b"0\r\nX-Sum: 1\r\n\r\n");
        }
        assert_eq!(run(b"0\r\nHost: evil\r\n\r\n", 64, Output::Chunked).unwrap().0, b"0\r\n\r\n");
    }

    #[test]
    fn trailers_are_available_one_by_one() {
        let mut decoder = Decoder::new(Output::Data, 1024);
        let mut body = *b"0\r\nX-Sum: a: b\r\nHost: evil\r\nX-Empty:\r\n\r\n";
        assert!(decoder.decode(&mut body).unwrap().done);
        let trailers: Vec<_> = decoder.trailers().collect();
        assert_eq!(trailers, [(&b"X-Sum"[..], &b"a: b"[..]), (b"X-Empty", b"")]);
    }

    #[test]
    fn trailers_can_be_dropped() {
        let mut decoder = Decoder::new(Output::Chunked, 1024).without_trailers_if(true);
        let decoded = decoder.decode(&mut b"0\r\nX-Sum: 1\r\n\r\n".to_vec()).unwrap();
        assert!(decoded.done);
        assert_eq!(decoder.tail(), b"0\r\n\r\n");
        let mut decoder = Decoder::new(Output::Chunked, 1024).without_trailers_if(true);
        assert!(decoder.decode(&mut b"0\r\nX Sum: 1\r\n\r\n".to_vec()).is_err());
    }

    #[test]
    fn malformed_chunks_are_rejected() {
        for bad in [
            &b"\r\n"[..],
            b"g\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5\r\nhello\n",
            b"5\r\nhelloX\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;a\0\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"11111111111111111\r\n",
            b"0\r\nbad trailer\r\n\r\n",
            b"0\r\nX: a\n\r\n",
            b"0\r\nX: a\rb",
            b"0\r\n\r\r",
            b"0\r\nX: a\0b\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
        ] {
            for step in [1, 64] {
                let result = run(bad, step, Output::Chunked);
                assert!(
                    matches!(result, Err(why) if why != "not done"),
                    "{:?}",
                    bad.escape_ascii()
                );
            }
        }
        let long = [b"0\r\nX: ".as_slice(), &[b'a'; 2000]].concat();
        assert_eq!(run(&long, 64, Output::Chunked).unwrap_err(), "the trailer section is too long");
    }
}
