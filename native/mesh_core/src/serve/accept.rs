//! Accepts connections for one worker.
//!
//! The listening sockets are shared: each worker has its own descriptors of the same queues, which the
//! kernel drops with the last descriptor.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{self, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
#[cfg(test)]
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::http1;
use super::listener::BACKLOG;
use super::listening::Entered;
use super::worker::{Accepted, ConnectionGuard, Worker};
use crate::observe::Notice;

/// Pause after a failed `accept`. Without descriptors the next one fails too, and a retry loop would use a
/// whole core.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a stopping worker retries after that.
const DRAIN_RETRIES: usize = 50;
/// A worker yields to another if it has more connections than the other by this many and by an eighth.
const MAX_LEAD: u64 = 4;
/// How long it yields: enough for the other to wake up, and too short to notice.
const YIELD_TIME: Duration = Duration::from_millis(1);
/// If the others accept nothing meanwhile, they are busy. The worker then accepts twice as many per turn,
/// up to this many.
const MAX_BATCH: usize = 64;

pub struct Accepting<'w> {
    // Dropped in this order: what still accepts is counted.
    tasks: JoinSet<()>,
    listeners: Vec<Rc<TcpListener>>,
    _entered: Entered<'w>,
}

impl<'w> Accepting<'w> {
    pub fn start(worker: &'w Rc<Worker>) -> io::Result<Accepting<'w>> {
        let entered = worker.shared.listening.enter();
        let listeners: Vec<_> = worker
            .shared
            .listening
            .listeners()?
            .into_iter()
            .map(|listener| TcpListener::from_std(listener).map(Rc::new))
            .collect::<io::Result<_>>()?;
        let mut tasks = JoinSet::new();
        for listener in &listeners {
            tasks.spawn_local(accept(Rc::clone(worker), Rc::clone(listener)));
        }
        Ok(Accepting { tasks, listeners, _entered: entered })
    }

    /// Returns when an accept task has panicked.
    pub async fn failed(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// Closes this worker's descriptors. What is in the queues stays there.
    pub async fn pause(mut self) {
        self.tasks.shutdown().await;
    }

    /// Accepts the connections left in the queues, then closes this worker's descriptors.
    pub async fn finish(mut self, worker: &Rc<Worker>) {
        self.tasks.shutdown().await;
        for listener in self.listeners.drain(..).filter_map(Rc::into_inner) {
            // Fails only when the event loop is gone.
            if let Ok(listener) = listener.into_std() {
                accept_rest(worker, &listener).await;
            }
        }
    }
}

async fn accept(worker: Rc<Worker>, listener: Rc<TcpListener>) {
    let (mut left, mut next) = (0, 1);
    loop {
        let accepted = listener.accept().await;
        let served = handle(&worker, accepted).await;
        if !served || !is_ahead(&worker) {
            continue;
        }
        if left > 0 {
            left -= 1;
            continue;
        }
        let before = accepted_by_others(&worker);
        #[cfg(test)]
        worker.shared.yields.fetch_add(1, Ordering::Relaxed);
        // A connection that ends meanwhile also evens out the load.
        let _ = timeout(YIELD_TIME, worker.ended.notified()).await;
        let none_taken = accepted_by_others(&worker) == before;
        match poll_once(listener.accept()).await {
            Some(accepted) => {
                handle(&worker, accepted).await;
                (left, next) = if none_taken { (next, MAX_BATCH.min(2 * next)) } else { (0, 1) };
            }
            None => next = 1,
        }
    }
}

fn accepted_by_others(worker: &Worker) -> u64 {
    worker.shared.accepted().wrapping_sub(worker.counters.connections_accepted.get())
}

/// Polls a future once. Returns its result if it is ready.
async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}

/// Accepts until the queue is empty.
async fn accept_rest(worker: &Rc<Worker>, listener: &net::TcpListener) {
    // More than the queue holds; no new connections enter it.
    let (mut max, mut tries) = (2 * BACKLOG, DRAIN_RETRIES);
    while max > 0 && tries > 0 {
        max -= 1;
        let accepted = listener.accept().and_then(|(stream, address)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, address))
        });
        match &accepted {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if !concerns_one_connection(error) => tries -= 1,
            _ => {}
        }
        handle(worker, accepted).await;
    }
}

/// Starts serving an accepted connection. Returns whether there is one.
async fn handle(worker: &Rc<Worker>, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
    match accepted {
        Ok((client, address)) => {
            #[cfg(test)]
            assert!(
                !worker.shared.crash.swap(false, Ordering::SeqCst),
                "a worker is told to panic"
            );
            match ConnectionGuard::new(worker, address.ip().to_canonical()) {
                Ok(guard) => {
                    worker.counters.connections_accepted.add(1);
                    let accepted = Accepted { guard, client, address };
                    worker.tasks.serve(accepted, http1::serve);
                    return true;
                }
                Err(error) => http1::turn_away(worker, &client, &error),
            }
        }
        Err(error) if concerns_one_connection(&error) => {}
        Err(error) => {
            worker.counters.accept_errors.add(1);
            worker.shared.observer.notice(Notice::Accept, || error.to_string());
            sleep(PAUSE).await;
        }
    }
    false
}

/// The client left between its SYN and `accept`.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Whether another worker should accept the next connection. Otherwise the worker that wakes up first could
/// accept all connections of a burst, and serve them for as long as they stay open.
fn is_ahead(worker: &Worker) -> bool {
    let fewest = worker.shared.fewest_open();
    worker.counters.connections_open.get() > fewest + MAX_LEAD + fewest / 8
}
