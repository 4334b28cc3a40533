//! Follows the frames of an endpoint on its open streams, for what h2 does not tell.
//!
//! h2 keeps the heads that wait for a slow client, without a bound. And if a connection ends after a whole response to
//! a request that is still being sent, h2 forgets that the response was whole.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The interim responses that an exchange accepts, the response, and its trailers.
const MAX_HEADS: u32 = 34;
/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Their flags.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const FRAME_HEADER: usize = 9;

#[derive(Default)]
pub struct Heads {
    /// By the id of the stream, while it is open.
    streams: RefCell<HashMap<u32, Seen>>,
    /// The stream that has too many.
    too_many: Cell<u32>,
    at: Cell<Position>,
    /// How many frames have begun.
    pub frames: Cell<usize>,
}

/// What has arrived on a stream.
#[derive(Default)]
struct Seen {
    heads: u32,
    /// Bytes of its DATA frames.
    data: u64,
    /// Of which some are no data.
    is_padded: bool,
    has_data: bool,
    /// The kind of the frame that has ended it.
    ended: Option<u8>,
}

/// Where in a frame the bytes read so far end.
#[derive(Clone, Copy, Default)]
struct Position {
    header: [u8; FRAME_HEADER],
    /// How much of the header has been read.
    size: usize,
    /// How much of the payload has not.
    left: usize,
    /// The stream that ends with the payload.
    ending: u32,
    /// The stream that ends with the field block.
    block_ending: u32,
}

impl Seen {
    fn is_one_head(&self) -> bool {
        self.ended == Some(HEADERS) && self.heads == 1 && !self.has_data
    }
}

impl Heads {
    pub fn opened(&self, stream: u32) {
        self.streams.borrow_mut().insert(stream, Seen::default());
    }

    pub fn closed(&self, stream: u32) {
        self.streams.borrow_mut().remove(&stream);
    }

    /// Whether the connection ends because of this stream.
    pub fn too_many(&self, stream: u32) -> bool {
        self.too_many.get() == stream
    }

    /// Whether the endpoint has sent all of a response without trailers, of which h2 has given out `data` bytes. It
    /// may not have read what the socket has told.
    pub fn is_whole(&self, stream: u32, data: u64) -> bool {
        let streams = self.streams.borrow();
        let whole = |it: &Seen| it.ended == Some(DATA) && it.data == data && !it.is_padded;
        streams.get(&stream).is_some_and(|it| whole(it) || it.is_one_head())
    }

    /// Whether the response is one head.
    pub fn is_one_head(&self, stream: u32) -> bool {
        self.streams.borrow().get(&stream).is_some_and(Seen::is_one_head)
    }

    /// Reads what the endpoint has sent. `false` if a stream has too many heads.
    pub fn read(&self, mut bytes: &[u8]) -> bool {
        let mut at = self.at.get();
        let mut is_fair = true;
        while !bytes.is_empty() {
            let n = if at.size < FRAME_HEADER {
                let n = (FRAME_HEADER - at.size).min(bytes.len());
                at.header[at.size..at.size + n].copy_from_slice(&bytes[..n]);
                at.size += n;
                if at.size == FRAME_HEADER {
                    is_fair &= self.begin(&mut at);
                }
                n
            } else {
                let n = at.left.min(bytes.len());
                at.left -= n;
                n
            };
            bytes = &bytes[n..];
            if at.size == FRAME_HEADER && at.left == 0 {
                at.size = 0;
                if let ending @ 1.. = std::mem::take(&mut at.ending)
                    && let Some(seen) = self.streams.borrow_mut().get_mut(&ending)
                {
                    seen.ended = Some(if at.header[3] == DATA { DATA } else { HEADERS });
                }
            }
        }
        self.at.set(at);
        is_fair
    }

    /// A frame begins.
    fn begin(&self, at: &mut Position) -> bool {
        let [a, b, c, kind, flags, stream @ ..] = at.header;
        at.left = u32::from_be_bytes([0, a, b, c]) as usize;
        self.frames.set(self.frames.get().wrapping_add(1));
        let stream = u32::from_be_bytes(stream) & !(1 << 31);
        let ends = |is: bool| if is { stream } else { 0 };
        match kind {
            DATA => at.ending = ends(flags & END_STREAM != 0),
            HEADERS => {
                at.block_ending = ends(flags & END_STREAM != 0);
                at.ending = if flags & END_HEADERS == 0 { 0 } else { at.block_ending };
            }
            CONTINUATION => at.ending = if flags & END_HEADERS == 0 { 0 } else { at.block_ending },
            _ => {}
        }
        // h2 drops those of streams that are closed.
        match (kind, self.streams.borrow_mut().get_mut(&stream)) {
            (DATA, Some(seen)) => {
                seen.has_data = true;
                seen.data += at.left as u64;
                seen.is_padded |= flags & PADDED != 0;
            }
            (HEADERS, Some(seen)) => {
                seen.heads += 1;
                if seen.heads > MAX_HEADS {
                    self.too_many.set(stream);
                    return false;
                }
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_however_the_bytes_are_cut() {
        let frame = |kind, stream| [&[0, 0, 2, kind, 4, 0x80, 0, 0, stream][..], b"ab"].concat();
        // Others of this stream, and those of others, do not count.
        let round = [frame(HEADERS, 1), frame(0, 1), frame(9, 1), frame(HEADERS, 3)].concat();
        for size in 1..=round.len() {
            let heads = Heads::default();
            heads.opened(1);
            let read = |bytes: &[u8]| bytes.chunks(size).all(|part| heads.read(part));
            assert!((0..MAX_HEADS).all(|_| read(&round)), "{size}");
            assert!(!read(&round) && heads.too_many(1) && !heads.too_many(3), "{size}");
            heads.closed(1);
            assert!(read(&round), "{size}");
        }
    }

    #[test]
    fn a_response_is_whole_with_its_last_byte() {
        let frame =
            |kind, flags, stream| [&[0, 0, 2, kind, flags, 0, 0, 0, stream][..], b"ab"].concat();
        let empty = [0, 0, 0, DATA, END_STREAM, 0, 0, 0, 1];
        let (last, head, both) = (END_STREAM, END_HEADERS, END_HEADERS | END_STREAM);
        for (bytes, data, is_one_head) in [
            (frame(HEADERS, both, 1), 0, true),
            ([frame(HEADERS, last, 1), frame(CONTINUATION, head, 1)].concat(), 0, true),
            ([frame(HEADERS, head, 1), frame(DATA, 0, 1), frame(DATA, last, 1)].concat(), 4, false),
            ([&frame(HEADERS, head, 1)[..], &frame(DATA, last, 3), &empty].concat(), 0, false),
        ] {
            for size in 1..=bytes.len() {
                let heads = Heads::default();
                heads.opened(1);
                for (at, part) in bytes.chunks(size).enumerate() {
                    assert!(heads.read(part));
                    let is_last = at * size + part.len() == bytes.len();
                    assert_eq!(heads.is_whole(1, data), is_last, "{bytes:?}");
                }
                assert!(!heads.is_whole(1, data + 1) || is_one_head);
                assert_eq!(heads.is_one_head(1), is_one_head, "{bytes:?}");
            }
        }
        for bytes in [
            [frame(HEADERS, head, 1), frame(HEADERS, both, 1)].concat(),
            [frame(HEADERS, head, 1), frame(DATA, last | PADDED, 1)].concat(),
        ] {
            let heads = Heads::default();
            heads.opened(1);
            assert!(heads.read(&bytes) && (0..3).all(|data| !heads.is_whole(1, data)), "{bytes:?}");
        }
    }
}
