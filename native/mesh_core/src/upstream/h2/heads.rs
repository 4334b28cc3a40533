//! Counts the heads that an endpoint sends on a stream: h2 keeps those that wait for a slow client, without a bound.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The interim responses that an exchange accepts, the response, and its trailers.
const MAX_HEADS: u32 = 34;
/// The type of a HEADERS frame.
const HEADERS: u8 = 1;
const FRAME_HEADER: usize = 9;

#[derive(Default)]
pub struct Heads {
    /// By the id of the stream, while it is open.
    streams: RefCell<HashMap<u32, u32>>,
    /// The stream that has too many.
    too_many: Cell<u32>,
    at: Cell<Position>,
}

/// Where in a frame the bytes read so far end.
#[derive(Clone, Copy, Default)]
struct Position {
    header: [u8; FRAME_HEADER],
    /// How much of the header has been read.
    size: usize,
    /// How much of the payload has not.
    left: usize,
}

impl Heads {
    pub fn opened(&self, stream: u32) {
        self.streams.borrow_mut().insert(stream, 0);
    }

    pub fn closed(&self, stream: u32) {
        self.streams.borrow_mut().remove(&stream);
    }

    /// Whether the connection ends because of this stream.
    pub fn too_many(&self, stream: u32) -> bool {
        self.too_many.get() == stream
    }

    /// Reads what the endpoint has sent. `false` if a stream has too many heads.
    pub fn read(&self, mut bytes: &[u8]) -> bool {
        let mut at = self.at.get();
        let mut is_fair = true;
        while !bytes.is_empty() {
            if at.left > 0 {
                let n = at.left.min(bytes.len());
                at.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (FRAME_HEADER - at.size).min(bytes.len());
            at.header[at.size..at.size + n].copy_from_slice(&bytes[..n]);
            at.size += n;
            bytes = &bytes[n..];
            if at.size == FRAME_HEADER {
                let [a, b, c, kind, _, stream @ ..] = at.header;
                at = Position { left: u32::from_be_bytes([0, a, b, c]) as usize, ..at };
                at.size = 0;
                is_fair &= kind != HEADERS || self.count(u32::from_be_bytes(stream) & !(1 << 31));
            }
        }
        self.at.set(at);
        is_fair
    }

    fn count(&self, stream: u32) -> bool {
        // h2 drops those of streams that are closed.
        self.streams.borrow_mut().get_mut(&stream).is_none_or(|heads| {
            *heads += 1;
            if *heads > MAX_HEADS {
                self.too_many.set(stream);
            }
            *heads <= MAX_HEADS
        })
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
}
