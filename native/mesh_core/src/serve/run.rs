//! Runs a worker: accepts and serves until the gateway stops, then drains.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinSet, spawn_local};

use super::accept::Accepting;
use super::drain;
use super::peers;
use super::shared::{Phase, Shared};
use super::worker::Worker;
use crate::observe::WorkerCounters;
use crate::upstream::greet;

#[derive(Debug)]
pub enum WorkerError {
    UnknownWorker(usize),
    AlreadyRunning(usize),
    Io(std::io::Error),
    /// The task that accepts connections panicked.
    Panicked,
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::UnknownWorker(index) => write!(f, "there is no worker {index}"),
            WorkerError::AlreadyRunning(index) => write!(f, "worker {index} is running already"),
            WorkerError::Io(error) => write!(f, "the worker's event loop failed: {error}"),
            WorkerError::Panicked => f.write_str("the worker's accept loop panicked"),
        }
    }
}

impl std::error::Error for WorkerError {}

pub fn run_worker(
    shared: Arc<Shared>,
    index: usize,
    counters: Arc<WorkerCounters>,
) -> Result<(), WorkerError> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())
        .map_err(WorkerError::Io)?;
    runtime.block_on(async { serve(&Worker::new(shared, index, counters)).await })
}

async fn serve(worker: &Rc<Worker>) -> Result<(), WorkerError> {
    let mut phase = worker.shared.phase.subscribe();
    let mut is_open = worker.shared.listening.accepting();
    let mut accepting = None;
    let mut mesh = worker.shared.mesh.subscribe();
    // Dropped last: peers may connect as long as this gateway serves.
    let mut peers = JoinSet::new();
    loop {
        if peers.is_empty()
            && let Some(port) = mesh.borrow_and_update().clone()
        {
            peers = peers::accept(worker, &port).map_err(WorkerError::Io)?;
        }
        match *phase.borrow_and_update() {
            Phase::Serving => {}
            Phase::LameDuck => worker.lame_duck.raise(),
            Phase::Draining(_) => break,
        }
        match (*is_open.borrow_and_update(), accepting.take()) {
            (true, None) => {
                accepting = Some(Accepting::start(worker).map_err(WorkerError::Io)?);
            }
            (false, Some(open)) => open.pause().await,
            (_, unchanged) => accepting = unchanged,
        }
        tokio::select! {
            // Never an error: the sender lives in `shared`, which lives in `worker`.
            _ = phase.changed() => {}
            _ = mesh.changed() => {}
            () = worker.shared.greet.notified() => {
                for peer in worker.shared.to_greet.lock().drain(..) {
                    spawn_local(greet(peer));
                }
            }
            _ = is_open.changed() => {}
            () = failed(&mut accepting) => return Err(WorkerError::Panicked),
            Some(_) = peers.join_next() => return Err(WorkerError::Panicked),
        }
    }
    worker.lame_duck.raise();
    worker.draining.raise();
    drain::run(worker, accepting, phase).await;
    Ok(())
}

async fn failed(accepting: &mut Option<Accepting<'_>>) {
    match accepting {
        Some(accepting) => accepting.failed().await,
        None => std::future::pending().await,
    }
}
