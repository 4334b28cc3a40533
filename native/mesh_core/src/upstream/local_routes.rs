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

use super::balance::Balancer;
use super::local_service::LocalService;
use super::pool::Pool;
use super::retry_budget::RetryBudget;
use crate::calls::CallConfig;
use crate::routing::{Address, LocalPreference, Service, Table};

pub struct LocalRoutes {
    inner: RefCell<Inner>,
}

struct Inner {
    cache: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    /// The table after whose load retired services were removed. The cache keeps it alive.
    tidied_for: *const Table,
    used: Used,
}

/// What this worker has of the services that it has used.
struct Used {
    worker: usize,
    calls: CallConfig,
    services: HashMap<u64, Rc<LocalService>>,
    /// The same for requests of peers, which only upstreams on this node serve.
    services_for_peers: HashMap<u64, Rc<LocalService>>,
    /// By address id, because services share addresses.
    pools: HashMap<u64, Rc<Pool>>,
    /// By service name, because a service with other upstreams is a new one.
    retry_budgets: HashMap<String, Rc<RetryBudget>>,
}

impl LocalRoutes {
    pub fn new(table: Arc<ArcSwap<Table>>, worker: usize, calls: CallConfig) -> LocalRoutes {
        let used = Used {
            worker,
            calls,
            services: HashMap::new(),
            services_for_peers: HashMap::new(),
            pools: HashMap::new(),
            retry_budgets: HashMap::new(),
        };
        let inner = Inner { cache: Cache::new(table), tidied_for: std::ptr::null(), used };
        LocalRoutes { inner: RefCell::new(inner) }
    }

    /// Finds the service for a host. Without a host, returns the default service and the host to send to
    /// it; both come from one table, because the next may have another default.
    pub fn find(&self, host: Option<&Host<'_>>) -> Option<(Rc<LocalService>, Option<Box<str>>)> {
        let Inner { cache, tidied_for, used } = &mut *self.inner.borrow_mut();
        let table = cache.load();
        if !std::ptr::eq(Arc::as_ptr(table), *tidied_for) {
            *tidied_for = Arc::as_ptr(table);
            used.tidy(table);
        }
        let (service, default_host) = match host {
            Some(host) => (table.lookup(host)?, None),
            None => table.default().map(|(host, service)| (service, Some(host.into())))?,
        };
        Some((used.service(service, table), default_host))
    }

    /// The service with this name in the current table.
    pub fn named(&self, name: &str) -> Option<Rc<LocalService>> {
        let Inner { cache, used, .. } = &mut *self.inner.borrow_mut();
        let table = cache.load();
        Some(used.service(table.named(name)?, table))
    }

    /// The service with this name, with those of its upstreams that are on this node. `None` if there are none.
    pub fn of_this_node(&self, name: &str) -> Option<Rc<LocalService>> {
        let Inner { cache, tidied_for, used } = &mut *self.inner.borrow_mut();
        let table = cache.load();
        if !std::ptr::eq(Arc::as_ptr(table), *tidied_for) {
            *tidied_for = Arc::as_ptr(table);
            used.tidy(table);
        }
        used.of_this_node(table.named(name)?)
    }

    /// Closes idle upstream connections that are too old. Returns how many are left.
    pub fn reap(&self, oldest: Option<Instant>) -> usize {
        self.inner.borrow().used.pools.values().map(|pool| pool.reap(oldest)).sum()
    }
}

impl Used {
    /// Drops what this table has no longer.
    fn tidy(&mut self, table: &Table) {
        self.services.retain(|_, local| !local.service.is_retired());
        self.services_for_peers.retain(|_, local| !local.service.is_retired());
        self.pools.retain(|_, pool| !pool.is_retired());
        self.retry_budgets.retain(|name, _| table.named(name).is_some());
    }

    fn service(&mut self, service: &Arc<Service>, table: &Table) -> Rc<LocalService> {
        match self.services.get(&service.id) {
            Some(local) => Rc::clone(local),
            None => self.add(service, table),
        }
    }

    fn add(&mut self, service: &Arc<Service>, table: &Table) -> Rc<LocalService> {
        let upstreams = service.upstreams.iter().map(|it| (self.pool(&it.address), it.last_resort));
        let balancer = Balancer::new(upstreams.collect(), table.prefer);
        let counters = service.stats.of_worker(self.worker);
        let budget = self.retry_budgets.entry(service.name.clone());
        let budget = budget
            .or_insert_with(|| Rc::new(RetryBudget::new(Instant::now(), counters.requests.get())));
        let local = LocalService::new(Arc::clone(service), counters, balancer, Rc::clone(budget));
        self.services.insert(service.id, Rc::clone(&local));
        local
    }

    fn of_this_node(&mut self, service: &Arc<Service>) -> Option<Rc<LocalService>> {
        if let Some(local) = self.services_for_peers.get(&service.id) {
            return Some(Rc::clone(local));
        }
        let here = service.upstreams.iter().filter(|upstream| !upstream.address.is_peer());
        let upstreams: Vec<_> = here.map(|it| (self.pool(&it.address), it.last_resort)).collect();
        if upstreams.is_empty() {
            return None;
        }
        let balancer = Balancer::new(upstreams, LocalPreference::default());
        let counters = service.stats_of_peers.of_worker(self.worker);
        let budget = Rc::new(RetryBudget::new(Instant::now(), counters.requests.get()));
        let local = LocalService::new(Arc::clone(service), counters, balancer, budget);
        self.services_for_peers.insert(service.id, Rc::clone(&local));
        Some(local)
    }

    fn pool(&mut self, address: &Arc<Address>) -> Rc<Pool> {
        let pool = self.pools.entry(address.id);
        Rc::clone(pool.or_insert_with(|| Pool::new(Arc::clone(address), &self.calls)))
    }
}
