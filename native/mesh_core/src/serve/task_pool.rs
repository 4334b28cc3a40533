//! Reuses tasks, each with its timer and three kilobytes of state, for consecutive connections.
//!
//! Creating and freeing them costs a tenth of the gateway's work for a connection with one request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::task::spawn_local;

use crate::runtime::Timer;

/// How many idle tasks a worker keeps. Those beyond it end after a burst of connections.
const IDLE_TASKS: usize = 64;

pub struct TaskPool<T>(Rc<RefCell<Vec<Rc<Inbox<T>>>>>);

impl<T> Default for TaskPool<T> {
    fn default() -> TaskPool<T> {
        TaskPool(Rc::default())
    }
}

/// Passes an item to a task.
struct Inbox<T> {
    /// Boxed, because the slot lives as long as the task.
    item: Cell<Option<Box<T>>>,
    waker: Cell<Option<Waker>>,
}

impl<T: 'static> TaskPool<T> {
    /// Serves `item` in the most recently idle task, or in a new one.
    pub fn serve(&self, item: T, serve: impl AsyncFn(Box<T>, &mut Timer) + 'static) {
        let waiting = self.0.borrow_mut().pop();
        let is_new = waiting.is_none();
        let inbox = waiting.unwrap_or_else(|| Rc::new(Inbox::new()));
        inbox.item.set(Some(Box::new(item)));
        if is_new {
            // Boxed first, because a new task is moved several times.
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
