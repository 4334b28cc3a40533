//! The tasks that serve connections. One that has served its connection waits for another: making
//! a task, its timer and the three kilobytes of its state anew for each connection, and freeing
//! them, costs a tenth of what the gateway does for a connection of one request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::connection;
use crate::timer::Timer;
use crate::worker::{Open, Worker};

/// How many tasks may wait in one worker. What a burst of connections needs beyond that is freed
/// after it.
const SPARE_TASKS: usize = 64;

/// A connection that has just been accepted.
pub struct Newcomer {
    pub open: Open,
    pub client: TcpStream,
    pub address: SocketAddr,
}

/// The tasks of one worker that wait for a connection.
#[derive(Default)]
pub struct Spares(RefCell<Vec<Rc<Inbox>>>);

/// Where a task gets its connections.
#[derive(Default)]
struct Inbox {
    /// Boxed, for it is in nobody's way for as long as a connection lasts.
    newcomer: Cell<Option<Box<Newcomer>>>,
    waker: Cell<Option<Waker>>,
}

/// Has the connection served by the task that has waited for the shortest time, or by a new one.
pub fn serve(newcomer: Newcomer) {
    let worker = Rc::clone(&newcomer.open.worker);
    let waiting = worker.spares.0.borrow_mut().pop();
    let inbox = waiting.clone().unwrap_or_default();
    inbox.newcomer.set(Some(Box::new(newcomer)));
    if waiting.is_none() {
        // Boxed before it is handed on: a task is moved several times until it has a place.
        spawn_local(Box::pin(run(worker, inbox)));
    } else if let Some(waker) = inbox.waker.take() {
        waker.wake();
    }
}

async fn run(worker: Rc<Worker>, inbox: Rc<Inbox>) {
    let mut timer = Timer::default();
    loop {
        connection::serve(inbox.next().await, &mut timer).await;
        let mut spares = worker.spares.0.borrow_mut();
        if spares.len() >= SPARE_TASKS {
            return;
        }
        spares.push(Rc::clone(&inbox));
    }
}

impl Inbox {
    async fn next(&self) -> Box<Newcomer> {
        poll_fn(|cx| match self.newcomer.take() {
            Some(newcomer) => Poll::Ready(newcomer),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}
