//! Keeps the beginning of a request's body until the peer that got it has found an endpoint: a peer may refuse
//! the request, which then goes elsewhere, whatever its method.

use std::cell::{Cell, RefCell};

/// How much is kept, and at most one part of the body more. A longer body waits for the peer's word.
const MOST: usize = 64 * 1024;

#[derive(Default)]
pub struct KeptBody {
    bytes: RefCell<Vec<u8>>,
    /// Bytes of the client's body in the last part, until they have been counted as sent.
    pub taken: Cell<usize>,
    /// The peer was asked to say that an endpoint has been found.
    pub asked: Cell<bool>,
    /// An endpoint has been found: nothing needs to be kept.
    gone_ahead: Cell<bool>,
}

impl KeptBody {
    /// A beginning that was sent before.
    pub fn of(bytes: Vec<u8>) -> KeptBody {
        KeptBody { bytes: RefCell::new(bytes), ..KeptBody::default() }
    }

    /// Keeps a part of the body, which is about to be sent.
    pub fn add(&self, taken: usize, parts: [&[u8]; 2]) {
        self.taken.set(taken);
        if !self.gone_ahead.get() {
            let mut bytes = self.bytes.borrow_mut();
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        }
    }

    /// Whether the peer must have found an endpoint before more is sent.
    pub fn is_full(&self) -> bool {
        self.asked.get() && !self.gone_ahead.get() && self.bytes.borrow().len() >= MOST
    }

    /// Whether all that was sent can be sent again.
    pub fn is_whole(&self) -> bool {
        !self.gone_ahead.get()
    }

    pub fn go_ahead(&self) {
        self.gone_ahead.set(true);
        self.bytes.take();
    }

    pub fn append_to(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(&self.bytes.borrow());
    }

    /// How much more fits.
    pub fn room(&self) -> u64 {
        MOST.saturating_sub(self.bytes.borrow().len()) as u64
    }
}
