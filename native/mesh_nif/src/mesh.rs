//! Decodes what the control plane says about the mesh, and encodes what it needs to know.

use std::net::SocketAddr;

use mesh_core::config::MeshConfig;
use mesh_core::{MeshInfo, PeerSpec};
use rustler::{Binary, Encoder, Env, NewBinary, Term};

use crate::atoms;
use crate::decode::{Decoded, Map, decoded, list, parsed};

/// Decodes `%{ips: ["0.0.0.0"], port: 0, prefer: 2}`.
pub fn config(term: Term<'_>) -> Decoded<MeshConfig> {
    Map::read(term, |map| {
        Ok(MeshConfig {
            ips: map.with("ips", |ips| list(ips, parsed))?,
            port: map.port("port")?,
            prefer_local: map.get("prefer")?,
        })
    })
}

/// Decodes `[%{id: "...", name: "b@host", key: <<...>>, addresses: [%{ip: "10.0.0.2", port: 4600}]}]`.
pub fn peers(term: Term<'_>) -> Decoded<Vec<PeerSpec>> {
    list(term, |peer| {
        Map::read(peer, |map| {
            Ok(PeerSpec {
                id: map.get("id")?,
                name: map.get("name")?,
                key: map.with("key", |key| decoded::<Binary<'_>>(key).map(|key| key.to_vec()))?,
                addresses: map.with("addresses", |it| list(it, address))?,
            })
        })
    })
}

fn address(term: Term<'_>) -> Decoded<SocketAddr> {
    Map::read(term, |map| Ok(SocketAddr::new(map.with("ip", parsed)?, map.port("port")?)))
}

/// Encodes `%{key: <<...>>, addresses: [%{ip: "0.0.0.0", port: 4600}]}`.
pub fn info<'a>(env: Env<'a>, info: &MeshInfo) -> Term<'a> {
    let addresses: Vec<Term<'_>> =
        info.addresses.iter().map(|address| encoded(env, address)).collect();
    let mut key = NewBinary::new(env, info.key.len());
    key.copy_from_slice(&info.key);
    let key: Term<'_> = key.into();
    map(
        env,
        [(atoms::key().encode(env), key), (atoms::addresses().encode(env), addresses.encode(env))],
    )
}

fn encoded<'a>(env: Env<'a>, address: &SocketAddr) -> Term<'a> {
    let ip = address.ip().to_string().encode(env);
    map(
        env,
        [(atoms::ip().encode(env), ip), (atoms::port().encode(env), address.port().encode(env))],
    )
}

fn map<'a, const N: usize>(env: Env<'a>, pairs: [(Term<'a>, Term<'a>); N]) -> Term<'a> {
    pairs.into_iter().fold(Term::map_new(env), |map, (key, value)| {
        // Fails only for a term that is not a map.
        map.map_put(key, value).unwrap_or(map)
    })
}
