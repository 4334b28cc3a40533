//! The routing table: an immutable snapshot that maps hosts to services.
//!
//! A new table replaces the old one as a whole. Requests that found their service in the old one finish
//! with it.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use mesh_wire::host::{BadHost, Host};
use serde::Serialize;

use super::address::{Address, UpstreamAddr};
use super::service::{Service, ServiceSpec, Upstream, UpstreamSpec};
use crate::mesh::PeerRef;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Rule {
    Exact,
    Suffix,
    Default,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub rule: Rule,
    /// The matching entry of the table.
    pub host: String,
    pub service: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum RouteError {
    BadHost {
        service: String,
        host: String,
        why: BadHost,
    },
    /// Two services claim one host. The control plane should have prevented it.
    Conflict {
        host: String,
        first: String,
        second: String,
    },
    UnknownDefault {
        host: String,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::BadHost { service, host, why } => {
                write!(f, "host {host:?} of service {service:?} is not a host name: {why}")
            }
            RouteError::Conflict { host, first, second } => {
                write!(f, "host {host:?} is claimed by {first:?} and by {second:?}")
            }
            RouteError::UnknownDefault { host } => {
                write!(f, "default {host:?} is not the host of any service")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// How many more requests in flight (or tunnels) an upstream on this node may have than one on another node
/// before the other node is used. `None` treats all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPreference(pub Option<usize>);

impl Default for LocalPreference {
    fn default() -> LocalPreference {
        LocalPreference(Some(2))
    }
}

type Entry = (Box<str>, Arc<Service>);

#[derive(Default)]
pub struct Table {
    /// Keyed by bytes, so a lookup does not validate UTF-8.
    hosts: HashMap<Box<[u8]>, Arc<Service>>,
    /// By name. Services with one name have other upstreams: replicas of an endpoint may serve other hosts.
    services: HashMap<String, Vec<Arc<Service>>>,
    addresses: HashMap<UpstreamAddr, Arc<Address>>,
    default: Option<Entry>,
    /// Applies to services that are new in this table.
    pub prefer: LocalPreference,
}

impl Table {
    /// Builds the successor of `old`. Unchanged services keep their counters; addresses that are still
    /// named keep their pooled connections and health.
    pub fn build(
        specs: Vec<ServiceSpec>,
        default: Option<&str>,
        old: &Table,
        next_id: &mut u64,
    ) -> Result<Table, RouteError> {
        let mut table = Table {
            hosts: HashMap::with_capacity(specs.len()),
            services: HashMap::with_capacity(specs.len()),
            addresses: HashMap::with_capacity(specs.len()),
            default: None,
            prefer: LocalPreference::default(),
        };
        for spec in specs {
            let service = table.service(spec.name, spec.upstreams, old, next_id);
            for host in spec.hosts {
                table.add_host(&host, &service)?;
            }
        }
        if let Some(host) = default {
            let unknown = || RouteError::UnknownDefault { host: host.to_string() };
            let key = Host::parse(host.as_bytes()).map_err(|_| unknown())?;
            let (_, service) = table.find(&key).ok_or_else(unknown)?;
            table.default = Some((key.as_str().into(), Arc::clone(service)));
        }
        Ok(table)
    }

    fn service(
        &mut self,
        name: String,
        upstreams: Vec<UpstreamSpec>,
        old: &Table,
        next_id: &mut u64,
    ) -> Arc<Service> {
        let named = upstreams.iter().map(|spec| Upstream {
            address: self.address(&spec.address, old, next_id),
            last_resort: spec.last_resort,
        });
        let named: Vec<_> = named.collect();
        let known = || [&*self, old].into_iter().flat_map(|table| table.all_named(&name));
        let service = match known().find(|service| service.is_at(&upstreams)) {
            Some(same) => Arc::clone(same),
            None => {
                *next_id += 1;
                let changed = known().next();
                let stats = changed.map_or_else(Default::default, |s| {
                    (Arc::clone(&s.stats), Arc::clone(&s.stats_of_peers))
                });
                Arc::new(Service::new(*next_id, name.clone(), named, stats))
            }
        };
        self.services.entry(name).or_default().push(Arc::clone(&service));
        service
    }

    fn address(&mut self, address: &UpstreamAddr, old: &Table, next_id: &mut u64) -> Arc<Address> {
        let known = self.addresses.get(address).or_else(|| old.addresses.get(address));
        let found = known.map_or_else(
            || {
                *next_id += 1;
                Arc::new(Address::new(*next_id, address.clone()))
            },
            Arc::clone,
        );
        self.addresses.insert(address.clone(), Arc::clone(&found));
        found
    }

    fn add_host(&mut self, host: &str, service: &Arc<Service>) -> Result<(), RouteError> {
        let key = Host::parse(host.as_bytes()).map_err(|why| RouteError::BadHost {
            service: service.name.clone(),
            host: host.to_string(),
            why,
        })?;
        let before = self.hosts.insert(key.as_bytes().into(), Arc::clone(service));
        match before {
            Some(first) if first.name != service.name => Err(RouteError::Conflict {
                host: key.as_str().to_string(),
                first: first.name.clone(),
                second: service.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Retires the services and addresses that are missing in `new`.
    pub fn retire_missing_from(&self, new: &Table) {
        for service in self.services() {
            let lives = new.all_named(&service.name).iter().any(|s| s.id == service.id);
            if !lives {
                service.retire();
            }
        }
        let gone = |address: &&UpstreamAddr| !new.addresses.contains_key(*address);
        let addresses = self.addresses.iter().filter(|(address, _)| gone(address));
        addresses.for_each(|(_, address)| address.retire());
    }

    /// The peers that this table names and `old` did not.
    pub fn new_peers<'t>(&'t self, old: &'t Table) -> impl Iterator<Item = &'t PeerRef> {
        let new = self.addresses.keys().filter(|address| !old.addresses.contains_key(*address));
        new.filter_map(|address| match address {
            UpstreamAddr::Peer(peer) => Some(peer),
            _ => None,
        })
    }

    /// The service with this name, or the last of several.
    pub fn named(&self, name: &str) -> Option<&Arc<Service>> {
        self.all_named(name).last()
    }

    fn all_named(&self, name: &str) -> &[Arc<Service>] {
        self.services.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().flatten()
    }

    /// Exact match first, then the longest suffix, then the default.
    pub fn lookup(&self, host: &Host<'_>) -> Option<&Arc<Service>> {
        let default = || self.default().map(|(_, service)| service);
        self.find(host).map(|(_, service)| service).or_else(default)
    }

    /// The service for requests without a host (HTTP/1.0 only), and the host to send to it.
    pub fn default(&self) -> Option<(&str, &Arc<Service>)> {
        self.default.as_ref().map(|(host, service)| (&**host, service))
    }

    pub fn resolve(&self, host: &Host<'_>) -> Option<Resolved> {
        let found = self.find(host).map(|(start, service)| {
            let rule = if start == 0 { Rule::Exact } else { Rule::Suffix };
            (rule, &host.as_str()[start..], service)
        });
        let default = self.default().map(|(key, service)| (Rule::Default, key, service));
        found.or(default).map(|(rule, key, service)| Resolved {
            rule,
            host: key.to_string(),
            service: service.name.clone(),
        })
    }

    /// Returns the matching service, and where its entry begins in the host.
    fn find(&self, host: &Host<'_>) -> Option<(usize, &Arc<Service>)> {
        let whole = host.as_bytes();
        if let Some(service) = self.hosts.get(whole) {
            return Some((0, service));
        }
        if host.is_address() {
            return None;
        }
        memchr::memchr_iter(b'.', whole)
            .map(|dot| dot + 1)
            .find_map(|start| Some((start, self.hosts.get(&whole[start..])?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, ports: &[u16]) -> ServiceSpec {
        let upstreams = ports.iter().map(|port| UpstreamAddr::Loopback(*port)).collect();
        ServiceSpec::new(name, upstreams)
    }

    fn next(old: &Table, specs: &[(&str, &[u16])], next_id: &mut u64) -> Table {
        let specs = specs.iter().map(|(name, ports)| spec(name, ports)).collect();
        let table = Table::build(specs, None, old, next_id).unwrap();
        old.retire_missing_from(&table);
        table
    }

    fn ids(table: &Table, name: &str) -> Vec<u64> {
        table.named(name).unwrap().upstreams.iter().map(|upstream| upstream.address.id).collect()
    }

    #[test]
    fn services_with_one_name_are_kept_and_retired_each() {
        let mut id = 0;
        let rows = [("a.one", &[1][..]), ("a.two", &[2])];
        let build = |rows: &[(&str, &[u16])], old: &Table, id: &mut u64| {
            let specs = rows.iter().map(|(host, ports)| ServiceSpec {
                name: "A".into(),
                hosts: vec![(*host).into()],
                ..spec("", ports)
            });
            let table = Table::build(specs.collect(), None, old, id).unwrap();
            old.retire_missing_from(&table);
            table
        };
        let at = |table: &Table, host: &str| {
            Arc::clone(table.lookup(&Host::parse(host.as_bytes()).unwrap()).unwrap())
        };
        let first = build(&rows, &<Table as Default>::default(), &mut id);
        let second = build(&rows, &first, &mut id);
        let services = [at(&first, "a.one"), at(&first, "a.two")];
        for (host, service) in ["a.one", "a.two"].iter().zip(&services) {
            assert_eq!(at(&second, host).id, service.id);
            assert!(!service.is_retired());
        }
        assert_eq!(second.named("A").unwrap().id, services[1].id);
        let _third = build(&rows[..1], &second, &mut id);
        assert!(!services[0].is_retired() && services[1].is_retired());
    }

    #[test]
    fn addresses_outlive_the_services_that_name_them() {
        let mut id = 0;
        let first = next(&<Table as Default>::default(), &[("a", &[1, 2]), ("b", &[2])], &mut id);
        assert_eq!(ids(&first, "a")[1], ids(&first, "b")[0], "they share it");
        let second = next(&first, &[("a", &[2, 3]), ("c", &[1])], &mut id);
        assert_eq!(ids(&second, "a")[0], ids(&first, "a")[1]);
        assert_eq!(ids(&second, "c"), ids(&first, "a")[..1]);
        assert!(
            first
                .services()
                .flat_map(|s| &s.upstreams)
                .all(|upstream| !upstream.address.is_retired())
        );
        let third = next(&second, &[("c", &[1])], &mut id);
        let gone = second.named("a").unwrap();
        assert!(
            gone.is_retired()
                && gone.upstreams.iter().all(|upstream| upstream.address.is_retired())
        );
        assert!(!third.named("c").unwrap().upstreams[0].address.is_retired());
        // An address that returns is new: its old connections are closed.
        let fourth = next(&third, &[("a", &[2])], &mut id);
        assert_ne!(ids(&fourth, "a"), ids(&second, "a")[..1]);
    }
}
