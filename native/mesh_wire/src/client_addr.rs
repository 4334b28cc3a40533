//! Holds the address of a client, and what the gateway may believe of it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// A client's address. Formatted once per connection, not once per request.
pub struct ClientAddr {
    pub ip: IpAddr,
    /// The client is a trusted proxy: its forwarding fields are believed.
    pub trusted: bool,
    /// The load balancer's PROXY header says that the client uses TLS.
    pub tls: bool,
    text: Vec<u8>,
}

impl ClientAddr {
    pub fn new(address: SocketAddr, trusted_proxies: &[IpNet]) -> ClientAddr {
        // A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
        let ip = address.ip().to_canonical();
        let trusted = trusted_proxies.iter().any(|net| net.contains(&ip));
        ClientAddr { ip, trusted, tls: false, text: ip.to_string().into_bytes() }
    }

    /// The client may send an `https` target (RFC 9110 section 7.4).
    pub fn speaks_https(&self) -> bool {
        self.tls || self.trusted
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_formatted_canonically() {
        let text = |ip: &str| {
            let address = SocketAddr::new(ip.parse().unwrap(), 80);
            String::from_utf8(ClientAddr::new(address, &[]).text().to_vec()).unwrap()
        };
        for ip in ["0.0.0.0", "127.0.0.1", "10.20.100.9", "255.255.255.255", "::1", "2001:db8::9"] {
            assert_eq!(text(ip), ip);
        }
        assert_eq!(text("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
