//! The argument of `open/1`: a map of the control plane's checked values. Durations are
//! milliseconds; `nil` is "without limit". What the data plane could be told and is not told here
//! has the data plane's own default.

use std::time::Duration;

use mesh_core::config::{Limits, Timeouts};
use mesh_core::{Config, ProxyProtocol};
use rustler::NifMap;

#[derive(NifMap)]
pub struct ConfigTerm {
    ips: Vec<String>,
    port: u16,
    reuse_port: bool,
    pub workers: usize,
    /// That all gateways of this VM may have together.
    pub most_workers: usize,
    trusted_proxies: Vec<String>,
    /// "v1", "v2" or "any".
    proxy_protocol: Option<String>,
    request_id: bool,
    start_trace: bool,
    server_timing: bool,
    timeouts: TimeoutsTerm,
    limits: LimitsTerm,
}

#[derive(NifMap)]
struct TimeoutsTerm {
    connect: Option<u64>,
    head: Option<u64>,
    idle: Option<u64>,
    upstream_idle: Option<u64>,
    response: Option<u64>,
    hold: Option<u64>,
    tunnel_idle: Option<u64>,
}

#[derive(NifMap)]
struct LimitsTerm {
    head_bytes: usize,
    header_count: usize,
    body_bytes: Option<u64>,
    connections: Option<usize>,
    connections_per_client: Option<usize>,
    requests_per_connection: Option<u64>,
    held_requests: usize,
    body_rate: Option<u64>,
    buffer_bytes: usize,
}

impl TryFrom<ConfigTerm> for Config {
    type Error = String;

    fn try_from(term: ConfigTerm) -> Result<Config, String> {
        let ConfigTerm { ips, port, reuse_port, workers, timeouts, limits, .. } = term;
        let ips = ips.iter().map(|ip| parse(ip)).collect::<Result<_, _>>()?;
        let trusted_proxies = term.trusted_proxies.iter().map(|net| parse(net));
        Ok(Config {
            ips,
            port,
            reuse_port,
            workers,
            trusted_proxies: trusted_proxies.collect::<Result<_, _>>()?,
            proxy_protocol: term.proxy_protocol.as_deref().map(proxy_protocol).transpose()?,
            request_id: term.request_id,
            start_trace: term.start_trace,
            server_timing: term.server_timing,
            timeouts: Timeouts {
                connect: millis(timeouts.connect),
                head: millis(timeouts.head),
                idle: millis(timeouts.idle),
                upstream_idle: millis(timeouts.upstream_idle),
                response: millis(timeouts.response),
                hold: millis(timeouts.hold),
                tunnel_idle: millis(timeouts.tunnel_idle),
                ..Timeouts::default()
            },
            limits: Limits {
                head_bytes: limits.head_bytes,
                header_count: limits.header_count,
                body_bytes: limits.body_bytes,
                connections: limits.connections,
                connections_per_client: limits.connections_per_client,
                requests_per_connection: limits.requests_per_connection,
                held_requests: limits.held_requests,
                body_rate: limits.body_rate,
                buffer_bytes: limits.buffer_bytes,
            },
        })
    }
}

fn proxy_protocol(version: &str) -> Result<ProxyProtocol, String> {
    match version {
        "v1" => Ok(ProxyProtocol::V1),
        "v2" => Ok(ProxyProtocol::V2),
        "any" => Ok(ProxyProtocol::Any),
        other => Err(format!("{other:?} is no version of the PROXY protocol")),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not valid here"))
}

fn millis(value: Option<u64>) -> Option<Duration> {
    value.map(Duration::from_millis)
}
