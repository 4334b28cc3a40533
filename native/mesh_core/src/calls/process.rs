//! What the process of a call has read, and what it has written.

use std::mem;

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::request::BodyLength;

pub struct Process {
    /// The chunk that is being read, and how much of it is done.
    pub part: Vec<u8>,
    pub at: usize,
    /// Decoded bytes at `at`, and how many bytes of the chunk they took.
    pub data: usize,
    pub raw: usize,
    pub body: Body,
    pub response: Response,
    pub interim: usize,
}

pub enum Body {
    Length(u64),
    Chunked(Box<Decoder>),
    /// All of it is in the chunk, or there is none.
    Whole,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// No final head yet.
    None,
    /// Body bytes left, if the length is known.
    Length(Option<u64>),
    Chunked,
    Complete,
    Failed,
}

impl Process {
    pub fn new() -> Process {
        Process {
            part: Vec::new(),
            at: 0,
            data: 0,
            raw: 0,
            body: Body::Whole,
            response: Response::None,
            interim: 0,
        }
    }

    /// A body of this length follows at `at` of the chunk.
    pub fn begin(&mut self, body: BodyLength, part: Vec<u8>, at: usize) {
        self.body = match body {
            BodyLength::None | BodyLength::Length(0) => Body::Whole,
            BodyLength::Length(length) => Body::Length(length),
            // Trailers are dropped; their length was limited on the way here.
            BodyLength::Chunked => Body::Chunked(Box::new(Decoder::new(Output::Data, usize::MAX))),
        };
        (self.part, self.at) = (part, at);
    }

    /// Decodes what is left of the chunk.
    pub fn decode(&mut self) -> Result<(), &'static str> {
        let rest = &mut self.part[self.at..];
        let is_done = match &mut self.body {
            Body::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                (self.data, self.raw) = (n, n);
                *left -= n as u64;
                *left == 0
            }
            Body::Chunked(decoder) => {
                let decoded = decoder.decode(rest)?;
                (self.data, self.raw) = (decoded.written, decoded.consumed);
                decoded.done
            }
            Body::Whole => true,
        };
        if is_done {
            self.body = Body::Whole;
        }
        if self.data == 0 {
            self.at += mem::take(&mut self.raw);
        }
        Ok(())
    }
}
