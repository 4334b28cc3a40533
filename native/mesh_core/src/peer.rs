//! Who is at the other end of a client connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::digits;

/// A client's address, in text once per connection rather than once per request.
pub struct Peer {
    pub ip: IpAddr,
    /// Its forwarded fields are believed.
    pub trusted: bool,
    /// It uses TLS, as the load balancer says that announced it.
    pub tls: bool,
    text: Vec<u8>,
}

impl Peer {
    pub fn new(address: SocketAddr, trusted_proxies: &[IpNet]) -> Peer {
        // A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
        let ip = address.ip().to_canonical();
        let text = match ip {
            IpAddr::V4(ip) => dotted(ip),
            IpAddr::V6(ip) => ip.to_string().into_bytes(),
        };
        let trusted = trusted_proxies.iter().any(|net| net.contains(&ip));
        Peer { ip, trusted, tls: false, text }
    }

    /// An `https` target may come from it (RFC 9110 section 7.4).
    pub fn speaks_https(&self) -> bool {
        self.tls || self.trusted
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

fn dotted(ip: Ipv4Addr) -> Vec<u8> {
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for (i, octet) in ip.octets().into_iter().enumerate() {
        if i > 0 {
            text.push(b'.');
        }
        digits::number(octet.into(), &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_everywhere() {
        let text = |ip: &str| {
            let address = SocketAddr::new(ip.parse().unwrap(), 80);
            String::from_utf8(Peer::new(address, &[]).text().to_vec()).unwrap()
        };
        for ip in ["0.0.0.0", "127.0.0.1", "10.20.100.9", "255.255.255.255", "::1", "2001:db8::9"] {
            assert_eq!(text(ip), ip);
        }
        assert_eq!(text("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
