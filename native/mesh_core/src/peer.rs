//! Who is at the other end of a client connection.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Room for the longest IPv6 address in text.
const MAX_TEXT: usize = 45;

/// A client's address, in text once per connection rather than once per request.
pub struct Peer {
    pub ip: IpAddr,
    /// Its forwarded fields are believed.
    pub trusted: bool,
    text: [u8; MAX_TEXT],
    len: u8,
}

impl Peer {
    pub fn new(address: SocketAddr, trusted_proxies: &[IpNet]) -> Peer {
        // A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
        let ip = address.ip().to_canonical();
        let mut text = [0; MAX_TEXT];
        let mut rest = &mut text[..];
        // Cannot fail: the longest address fits.
        let _ = write!(rest, "{ip}");
        let len = (MAX_TEXT - rest.len()) as u8;
        let trusted = trusted_proxies.iter().any(|net| net.contains(&ip));
        Peer { ip, trusted, text, len }
    }

    pub fn text(&self) -> &[u8] {
        &self.text[..self.len as usize]
    }
}
