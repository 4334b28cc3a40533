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
    /// By address id, because services share addresses.
    pools: HashMap<u64, Rc<Pool>>,
}

impl LocalRoutes {
    pub fn new(table: Arc<ArcSwap<Table>>, worker: usize) -> LocalRoutes {
        let inner = Inner {
            cache: Cache::new(table),
            tidied_for: std::ptr::null(),
            services: HashMap::new(),
            pools: HashMap::new(),
        };
        LocalRoutes { inner: RefCell::new(inner), worker }
    }

    /// Finds the service for a host. Without a host, returns the default service and the host to send to
    /// it; both come from one table, because the next may have another default.
    pub fn find(&self, host: Option<&Host<'_>>) -> Option<(Rc<LocalService>, Option<Box<str>>)> {
        let inner = &mut *self.inner.borrow_mut();
        let table = inner.cache.load();
        if !std::ptr::eq(Arc::as_ptr(table), inner.tidied_for) {
            inner.tidied_for = Arc::as_ptr(table);
            inner.services.retain(|_, local| !local.service.is_retired());
            inner.pools.retain(|_, pool| !pool.is_retired());
        }
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

    /// Closes idle upstream connections that are too old. Returns how many are left.
    pub fn reap(&self, oldest: Option<Instant>) -> usize {
        self.inner.borrow().pools.values().map(|pool| pool.reap(oldest)).sum()
    }
}

fn local(
    services: &mut HashMap<u64, Rc<LocalService>>,
    pools: &mut HashMap<u64, Rc<Pool>>,
    service: &Arc<Service>,
    worker: usize,
) -> Rc<LocalService> {
    let mut pool = |address: &Arc<Address>| {
        Rc::clone(pools.entry(address.id).or_insert_with(|| Pool::new(Arc::clone(address))))
    };
    let entry = services.entry(service.id);
    Rc::clone(entry.or_insert_with(|| {
        let pools = service.upstreams.iter().map(|upstream| pool(&upstream.address)).collect();
        LocalService::new(Arc::clone(service), worker, pools)
    }))
}
