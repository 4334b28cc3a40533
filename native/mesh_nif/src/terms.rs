//! How the values of [`mesh_core`] look as terms.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mesh_core::{OpenError, Resolved, Rule, ServiceSpec, UpstreamAddr};
use rustler::{Atom, Decoder, Encoder, Env, Error, MapIterator, NifResult, Term};

pub mod atoms {
    rustler::atoms! {
        ok,
        error,
        nil,
        config,
        running,
        workers,
        eaddrinuse,
        eacces,
        eaddrnotavail,
        other,
        exact,
        suffix,
        default,
        tcp,
        loopback,
        unix,
        __struct__,
        mesh,
        records,
        lines,
        notices,
        duration,
        first_byte_duration,
        gateway_duration,
        request_bytes,
        response_bytes,
        service,
        host,
        method,
        path,
        status,
        http_version,
        client,
        user_agent,
        request_id,
        trace_id,
        side,
        reason,
        downstream,
        upstream,
        gateway,
        limit,
        upstream_down,
        upstream_up,
        bad_response,
        panic,
        accept,
        connect,
        log_file,
        thread,
        records_lost,
    }
}

/// `[{name, [host], [{:tcp, "127.0.0.1", 4001} | {:loopback, 4001} | {:unix, "/path"}]}]`
pub struct Services(pub Vec<ServiceSpec>);

impl<'a> Decoder<'a> for Services {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let rows: Vec<(String, Vec<String>, Vec<Term<'a>>)> = term.decode()?;
        let specs = rows.into_iter().map(|(name, hosts, upstreams)| {
            let upstreams = upstreams.into_iter().map(upstream).collect::<NifResult<_>>()?;
            Ok(ServiceSpec { name, hosts, upstreams })
        });
        specs.collect::<NifResult<_>>().map(Services)
    }
}

fn upstream(term: Term) -> NifResult<UpstreamAddr> {
    if let Ok((kind, ip, port)) = term.decode::<(Atom, &str, u16)>()
        && kind == atoms::tcp()
    {
        let ip: IpAddr = ip.parse().map_err(|_| Error::BadArg)?;
        return Ok(UpstreamAddr::Tcp(SocketAddr::new(ip, port)));
    }
    if let Ok((kind, port)) = term.decode::<(Atom, u16)>()
        && kind == atoms::loopback()
    {
        return Ok(UpstreamAddr::Loopback(port));
    }
    match term.decode::<(Atom, String)>()? {
        (kind, path) if kind == atoms::unix() => Ok(UpstreamAddr::Unix(PathBuf::from(path))),
        _ => Err(Error::BadArg),
    }
}

/// Why the sockets could not be bound: `{:error, {kind, address, words of the system}}`.
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

/// What serde makes of Rust values, as Elixir has them: a struct becomes a plain map with atoms for
/// keys (and no `__struct__`, which would promise a module), a map keeps strings for keys. Serde
/// itself takes whichever of the two exists in the VM.
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
