//! Defines the configuration of a gateway. The control plane has validated every value. `None` means no limit.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mesh_wire::proxy_protocol::ProxyProtocol;

/// Bounds for the heads of peers, whose own limits are lower.
const MAX_PEER_HEAD: usize = 17 * 1024 * 1024;
const MAX_PEER_FIELDS: usize = 544;

#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on, all with the same port.
    pub ips: Vec<IpAddr>,
    /// 0 lets the system choose one port for all addresses.
    pub port: u16,
    /// How many threads call [`crate::Gateway::run_worker`].
    pub workers: usize,
    /// Networks of peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted peers must send a PROXY protocol header that names the client.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Keep a valid `X-Request-Id`, and create missing ones.
    pub request_id: bool,
    /// Begin a W3C trace for requests without one.
    pub start_trace: bool,
    /// Report durations to clients in `Server-Timing`.
    pub server_timing: bool,
    /// What a client that leaves does to the process of its request.
    pub on_disconnect: OnDisconnect,
    pub timeouts: Timeouts,
    pub limits: Limits,
}

/// What becomes of the process of a request without a socket when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It runs on, as in Bandit. A client that only closes its sending side has not left.
    Ignore,
    /// It ends, as in Cowboy, for which a client that closes its sending side has left.
    Exit,
}

/// How the gateway takes part in a mesh.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Addresses to listen on for peers.
    pub ips: Vec<IpAddr>,
    /// 0 lets the system choose one port for all addresses.
    pub port: u16,
    /// How many more requests in flight than a peer a local upstream may have before the peer gets the next.
    /// `None` treats both alike.
    pub prefer_local: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For an upstream to accept a connection.
    pub connect: Option<Duration>,
    /// From the first byte of a request head to its last.
    pub head: Option<Duration>,
    /// For a client connection without a request in flight, and for a body that does not move.
    pub idle: Option<Duration>,
    /// How long an idle upstream connection is kept.
    pub upstream_idle: Option<Duration>,
    /// From the request's last byte to the response head.
    pub response: Option<Duration>,
    /// How long a request waits for an unreachable endpoint. Zero: not at all.
    pub hold: Option<Duration>,
    /// For a tunnel without traffic.
    pub tunnel_idle: Option<Duration>,
    /// For the second side of a tunnel to close after the first.
    pub tunnel_close: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Some(Duration::from_secs(2)),
            head: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(75)),
            // Shorter than Cowboy's 5 s, so that the gateway closes first.
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
    /// Maximum number of header fields in a head.
    pub header_count: usize,
    /// Longest request body.
    pub body_bytes: Option<u64>,
    /// Open client connections, over all workers.
    pub connections: Option<usize>,
    /// Open client connections from one address (IPv6: from one /64 network).
    pub connections_per_client: Option<usize>,
    /// Requests on one client connection before it is closed.
    pub requests_per_connection: Option<u64>,
    /// Requests that wait for an endpoint to return, over all workers.
    pub held_requests: usize,
    /// Minimum transfer rate of bodies, in bytes per second. A slower client uses up its `idle` timeout
    /// instead of restarting it with every byte.
    pub body_rate: Option<u64>,
    /// Memory for large buffers, for queues of calls and for queued HTTP/2 data, over all workers. Without it
    /// connections use small buffers.
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

impl Config {
    /// The configuration for requests of peers: what concerns clients has been done by the peer. Its head has
    /// more fields than the client's had.
    pub fn for_peers(&self) -> Config {
        Config {
            start_trace: false,
            server_timing: false,
            timeouts: Timeouts {
                head: None,
                idle: None,
                hold: Some(Duration::ZERO),
                tunnel_idle: None,
                ..self.timeouts.clone()
            },
            limits: Limits {
                head_bytes: self.limits.head_bytes.max(MAX_PEER_HEAD),
                header_count: MAX_PEER_FIELDS,
                body_bytes: None,
                requests_per_connection: None,
                body_rate: None,
                ..self.limits.clone()
            },
            ..self.clone()
        }
    }
}

impl Default for Config {
    /// Loopback, any port, one worker: for tests.
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
            on_disconnect: OnDisconnect::Ignore,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}
