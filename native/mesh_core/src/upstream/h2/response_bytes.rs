//! A response as HTTP/1.1, until the exchange reads it.

use std::collections::VecDeque;

use bytes::Bytes;

/// A part of the body of this size is kept as it is. Smaller ones are copied: each may hold a whole buffer of h2.
const LONG: usize = 4 * 1024;
/// Fits the head and the message of most calls.
const USUAL: usize = 2 * 1024;
/// A part of copies ends here.
const MAX_COPIED: usize = 16 * 1024;

#[derive(Default)]
pub struct ResponseBytes {
    parts: VecDeque<Part>,
    /// How much of the first one has been read.
    at: usize,
}

struct Part {
    bytes: Content,
    /// How much of them is data of the body, which takes the endpoint's window until all of them are read.
    data: usize,
}

enum Content {
    Copied(Vec<u8>),
    Kept(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Content::Copied(bytes) => bytes,
            Content::Kept(bytes) => bytes,
        }
    }
}

impl ResponseBytes {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.bytes().len()).sum::<usize>() - self.at
    }

    /// Where heads and framing are written to. Something must be written.
    pub fn text(&mut self) -> &mut Vec<u8> {
        self.copied().0
    }

    /// Adds a part of the body.
    pub fn data(&mut self, data: Bytes) {
        let size = data.len();
        if size >= LONG {
            self.parts.push_back(Part { bytes: Content::Kept(data), data: size });
        } else if size > 0 {
            let (bytes, taken) = self.copied();
            bytes.extend_from_slice(&data);
            *taken += size;
        }
    }

    /// The last part, if it may have more copies, and how much of it is data.
    fn copied(&mut self) -> (&mut Vec<u8>, &mut usize) {
        let has_room =
            |part: &Part| matches!(&part.bytes, Content::Copied(bytes) if bytes.len() < MAX_COPIED);
        if !self.parts.back().is_some_and(has_room) {
            self.parts
                .push_back(Part { bytes: Content::Copied(Vec::with_capacity(USUAL)), data: 0 });
        }
        match self.parts.back_mut() {
            Some(Part { bytes: Content::Copied(bytes), data }) => (bytes, data),
            _ => unreachable!("the last part is one of copies"),
        }
    }

    /// Moves bytes. Returns how many, and how much of the endpoint's window is free again.
    pub fn read(&mut self, into: &mut [u8]) -> (usize, usize) {
        let (mut read, mut freed) = (0, 0);
        while let Some(part) = self.parts.front() {
            let left = &part.bytes()[self.at..];
            let n = left.len().min(into.len() - read);
            into[read..read + n].copy_from_slice(&left[..n]);
            read += n;
            if n < left.len() {
                self.at += n;
                break;
            }
            freed += part.data;
            self.parts.pop_front();
            self.at = 0;
        }
        (read, freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_in_order_and_free_their_window() {
        let mut bytes = ResponseBytes::default();
        let mut written = Vec::new();
        let mut window = 0;
        for round in 0..100_usize {
            let size = [0, 1, LONG - 1, LONG, 5 * LONG][round % 5];
            let data = Bytes::from(vec![round as u8; size]);
            bytes.text().extend_from_slice(b"head");
            bytes.data(data.clone());
            written.extend_from_slice(b"head");
            written.extend_from_slice(&data);
            window += size;
        }
        assert_eq!(bytes.len(), written.len());
        let (mut all, mut into) = (Vec::new(), [0; 3000]);
        while !bytes.is_empty() {
            let (read, freed) = bytes.read(&mut into);
            all.extend_from_slice(&into[..read]);
            window -= freed;
            assert_eq!(bytes.len(), written.len() - all.len());
        }
        assert!(all == written && window == 0);
    }
}
