//! Accepting connections, for one worker. The listening sockets are shared: each worker has
//! descriptors of its own for the same queues, which the kernel drops with the last of them.

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
use super::worker::{Accepted, Open, Worker};
use crate::observe::Notice;

/// Pause after a failed `accept`: without descriptors the next one fails as well, and a loop that
/// tries at once would take the whole core.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a worker that stops tries again after that.
const LAST_TRIES: usize = 50;
/// A worker with this many connections more than another, and an eighth of the other's, lets it have
/// the next ones.
const AHEAD: u64 = 4;
/// For how long: enough to wake up, and too short to notice.
const TURN: Duration = Duration::from_millis(1);
/// Where the others take none of what waits, they are busy, and the worker that is ahead takes twice
/// as many after each turn: up to so many.
const MOST_AT_ONCE: usize = 64;

pub struct Accepting {
    listeners: Vec<Rc<TcpListener>>,
    tasks: JoinSet<()>,
}

impl Accepting {
    pub fn start(worker: &Rc<Worker>, listeners: Vec<net::TcpListener>) -> io::Result<Accepting> {
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|listener| TcpListener::from_std(listener).map(Rc::new))
            .collect::<io::Result<_>>()?;
        let mut tasks = JoinSet::new();
        for listener in &listeners {
            tasks.spawn_local(accept(Rc::clone(worker), Rc::clone(listener)));
        }
        Ok(Accepting { listeners, tasks })
    }

    /// Returns when a task that accepts has panicked.
    pub async fn failed(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Accepts what is left in the queues, and closes this worker's descriptors of them.
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
        let served = take(&worker, accepted).await;
        if !served || !is_ahead(&worker) {
            continue;
        }
        if left > 0 {
            left -= 1;
            continue;
        }
        let before = taken_by_others(&worker);
        #[cfg(test)]
        worker.shared.turns.fetch_add(1, Ordering::Relaxed);
        // A connection that has ended meanwhile will do, too.
        let _ = timeout(TURN, worker.ended.notified()).await;
        let none_taken = taken_by_others(&worker) == before;
        match at_once(listener.accept()).await {
            Some(accepted) => {
                take(&worker, accepted).await;
                (left, next) = if none_taken { (next, MOST_AT_ONCE.min(2 * next)) } else { (0, 1) };
            }
            None => next = 1,
        }
    }
}

/// Connections that the other workers have accepted so far.
fn taken_by_others(worker: &Worker) -> u64 {
    worker.shared.accepted().wrapping_sub(worker.counters.connections_accepted.get())
}

/// The result of a future that has one already.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}

/// Accepts until nothing is left.
async fn accept_rest(worker: &Rc<Worker>, listener: &net::TcpListener) {
    // More than the queue holds: nothing is to come in any more.
    let (mut most, mut tries) = (2 * BACKLOG, LAST_TRIES);
    while most > 0 && tries > 0 {
        most -= 1;
        let accepted = listener.accept().and_then(|(stream, address)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, address))
        });
        match &accepted {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if !concerns_one_connection(error) => tries -= 1,
            _ => {}
        }
        take(worker, accepted).await;
    }
}

/// Has a connection served; whether there is one.
async fn take(worker: &Rc<Worker>, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
    match accepted {
        Ok((client, address)) => {
            #[cfg(test)]
            assert!(
                !worker.shared.crash.swap(false, Ordering::SeqCst),
                "a worker is told to panic"
            );
            match Open::new(worker, address.ip().to_canonical()) {
                Ok(open) => {
                    worker.counters.connections_accepted.add(1);
                    let accepted = Accepted { open, client, address };
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

/// The client left between its SYN and our accept.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Whether another worker is to have the next connection. The worker that wakes up first takes one
/// after another while there are any: of connections that come at once and are kept, it could get
/// them all, and serve them all for as long as they are kept.
fn is_ahead(worker: &Worker) -> bool {
    let fewest = worker.shared.fewest_open();
    worker.counters.connections_open.get() > fewest + AHEAD + fewest / 8
}
