//! The resource that holds one gateway for as long as a term or a running worker refers to it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use mesh_core::Gateway;
use rustler::{Env, LocalPid, Monitor, Resource};

use crate::send::Relay;
use crate::slots::Slots;

/// The drain time of a gateway whose owner ended without stopping it.
const ORPHAN_DRAIN: Duration = Duration::from_secs(30);

/// When the last reference is dropped no worker runs, because each worker holds one.
pub struct Handle {
    pub gateway: Gateway,
    pub slots: Slots,
    /// Records and lines sent to the observing process, which has not acknowledged them.
    pub unacknowledged: Arc<AtomicUsize>,
    /// Sends messages for workers whose process was killed.
    pub relay: Arc<Relay>,
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

/// Turns a panic into an error. Unwinding into the VM would end the VM.
pub fn contain<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|payload| format!("panicked: {}", panic_message(&*payload)))
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for an unknown reason")
}
