//! The resource: one gateway, held for as long as a term or a running worker refers to it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use mesh_core::Gateway;
use rustler::{Env, LocalPid, Monitor, Resource};

use crate::slots::Slots;

/// How long connections may go on when the gateway's owner is gone without having said anything
/// else.
const ORPHAN_DRAIN: Duration = Duration::from_secs(30);

/// No worker can be running when the last reference goes, for each of them holds one.
pub struct Handle {
    pub gateway: Gateway,
    pub slots: Slots,
    /// Records and lines sent to the process that observes, and not yet taken by it.
    pub underway: Arc<AtomicUsize>,
}

#[rustler::resource_impl]
impl Resource for Handle {
    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.stop(Some(ORPHAN_DRAIN));
    }
}

impl Handle {
    pub fn stop(&self, drain: Option<Duration>) {
        self.gateway.stop(drain);
        self.slots.stop();
    }
}

/// Turns a panic into words. Unwinding into the VM would end the VM.
pub fn contain<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|payload| format!("panicked: {}", words(&*payload)))
}

fn words(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for an unknown reason")
}
