//! Counts open connections to upstreams.

use std::sync::Arc;

use crate::observe::ServiceCounters;

/// Counts an upstream connection as open until dropped, for the service that used it last.
pub struct OpenUpstream(Arc<ServiceCounters>);

impl OpenUpstream {
    pub fn new(counters: &Arc<ServiceCounters>) -> OpenUpstream {
        counters.upstream_connections_open.add(1);
        OpenUpstream(Arc::clone(counters))
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        self.0.upstream_connections_open.sub(1);
    }
}

impl OpenUpstream {
    /// Moves the count to another service.
    pub fn counted_for(self, counters: &Arc<ServiceCounters>) -> OpenUpstream {
        if Arc::ptr_eq(&self.0, counters) { self } else { OpenUpstream::new(counters) }
    }
}
