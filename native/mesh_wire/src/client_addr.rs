//! The address of a client, as the gateway believes it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// A client's address, in text once per connection rather than once per request.
pub struct ClientAddr {
    pub ip: IpAddr,
    /// Its forwarded fields are believed.
    pub trusted: bool,
    /// It uses TLS, as the load balancer says that announced it.
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

    /// An `https` target may come from it (RFC 9110 section 7.4).
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
    fn addresses_read_as_everywhere() {
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
