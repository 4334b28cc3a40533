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

/// Where a waiting task gets its connection.
#[derive(Default)]
struct Inbox {
    newcomer: Cell<Option<Newcomer>>,
    waker: Cell<Option<Waker>>,
}

/// Has the connection served by the task that has waited for the shortest time, or by a new one.
pub fn serve(newcomer: Newcomer) {
    let worker = &newcomer.open.worker;
    let Some(inbox) = worker.spares.0.borrow_mut().pop() else {
        // Boxed before it is handed on: a task is moved several times until it has a place.
        spawn_local(Box::pin(run(Rc::clone(worker), newcomer)));
        return;
    };
    inbox.newcomer.set(Some(newcomer));
    if let Some(waker) = inbox.waker.take() {
        waker.wake();
    }
}

async fn run(worker: Rc<Worker>, mut newcomer: Newcomer) {
    let inbox = Rc::new(Inbox::default());
    let mut timer = Timer::default();
    loop {
        connection::serve(newcomer, &mut timer).await;
        {
            let mut spares = worker.spares.0.borrow_mut();
            if spares.len() >= SPARE_TASKS {
                return;
            }
            spares.push(Rc::clone(&inbox));
        }
        newcomer = inbox.next().await;
    }
}

impl Inbox {
    async fn next(&self) -> Newcomer {
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
