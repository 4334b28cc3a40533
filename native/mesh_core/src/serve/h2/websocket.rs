//! Performs the opening handshake with an HTTP/1.1 endpoint (RFC 6455 section 4) on behalf of an HTTP/2
//! client, which sends neither key nor accept (RFC 8441 section 5).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_wire::lines::field;

use crate::error::Error;
use crate::upstream::websocket;

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
        websocket::accept(self.0.as_bytes()).as_bytes() == accept
    }
}
