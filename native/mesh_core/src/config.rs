//! What a gateway is told at start. The control plane has checked every value; this side only
//! gives them types. Durations are milliseconds, `None` means "without limit".

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mesh_wire::proxy_protocol::ProxyProtocol;

#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on, all on the same port.
    pub ips: Vec<IpAddr>,
    /// 0 lets the system pick one, the same for all addresses.
    pub port: u16,
    /// How many workers will call [`crate::Gateway::run_worker`].
    pub workers: usize,
    /// Peers whose forwarded header fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted peers must announce the client with a PROXY protocol header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Keep a valid `X-Request-Id`, make one where there is none.
    pub request_id: bool,
    /// Begin a W3C trace where none has begun.
    pub start_trace: bool,
    /// Tell clients by `Server-Timing` where the time went.
    pub server_timing: bool,
    pub timeouts: Timeouts,
    pub limits: Limits,
}

#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Until an upstream has accepted the connection.
    pub connect: Option<Duration>,
    /// From the first byte of a request head to its last.
    pub head: Option<Duration>,
    /// A client connection without a request in flight, or a body that has stopped moving.
    pub idle: Option<Duration>,
    /// How long an unused upstream connection is kept.
    pub upstream_idle: Option<Duration>,
    /// From the request's last byte to the response head.
    pub response: Option<Duration>,
    /// How long a request waits for an endpoint that cannot be reached; zero: not at all.
    pub hold: Option<Duration>,
    /// A tunnel on which nothing moves.
    pub tunnel_idle: Option<Duration>,
    /// After one side of a tunnel has closed: until the other must have, too.
    pub tunnel_close: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Some(Duration::from_secs(2)),
            head: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(75)),
            // Cowboy closes after 5 s; ours must be shorter.
            upstream_idle: Some(Duration::from_secs(3)),
            response: None,
            hold: Some(Duration::ZERO),
            tunnel_idle: None,
            tunnel_close: Some(Duration::from_secs(30)),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request or response head.
    pub head_bytes: usize,
    /// Most header fields in one head.
    pub header_count: usize,
    /// Longest request body.
    pub body_bytes: Option<u64>,
    /// Client connections at once, over all workers.
    pub connections: Option<usize>,
    /// Client connections at once from one address (IPv6: from one /64 network).
    pub connections_per_client: Option<usize>,
    /// Requests on one client connection, which is then closed.
    pub requests_per_connection: Option<u64>,
    /// Requests at once, over all workers, that wait for an endpoint to come back.
    pub held_requests: usize,
    /// Bytes per second below which a client that sends or takes a body is using up its `idle`
    /// time, instead of winning it back with every byte.
    pub body_rate: Option<u64>,
    /// Memory, over all workers, for long buffers and for what HTTP/2 has queued. Beyond it a
    /// connection has small buffers.
    pub buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes: 64 * 1024,
            header_count: 100,
            body_bytes: None,
            connections: None,
            connections_per_client: None,
            requests_per_connection: None,
            held_requests: 256,
            body_rate: Some(240),
            buffer_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Default for Config {
    /// Loopback on a free port with one worker: what a test wants.
    fn default() -> Self {
        Config {
            ips: vec![IpAddr::from([127, 0, 0, 1])],
            port: 0,
            workers: 1,
            trusted_proxies: Vec::new(),
            proxy_protocol: None,
            request_id: true,
            start_trace: false,
            server_timing: false,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}
