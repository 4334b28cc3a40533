//! The bytes of TLS records on their way. A connection that waits owns no buffer.

use std::cell::RefCell;

/// Received records: the longest one (RFC 8446 section 5.2) fits several times.
const INCOMING: usize = 64 * 1024;
/// How much is encrypted at once.
pub const OUTGOING: usize = 64 * 1024;
/// How many spare buffers each thread keeps.
const SPARE: usize = 16;

thread_local! {
    static INCOMING_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encrypted bytes that have not been sent.
#[derive(Default)]
pub struct Outgoing {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// Room for more. It is zeroed only when the buffer grows.
    pub fn room(&mut self, size: usize) -> &mut [u8] {
        if self.data.is_empty() {
            self.data = SCRATCH.take();
        }
        if self.data.len() < self.end + size {
            self.data.resize(self.end + size, 0);
        }
        &mut self.data[self.end..self.end + size]
    }

    pub fn advance(&mut self, n: usize) {
        self.end += n;
    }

    /// Returns the buffer, which is empty.
    pub fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        let data = std::mem::take(&mut self.data);
        if (1..=2 * OUTGOING).contains(&data.len()) {
            SCRATCH.set(data);
        }
    }
}

/// Received records that have not been processed.
#[derive(Default)]
pub struct Incoming {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    pub fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The room for more, which is never empty: a record that is not whole fits several times.
    pub fn room(&mut self) -> &mut [u8] {
        if self.data.is_empty() {
            let spare = INCOMING_BUFFERS.with_borrow_mut(Vec::pop);
            self.data = spare.unwrap_or_else(|| vec![0; INCOMING]);
        }
        if self.start > 0 && self.data.len() - self.end < INCOMING / 2 {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.data[self.end..]
    }

    pub fn advance(&mut self, n: usize) {
        self.end += n;
    }

    /// Returns the buffer if it is empty.
    pub fn release(&mut self) {
        if self.is_empty() && !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            INCOMING_BUFFERS.with_borrow_mut(|spare| {
                if spare.len() < SPARE {
                    spare.push(data);
                }
            });
        }
    }
}
