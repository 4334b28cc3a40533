//! The processes that get the calls of an endpoint, as all workers share them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::call::Call;
use super::shared::Place;

/// How many calls of an endpoint may wait until a process takes them, over all workers. More requests wait in
/// their worker.
pub const MAX_WAITING: usize = 1024;

/// Hands calls to processes.
pub trait Dispatch: Send + Sync {
    /// Identifies the processes.
    fn ids(&self) -> &[u64];

    /// Sends the calls to one of the processes. `false` if none of them lives.
    fn send(&self, calls: &[Arc<Call>]) -> bool;
}

pub struct Dispatchers {
    dispatch: Box<dyn Dispatch>,
    places: Arc<Semaphore>,
    ended: AtomicBool,
}

/// Dispatchers are the same if their processes are.
#[derive(Clone)]
pub struct DispatchersRef(Arc<Dispatchers>);

impl DispatchersRef {
    pub fn new(dispatch: Box<dyn Dispatch>) -> DispatchersRef {
        let places = Arc::new(Semaphore::new(MAX_WAITING));
        DispatchersRef(Arc::new(Dispatchers { dispatch, places, ended: AtomicBool::new(false) }))
    }

    /// The processes have ended: requests go to the endpoint's socket.
    pub fn have_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    pub fn set_ended(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    pub fn try_place(&self) -> Option<Place> {
        Arc::clone(&self.0.places).try_acquire_owned().ok()
    }

    pub async fn place(&self) -> Option<Place> {
        // The semaphore is never closed.
        Arc::clone(&self.0.places).acquire_owned().await.ok()
    }

    pub fn send(&self, calls: &[Arc<Call>]) -> bool {
        self.0.dispatch.send(calls)
    }

    fn ids(&self) -> &[u64] {
        self.0.dispatch.ids()
    }
}

impl PartialEq for DispatchersRef {
    fn eq(&self, other: &DispatchersRef) -> bool {
        self.ids() == other.ids()
    }
}

impl Eq for DispatchersRef {}

impl Hash for DispatchersRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ids().hash(state);
    }
}

impl fmt::Debug for DispatchersRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dispatchers").field(&self.ids()).finish()
    }
}
