//! Tasks that wait for their next item. Making a task, its timer and the three kilobytes of its state anew
//! for each connection, and freeing them, costs a tenth of what the gateway does for a connection of one
//! request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::task::spawn_local;

use crate::runtime::Timer;

/// How many tasks may wait in one worker. What a burst of connections needs beyond that is freed
/// after it.
const IDLE_TASKS: usize = 64;

/// The tasks of one worker that wait for an item.
pub struct TaskPool<T>(Rc<RefCell<Vec<Rc<Inbox<T>>>>>);

impl<T> Default for TaskPool<T> {
    fn default() -> TaskPool<T> {
        TaskPool(Rc::default())
    }
}

/// Where a task gets its items.
struct Inbox<T> {
    /// Boxed, so that the task is not larger by it for as long as a connection lasts.
    item: Cell<Option<Box<T>>>,
    waker: Cell<Option<Waker>>,
}

impl<T: 'static> TaskPool<T> {
    /// Has `item` served by the task that has waited for the shortest time, or by a new one.
    pub fn serve(&self, item: T, serve: impl AsyncFn(Box<T>, &mut Timer) + 'static) {
        let waiting = self.0.borrow_mut().pop();
        let is_new = waiting.is_none();
        let inbox = waiting.unwrap_or_else(|| Rc::new(Inbox::new()));
        inbox.item.set(Some(Box::new(item)));
        if is_new {
            // Boxed before it is handed on: a task is moved several times until it has a place.
            spawn_local(Box::pin(run(Rc::clone(&self.0), inbox, serve)));
        } else if let Some(waker) = inbox.waker.take() {
            waker.wake();
        }
    }
}

async fn run<T>(
    pool: Rc<RefCell<Vec<Rc<Inbox<T>>>>>,
    inbox: Rc<Inbox<T>>,
    serve: impl AsyncFn(Box<T>, &mut Timer),
) {
    let mut timer = Timer::default();
    loop {
        serve(inbox.next().await, &mut timer).await;
        let mut idle = pool.borrow_mut();
        if idle.len() >= IDLE_TASKS {
            return;
        }
        idle.push(Rc::clone(&inbox));
    }
}

impl<T> Inbox<T> {
    fn new() -> Inbox<T> {
        Inbox { item: Cell::new(None), waker: Cell::new(None) }
    }

    async fn next(&self) -> Box<T> {
        poll_fn(|cx| match self.item.take() {
            Some(item) => Poll::Ready(item),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}
