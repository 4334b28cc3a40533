//! What the load does: taken from the words of the command line.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::args::Args;

pub struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    pub request: Vec<u8>,
    /// What a tunnel sends, once it is one.
    pub message: Vec<u8>,
    /// A connection for each request.
    pub reconnect: bool,
    /// Requests a second over all connections; none: as fast as answers come.
    pub rate: Option<f64>,
    /// Enough of them, and the measured time is over.
    pub requests: u64,
    pub warmup: Duration,
    pub measure: Duration,
    pub pids: Vec<u32>,
    /// The socket where nodes of a mesh tell their counters; empty for other proxies.
    pub stats: String,
}

impl Plan {
    pub fn new(args: &Args) -> io::Result<Plan> {
        let mode = args.word(0);
        let tunnels = mode == "tunnels" || args.has("tunnels");
        let seconds = |name, default| Duration::from_secs_f64(args.number(name, default));
        Ok(Plan {
            address: format!("127.0.0.1:{}", args.word(1)).parse().map_err(io::Error::other)?,
            connections: args.number("connections", 64),
            request: request(args, tunnels),
            message: if tunnels { message(args.number("message", 128)) } else { Vec::new() },
            reconnect: args.has("reconnect"),
            rate: (mode == "open").then(|| args.number("rate", 1000.0)),
            requests: args.number("requests", u64::MAX),
            warmup: seconds("warmup", 0.5),
            measure: seconds("seconds", 2.0),
            pids: args.pids(),
            stats: args.text("stats", "").to_string(),
        })
    }
}

/// The fields of a browser, more or less: heads of a few hundred bytes are what proxies see.
fn request(args: &Args, tunnels: bool) -> Vec<u8> {
    let host = args.text("host", "bench.local");
    let upload: usize = args.number("upload", 0);
    // Of the stand-in endpoint, which answers with as many bytes.
    let answer = format!("/{}", args.number("answer", 1024usize));
    let path = args.text("path", &answer);
    let method = if upload > 0 { "POST" } else { "GET" };
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
         Accept-Language: en-US,en;q=0.5\r\n\
         Cookie: _app_key=SFMyNTY.g3QAAAABbQAAAAtfY3NyZl90b2tlbm0AAAAY.tZWXb0sRlPVtAxP1\r\n"
    );
    if tunnels {
        head.push_str(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        );
    }
    if upload > 0 {
        head.push_str(&format!("Content-Length: {upload}\r\n"));
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + upload, b'u');
    request
}

/// A masked binary frame of `size` bytes in all; the mask is zero, so that an echo reads the same.
fn message(size: usize) -> Vec<u8> {
    let payload = size.saturating_sub(8).clamp(126, 65_535);
    let mut frame = vec![0x82, 0x80 | 126, (payload >> 8) as u8, payload as u8, 0, 0, 0, 0];
    frame.resize(8 + payload, b'm');
    frame
}
