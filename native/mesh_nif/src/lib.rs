//! The boundary between the BEAM and [`mesh_core`]: decodes and encodes terms, holds gateways as resources,
//! and runs workers on dirty schedulers.
//!
//! Whatever can be tested without a VM belongs in `mesh_core`.

mod atoms;
mod calls;
mod config;
mod decode;
mod handle;
mod held_binary;
mod mesh;
mod observe;
mod send;
mod slots;
mod terms;

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_core::observe::ObserveError;
use mesh_core::{Gateway, WorkerError};
use rustler::{Atom, Encoder, Env, Error, LocalPid, NifResult, ResourceArc, SerdeTerm, Term};

use handle::{Handle, contain};
use slots::{NoneLeft, Slots};

/// How long workers may take to pause: one may be in the middle of something.
const PAUSE: Duration = Duration::from_secs(1);

/// Binds the sockets. Failures outside of this program are returned as values. The gateway stops when
/// `owner` ends.
#[rustler::nif(schedule = "DirtyIo")]
fn open<'a>(env: Env<'a>, config: Term<'a>, owner: LocalPid) -> Term<'a> {
    let (config, inherited, max) = match config::read(config) {
        Ok(read) => read,
        Err(why) => {
            return terms::open_error(env, atoms::config(), "", &format!("gateway option {why}"));
        }
    };
    let workers = config.workers;
    let slots = match Slots::take(workers, max) {
        Ok(slots) => slots,
        Err(NoneLeft { taken }) => {
            let why = format!("{taken} of {max} are taken, {workers} more are wanted");
            return terms::open_error(env, atoms::workers(), "", &why);
        }
    };
    match contain(|| Gateway::open_with(config, inherited)) {
        Ok(Ok(gateway)) => {
            let handle = ResourceArc::new(Handle {
                gateway,
                slots,
                unacknowledged: Arc::default(),
                relay: Arc::default(),
            });
            // An owner that has already ended cannot be monitored.
            if env.monitor(&handle, &owner).is_none() {
                handle.stop(Some(Duration::ZERO));
            }
            (atoms::ok(), handle).encode(env)
        }
        Ok(Err(error)) => terms::refused(env, &error),
        Err(panic) => terms::open_error(env, atoms::other(), "", &panic),
    }
}

/// Serves on this thread until the gateway has stopped and drained. `{:error, :running}`: an earlier call
/// still serves under this index. Its process was killed, which does not end the call.
#[rustler::nif(schedule = "DirtyIo")]
fn run(env: Env<'_>, handle: ResourceArc<Handle>, index: usize) -> Term<'_> {
    let _sending = send::Sending::from(env, &handle.relay);
    match handle.slots.run(index, || contain(|| handle.gateway.run_worker(index))) {
        Ok(Ok(())) => atoms::ok().encode(env),
        Ok(Err(WorkerError::AlreadyRunning(_))) => (atoms::error(), atoms::running()).encode(env),
        Ok(Err(error)) => (atoms::error(), error.to_string()).encode(env),
        Err(panic) => (atoms::error(), panic).encode(env),
    }
}

/// Makes the workers refuse connections, and return when the open ones are done, at the latest after
/// `drain` milliseconds.
#[rustler::nif]
fn stop(handle: ResourceArc<Handle>, drain: Option<u64>) -> Atom {
    handle.stop(drain.map(Duration::from_millis));
    atoms::ok()
}

/// Lets the workers accept connections, or pauses them: connections then wait in the kernel's queue, and `:timeout`
/// means that a worker has not paused yet.
#[rustler::nif(schedule = "DirtyIo")]
fn accept(handle: ResourceArc<Handle>, accepts: bool) -> Atom {
    if !accepts {
        return ok_or_timeout(handle.gateway.pause(PAUSE));
    }
    handle.gateway.accept();
    atoms::ok()
}

/// Duplicates of the listening sockets, as descriptors that the caller owns.
#[rustler::nif]
fn listeners(handle: ResourceArc<Handle>) -> NifResult<Vec<i32>> {
    let listeners = handle.gateway.share_listeners().map_err(|_| Error::Atom("emfile"))?;
    Ok(listeners.into_iter().map(IntoRawFd::into_raw_fd).collect())
}

/// Closes descriptors of [`listeners`], or of another process. OTP's `socket` must not close them: it makes a
/// socket block before, and with it all of its duplicates, on which workers accept.
#[rustler::nif]
fn close_listeners(descriptors: Vec<i32>) -> Atom {
    for fd in descriptors.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: the caller owns the descriptor and gives it away.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    atoms::ok()
}

/// `{:ok, {ip, port, dual_stack?}}` of the listening socket of a descriptor, or `{:error, text}`. Not by OTP's `socket`,
/// see `close_listeners/1`.
#[rustler::nif]
fn listener_address(descriptor: i32) -> Result<(String, u16, bool), String> {
    if descriptor < 0 {
        return Err("there is no such socket".into());
    }
    // SAFETY: it is not -1, and used for calls that fail if it is not open.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let (address, is_dual) = mesh_core::listener_address(socket)?;
    Ok((address.ip().to_canonical().to_string(), address.port(), is_dual))
}

/// Closes the listening sockets, which another process has taken over.
#[rustler::nif(schedule = "DirtyIo")]
fn release(handle: ResourceArc<Handle>) -> Atom {
    ok_or_timeout(handle.gateway.release(PAUSE))
}

fn ok_or_timeout(is_ok: bool) -> Atom {
    if is_ok { atoms::ok() } else { atoms::timeout() }
}

/// `{total, [{address, count}]}`: the open connections of clients, and the clients with the most if they are limited.
#[rustler::nif(schedule = "DirtyCpu")]
fn connections(handle: ResourceArc<Handle>) -> (u64, Vec<(String, usize)>) {
    let (total, clients) = handle.gateway.connections();
    (total, clients.into_iter().map(|(ip, n)| (ip.to_string(), n)).collect())
}

/// Counts connections of another process towards the limits of this gateway.
#[rustler::nif(schedule = "DirtyCpu")]
fn reserve(handle: ResourceArc<Handle>, total: usize, clients: Vec<(String, usize)>) -> Atom {
    let clients = clients.iter().filter_map(|(ip, n)| Some((ip.parse().ok()?, *n)));
    handle.gateway.reserve(total, clients);
    atoms::ok()
}

/// Keeps serving, but tells clients to use other connections. `stop/2` follows.
#[rustler::nif]
fn lame_duck(handle: ResourceArc<Handle>) -> Atom {
    handle.gateway.lame_duck();
    atoms::ok()
}

/// Replaces the routing table. Dirty, because 100,000 hosts take longer than a scheduler may be blocked.
#[rustler::nif(schedule = "DirtyCpu")]
fn put_routes<'a>(
    env: Env<'a>,
    handle: ResourceArc<Handle>,
    services: Term<'a>,
    default: Option<String>,
) -> Term<'a> {
    let services = match terms::services(services, &|id| handle.gateway.peer(id)) {
        Ok(services) => services,
        Err(why) => return (atoms::error(), why.to_string()).encode(env),
    };
    match contain(|| handle.gateway.set_routes(services, default.as_deref())) {
        Ok(Ok(())) => atoms::ok().encode(env),
        Ok(Err(error)) => (atoms::error(), error.to_string()).encode(env),
        Err(panic) => (atoms::error(), panic).encode(env),
    }
}

/// Opens the mesh: makes the key of this gateway, and listens for peers. A second call returns the same.
#[rustler::nif(schedule = "DirtyIo")]
fn open_mesh<'a>(env: Env<'a>, handle: ResourceArc<Handle>, config: Term<'a>) -> Term<'a> {
    let config = match mesh::config(config) {
        Ok(config) => config,
        Err(why) => {
            return terms::open_error(env, atoms::config(), "", &format!("mesh option {why}"));
        }
    };
    match contain(|| handle.gateway.open_mesh(&config)) {
        Ok(Ok(info)) => (atoms::ok(), mesh::info(env, &info)).encode(env),
        Ok(Err(error)) => terms::refused(env, &error),
        Err(panic) => terms::open_error(env, atoms::other(), "", &panic),
    }
}

/// Replaces the peers.
#[rustler::nif(schedule = "DirtyCpu")]
fn put_peers<'a>(env: Env<'a>, handle: ResourceArc<Handle>, peers: Term<'a>) -> Term<'a> {
    let peers = match mesh::peers(peers) {
        Ok(peers) => peers,
        Err(why) => return (atoms::error(), format!("peers{why}")).encode(env),
    };
    match contain(|| handle.gateway.set_peers(peers)) {
        Ok(Ok(())) => atoms::ok().encode(env),
        Ok(Err(error)) => (atoms::error(), error.to_string()).encode(env),
        Err(panic) => (atoms::error(), panic).encode(env),
    }
}

#[rustler::nif]
fn peers(env: Env<'_>, handle: ResourceArc<Handle>) -> NifResult<Term<'_>> {
    terms::plain_list(env, handle.gateway.peer_stats())
}

#[rustler::nif]
fn resolve<'a>(env: Env<'a>, handle: ResourceArc<Handle>, host: &str) -> Term<'a> {
    terms::resolved(env, handle.gateway.resolve(host))
}

#[rustler::nif]
fn addrs(handle: ResourceArc<Handle>) -> Vec<(String, u16)> {
    let addrs = handle.gateway.local_addrs();
    addrs.iter().map(|addr| (addr.ip().to_string(), addr.port())).collect()
}

/// Whether a gateway has an upstream connection with this local address.
#[rustler::nif]
fn own_connection(ip: &str, port: u16) -> bool {
    ip.parse().is_ok_and(|ip| mesh_core::is_local_port(SocketAddr::new(ip, port)))
}

/// Dirty, because it adds up one row per service and worker.
#[rustler::nif(schedule = "DirtyCpu")]
fn stats(env: Env<'_>, handle: ResourceArc<Handle>) -> NifResult<Term<'_>> {
    terms::plain(SerdeTerm(handle.gateway.stats()).encode(env))
}

/// Sends records, lines and notices to a process in batches, which it must acknowledge with `taken/2`, and
/// writes the access log. `nil` ends it; everything queued is sent before this returns.
#[rustler::nif(schedule = "DirtyIo")]
fn observe<'a>(
    env: Env<'a>,
    handle: ResourceArc<Handle>,
    wanted: Term<'a>,
    pid: LocalPid,
) -> Term<'a> {
    let wanted =
        decode::optional(wanted, |wanted| observe::read(wanted, pid, &handle.unacknowledged));
    let observe = match wanted {
        Ok(observe) => observe.unwrap_or_default(),
        Err(why) => return (atoms::error(), (atoms::other(), why.to_string())).encode(env),
    };
    match contain(|| handle.gateway.observe(observe)) {
        Ok(Ok(())) => {
            handle.unacknowledged.store(0, Ordering::Relaxed);
            atoms::ok().encode(env)
        }
        Ok(Err(error)) => {
            let kind = match error {
                ObserveError::LogFile(_) => atoms::log_file(),
                ObserveError::Thread(_) => atoms::thread(),
            };
            (atoms::error(), (kind, error.to_string())).encode(env)
        }
        Err(panic) => (atoms::error(), (atoms::other(), panic)).encode(env),
    }
}

/// Acknowledges a batch of `count` records or lines.
#[rustler::nif]
fn taken(handle: ResourceArc<Handle>, count: usize) -> Atom {
    // Saturates, because a process may acknowledge what was sent to an earlier one.
    let less = |unacknowledged: usize| Some(unacknowledged.saturating_sub(count));
    let _ = handle.unacknowledged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    atoms::ok()
}

#[rustler::nif]
fn reopen_log(handle: ResourceArc<Handle>) -> Atom {
    handle.gateway.reopen_log();
    atoms::ok()
}

rustler::init!("Elixir.ExServiceMeshRouter.Native");
