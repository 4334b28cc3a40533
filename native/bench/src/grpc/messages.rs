//! The frames of gRPC messages in a body: a flag, four bytes of length, the message.

use std::io;

use hyper::body::Bytes;

const PREFIX: usize = 5;

pub fn message(size: usize) -> Bytes {
    let mut message = Vec::with_capacity(PREFIX + size);
    message.push(0);
    message.extend_from_slice(&(size as u32).to_be_bytes());
    message.resize(PREFIX + size, b'm');
    message.into()
}

/// Finds the messages in what comes, and checks that each has the expected size.
pub struct Messages {
    size: usize,
    prefix: [u8; PREFIX],
    /// Bytes of the current message that have come, with its prefix.
    come: usize,
}

impl Messages {
    pub fn new(size: usize) -> Messages {
        Messages { size, prefix: [0; PREFIX], come: 0 }
    }

    /// How many messages end in these bytes.
    pub fn take(&mut self, mut bytes: &[u8]) -> io::Result<u64> {
        let mut ended = 0;
        while !bytes.is_empty() {
            if self.come < PREFIX {
                let n = bytes.len().min(PREFIX - self.come);
                self.prefix[self.come..self.come + n].copy_from_slice(&bytes[..n]);
                self.come += n;
                bytes = &bytes[n..];
                if self.come < PREFIX {
                    break;
                }
                let [flag, length @ ..] = self.prefix;
                if flag != 0 || u32::from_be_bytes(length) as usize != self.size {
                    return Err(io::Error::other("a message of the wrong size"));
                }
            }
            let n = bytes.len().min(PREFIX + self.size - self.come);
            self.come += n;
            bytes = &bytes[n..];
            if self.come == PREFIX + self.size {
                self.come = 0;
                ended += 1;
            }
        }
        Ok(ended)
    }

    pub fn is_between(&self) -> bool {
        self.come == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bytes = [message(3), message(3), message(3)].concat();
        for size in 1..bytes.len() {
            let mut messages = Messages::new(3);
            let ended: u64 = bytes.chunks(size).map(|part| messages.take(part).unwrap()).sum();
            assert_eq!((ended, messages.is_between()), (3, true), "in parts of {size}");
        }
        assert!(Messages::new(4).take(&bytes).is_err());
    }
}
