//! Converts terms to values of [`mesh_core`], and back.

use std::io;
use std::net::SocketAddr;

use mesh_core::{OpenError, Resolved, Rule, ServiceSpec, UpstreamAddr, UpstreamSpec};
use rustler::{Atom, Encoder, Env, MapIterator, NifResult, SerdeTerm, Term};
use serde::Serialize;

use crate::decode::{self, DecodeError, Decoded, Map, choice, decoded, list, parsed};
use crate::{atoms, calls};

/// Finds a peer by its id.
pub type Peers<'a> = &'a dyn Fn(&str) -> Option<UpstreamAddr>;

/// Decodes `[%{name: "AuthWeb.Endpoint", hosts: ["auth.local"], upstreams: [...]}]`, see [`upstream`].
pub fn services(term: Term<'_>, peers: Peers<'_>) -> Decoded<Vec<ServiceSpec>> {
    let rows = decode::terms(term, "a list of services")?.into_iter().enumerate();
    rows.map(|(index, row)| service(row, index, peers).map_err(|wrong| wrong.under("services")))
        .collect()
}

/// Decodes a service. An error has its name, if there is one.
fn service(row: Term<'_>, index: usize, peers: Peers<'_>) -> Decoded<ServiceSpec> {
    let mut place = format!("[{index}]");
    let spec = Map::read(row, |map| {
        let name: String = map.get("name")?;
        place = format!("[{name:?}]");
        let hosts = map.get("hosts")?;
        let upstreams = map.with("upstreams", |it| list(it, |it| upstream(it, peers)))?;
        Ok(ServiceSpec { name, hosts, upstreams })
    });
    spec.map_err(|wrong| wrong.under(&place))
}

/// Decodes `%{kind: :tcp, ip: "127.0.0.1", port: 4001}`, `%{kind: :loopback, port: 4001}`,
/// `%{kind: :unix, path: "/path"}` or `%{kind: :peer, id: "...", last_resort: false}`. All but a peer may have
/// `dispatchers: [pid]`: the processes that get its requests without a socket; or `protocol: :http2`.
fn upstream(term: Term<'_>, peers: Peers<'_>) -> Decoded<UpstreamSpec> {
    #[derive(Clone, Copy)]
    enum Kind {
        Tcp,
        Loopback,
        Unix,
        Peer,
    }
    let kinds = [
        ("tcp", Kind::Tcp),
        ("loopback", Kind::Loopback),
        ("unix", Kind::Unix),
        ("peer", Kind::Peer),
    ];
    Map::read(term, |map| {
        let address = match map.with("kind", |kind| choice(kind, &kinds))? {
            Kind::Unix => UpstreamAddr::Unix(map.with("path", parsed)?),
            Kind::Loopback => UpstreamAddr::Loopback(map.port("port")?),
            Kind::Tcp => {
                UpstreamAddr::Tcp(SocketAddr::new(map.with("ip", parsed)?, map.port("port")?))
            }
            Kind::Peer => {
                let address = map.with("id", |id| {
                    let known = decoded(id).map(peers)?;
                    known.ok_or_else(|| DecodeError::got(id, "the id of a peer"))
                })?;
                return Ok(UpstreamSpec { address, last_resort: map.get("last_resort")? });
            }
        };
        let is_http2 = map.maybe("protocol", |it| choice(it, &[("http2", ())]))?.is_some();
        if is_http2 {
            return Ok(address.http2().into());
        }
        let dispatchers = map.maybe("dispatchers", calls::dispatchers)?.flatten();
        Ok(match dispatchers {
            Some(dispatchers) => address.in_vm(Box::new(dispatchers)).into(),
            None => address.into(),
        })
    })
}

/// Encodes a failure to bind: `{:error, {kind, address, message}}`.
pub fn refused<'a>(env: Env<'a>, error: &OpenError) -> Term<'a> {
    let kind = match error.source.kind() {
        io::ErrorKind::AddrInUse => atoms::eaddrinuse(),
        io::ErrorKind::PermissionDenied => atoms::eacces(),
        io::ErrorKind::AddrNotAvailable => atoms::eaddrnotavail(),
        _ => atoms::other(),
    };
    open_error(env, kind, &error.address.to_string(), &error.source.to_string())
}

pub fn open_error<'a>(env: Env<'a>, kind: Atom, addr: &str, text: &str) -> Term<'a> {
    (atoms::error(), (kind, addr, text)).encode(env)
}

pub fn resolved<'a>(env: Env<'a>, resolved: Option<Resolved>) -> Term<'a> {
    let Some(Resolved { rule, host, service }) = resolved else {
        return atoms::nil().encode(env);
    };
    let rule = match rule {
        Rule::Exact => atoms::exact(),
        Rule::Suffix => atoms::suffix(),
        Rule::Default => atoms::default(),
    };
    (rule, host, service).encode(env)
}

/// Encodes structs as plain maps, see [`plain`].
pub fn plain_list<T: Serialize>(env: Env<'_>, items: Vec<T>) -> NifResult<Term<'_>> {
    let terms: NifResult<Vec<_>> =
        items.into_iter().map(|item| plain(SerdeTerm(item).encode(env))).collect();
    Ok(terms?.encode(env))
}

/// Converts serde's terms to plain Elixir: a struct becomes a map with atom keys and no `__struct__`, which
/// would promise a module; a map keeps string keys. Serde itself uses atoms only if they exist in the VM.
pub fn plain(term: Term<'_>) -> NifResult<Term<'_>> {
    let Some(members) = MapIterator::new(term) else {
        return Ok(term);
    };
    let env = term.get_env();
    let tag = atoms::__struct__().to_term(env);
    let is_struct = term.map_get(tag).is_ok();
    let mut map = Term::map_new(env);
    for (key, value) in members.filter(|(key, _)| *key != tag) {
        let text = match key.decode::<String>() {
            Ok(text) => text,
            Err(_) => key.atom_to_string()?,
        };
        let key =
            if is_struct { Atom::from_str(env, &text)?.to_term(env) } else { text.encode(env) };
        map = map.map_put(key, plain(value)?)?;
    }
    Ok(map)
}
