//! Performs the opening handshake with an HTTP/1.1 endpoint (RFC 6455 section 4) on behalf of an HTTP/2
//! client, which sends neither key nor accept (RFC 8441 section 5).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_wire::lines::field;
use sha1_smol::Sha1;

use crate::error::Error;

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A `Sec-WebSocket-Key`.
pub struct Key(String);

impl Key {
    /// 16 random bytes per connection (RFC 6455 section 4.1).
    pub fn new() -> Result<Key, Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| Error::Overloaded)?;
        Ok(Key(STANDARD.encode(nonce)))
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        field(out, b"Sec-WebSocket-Key", self.0.as_bytes());
    }

    /// Whether this `Sec-WebSocket-Accept` matches the key.
    pub fn is_accepted_by(&self, accept: &[u8]) -> bool {
        let mut hash = Sha1::new();
        hash.update(self.0.as_bytes());
        hash.update(GUID);
        STANDARD.encode(hash.digest().bytes()).as_bytes() == accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_example_is_accepted() {
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".to_string());
        assert!(key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo"));
    }
}
