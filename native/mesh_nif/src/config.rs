//! Decodes the argument of `open/1`: a map that the control plane has validated. Durations are
//! milliseconds; `nil` means no limit.

use std::net::TcpListener;
use std::os::fd::BorrowedFd;

use mesh_core::config::{Limits, OnDisconnect, Timeouts};
use mesh_core::{Config, Inherited, ProxyProtocol, listener_address};
use rustler::Term;

use crate::decode::{DecodeError, Decoded, Map, choice, fields, list, optional, parsed};

/// Returns the configuration, the sockets, and how many workers all gateways of this VM may have together.
pub fn read(term: Term<'_>) -> Decoded<(Config, Inherited, usize)> {
    Map::read(term, |map| {
        let config = Config {
            ips: map.with("ips", |ips| list(ips, parsed))?,
            port: map.port("port")?,
            workers: map.get("workers")?,
            trusted_proxies: map.with("trusted_proxies", |networks| list(networks, parsed))?,
            proxy_protocol: map.with("proxy_protocol", |it| optional(it, proxy_protocol))?,
            request_id: map.get("request_id")?,
            start_trace: map
                .with("trace", |it| optional(it, |it| choice(it, &[("start", ())])))?
                .is_some(),
            server_timing: map.get("server_timing")?,
            on_disconnect: map.with("on_disconnect", on_disconnect)?,
            timeouts: map.with("timeouts", |term| Map::read(term, timeouts))?,
            limits: map.with("limits", |term| Map::read(term, limits))?,
        };
        let inherited = Inherited {
            sockets: map.with("sockets", |sockets| list(sockets, socket))?,
            accepting: map.get("accepting")?,
            keep_queue: map.get("keep_queue")?,
        };
        Ok((config, inherited, map.get("most_workers")?))
    })
}

/// Duplicates the listening socket of a descriptor.
fn socket(term: Term<'_>) -> Decoded<TcpListener> {
    const EXPECTED: &str = "the descriptor of a socket that listens";
    let fd = term.decode::<i32>().ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(|| DecodeError::got(term, EXPECTED))?;
    // SAFETY: it is not -1, and used for calls that fail if it is not open.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let duplicate = listener_address(socket).ok().and_then(|_| socket.try_clone_to_owned().ok());
    duplicate.map(TcpListener::from).ok_or_else(|| DecodeError::got(term, EXPECTED))
}

fn timeouts(map: &mut Map<'_>) -> Decoded<Timeouts> {
    let fixed = Timeouts::default();
    Ok(fields!(map.millis => Timeouts {
        connect, head, idle, upstream_idle, response, hold, tunnel_idle;
        tunnel_close: fixed.tunnel_close,
    }))
}

fn limits(map: &mut Map<'_>) -> Decoded<Limits> {
    Ok(fields!(map.get => Limits {
        head_bytes, header_count, body_bytes, connections, connections_per_client,
        requests_per_connection, held_requests, body_rate, buffer_bytes
    }))
}

fn on_disconnect(term: Term<'_>) -> Decoded<OnDisconnect> {
    choice(term, &[("ignore", OnDisconnect::Ignore), ("exit", OnDisconnect::Exit)])
}

fn proxy_protocol(term: Term<'_>) -> Decoded<ProxyProtocol> {
    use ProxyProtocol::{Any, V1, V2};
    choice(term, &[("v1", V1), ("v2", V2), ("any", Any)])
}
