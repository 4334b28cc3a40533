//! Counts open connections to upstreams.

use std::sync::Arc;

use crate::observe::ServiceCounters;

/// Counts an upstream connection as open until dropped, for the service that used it last.
pub struct OpenUpstream(Option<Arc<ServiceCounters>>);

impl OpenUpstream {
    pub fn new(counters: &Arc<ServiceCounters>) -> OpenUpstream {
        counters.upstream_connections_open.add(1);
        OpenUpstream(Some(Arc::clone(counters)))
    }

    /// A call is no connection.
    pub fn nothing() -> OpenUpstream {
        OpenUpstream(None)
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        if let Some(counters) = &self.0 {
            counters.upstream_connections_open.sub(1);
        }
    }
}

impl OpenUpstream {
    /// Moves the count to another service.
    pub fn counted_for(self, counters: &Arc<ServiceCounters>) -> OpenUpstream {
        if self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, counters)) {
            self
        } else {
            OpenUpstream::new(counters)
        }
    }
}
