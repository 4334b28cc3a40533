//! One worker's view of the routing table: the current snapshot, and the services that the worker has used.
//!
//! Nothing here is shared, so a request finds its service without an atomic write.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use hashbrown::HashMap;
use mesh_wire::host::Host;
use tokio::time::Instant;

use super::local_service::LocalService;
use super::pool::Pool;
use crate::routing::{Address, Service, Table};

pub struct LocalRoutes {
    inner: RefCell<Inner>,
    worker: usize,
}

struct Inner {
    cache: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    /// The table after whose load retired services were removed. The cache keeps it alive.
    tidied_for: *const Table,
    services: HashMap<u64, Rc<LocalService>>,
    /// The same for requests of peers, which only upstreams of this node serve.
    services_for_peers: HashMap<u64, Rc<LocalService>>,
    /// By address id, because services share addresses.
    pools: HashMap<u64, Rc<Pool>>,
}

impl LocalRoutes {
    pub fn new(table: Arc<ArcSwap<Table>>, worker: usize) -> LocalRoutes {
        let inner = Inner {
            cache: Cache::new(table),
            tidied_for: std::ptr::null(),
            services: HashMap::new(),
            services_for_peers: HashMap::new(),
            pools: HashMap::new(),
        };
        LocalRoutes { inner: RefCell::new(inner), worker }
    }

    /// Finds the service for a host. Without a host, returns the default service and the host to send to
    /// it; both come from one table, because the next may have another default.
    pub fn find(&self, host: Option<&Host<'_>>) -> Option<(Rc<LocalService>, Option<Box<str>>)> {
        let inner = &mut *self.inner.borrow_mut();
        inner.tidy();
        let table = inner.cache.load();
        let (service, default_host) = match host {
            Some(host) => (table.lookup(host)?, None),
            None => table.default().map(|(host, service)| (service, Some(host.into())))?,
        };
        let local = local(&mut inner.services, &mut inner.pools, service, self.worker);
        Some((local, default_host))
    }

    /// The service with this name in the current table.
    pub fn named(&self, name: &str) -> Option<Rc<LocalService>> {
        let inner = &mut *self.inner.borrow_mut();
        let service = inner.cache.load().named(name)?;
        Some(local(&mut inner.services, &mut inner.pools, service, self.worker))
    }

    /// The service with this name, with those of its upstreams that are on this node. `None` if there are none.
    pub fn of_this_node(&self, name: &str) -> Option<Rc<LocalService>> {
        let inner = &mut *self.inner.borrow_mut();
        let service = Arc::clone(inner.cache.load().named(name)?);
        inner.tidy();
        if let Some(known) = inner.services_for_peers.get(&service.id) {
            return Some(Rc::clone(known));
        }
        let here = service.upstreams.iter().filter(|it| !it.address.is_peer());
        let pools: Vec<_> = here.map(|it| pool(&mut inner.pools, &it.address)).collect();
        if pools.is_empty() {
            return None;
        }
        let counters = service.stats_of_peers.of_worker(self.worker);
        let local = LocalService::new(Arc::clone(&service), counters, pools);
        inner.services_for_peers.insert(service.id, Rc::clone(&local));
        Some(local)
    }

    /// Closes idle upstream connections that are too old. Returns how many are left.
    pub fn reap(&self, oldest: Option<Instant>) -> usize {
        self.inner.borrow().pools.values().map(|pool| pool.reap(oldest)).sum()
    }
}

impl Inner {
    /// Drops what has left the table since the last call.
    fn tidy(&mut self) {
        let table = Arc::as_ptr(self.cache.load());
        if !std::ptr::eq(table, self.tidied_for) {
            self.tidied_for = table;
            self.services.retain(|_, local| !local.service.is_retired());
            self.services_for_peers.retain(|_, local| !local.service.is_retired());
            self.pools.retain(|_, pool| !pool.is_retired());
        }
    }
}

fn pool(pools: &mut HashMap<u64, Rc<Pool>>, address: &Arc<Address>) -> Rc<Pool> {
    Rc::clone(pools.entry(address.id).or_insert_with(|| Pool::new(Arc::clone(address))))
}

fn local(
    services: &mut HashMap<u64, Rc<LocalService>>,
    pools: &mut HashMap<u64, Rc<Pool>>,
    service: &Arc<Service>,
    worker: usize,
) -> Rc<LocalService> {
    let entry = services.entry(service.id);
    Rc::clone(entry.or_insert_with(|| {
        let pools = service.upstreams.iter().map(|it| pool(pools, &it.address)).collect();
        LocalService::new(Arc::clone(service), service.stats.of_worker(worker), pools)
    }))
}
