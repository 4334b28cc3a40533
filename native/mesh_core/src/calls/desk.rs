//! One worker's calls to one endpoint: hands them out in batches, and wakes the tasks that wait for them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::task::spawn_local;

use super::call::Call;
use super::dispatch::DispatchersRef;
use super::origin::{CallConfig, Origin};

pub struct Desk {
    pub dispatchers: DispatchersRef,
    pub origin: Arc<Origin>,
    /// Calls of this turn of the event loop.
    outbox: RefCell<Vec<Arc<Call>>>,
    /// Wakes the task, once it has run.
    task: RefCell<Option<Waker>>,
    is_running: Cell<bool>,
}

impl Desk {
    pub fn new(dispatchers: &DispatchersRef, config: &CallConfig) -> Rc<Desk> {
        Rc::new(Desk {
            dispatchers: dispatchers.clone(),
            origin: Origin::new(config),
            outbox: RefCell::default(),
            task: RefCell::default(),
            is_running: Cell::new(false),
        })
    }

    /// Sends a call, together with those of the tasks that are about to run.
    pub fn send(self: &Rc<Self>, call: Arc<Call>) {
        if self.dispatchers.have_ended() {
            return call.drop_unless_taken();
        }
        let mut outbox = self.outbox.borrow_mut();
        outbox.push(call);
        if outbox.len() > 1 {
            return;
        }
        drop(outbox);
        if !self.is_running.replace(true) {
            spawn_local(run(Rc::downgrade(self), Arc::clone(&self.origin)));
        } else if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    fn hand_out(&self) {
        let calls = self.outbox.take();
        if calls.is_empty() {
            return;
        }
        let mut batch = Batch { calls, dispatchers: &self.dispatchers, is_sent: false };
        batch.is_sent = self.dispatchers.send(&batch.calls);
    }
}

/// Calls that go to the socket unless they are sent, even if sending panics.
struct Batch<'a> {
    calls: Vec<Arc<Call>>,
    dispatchers: &'a DispatchersRef,
    is_sent: bool,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.is_sent {
            self.dispatchers.set_ended();
            self.calls.iter().for_each(|call| call.drop_unless_taken());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

async fn run(desk: Weak<Desk>, origin: Arc<Origin>) {
    let ended = Ended(desk, origin);
    let mut tasks = Vec::new();
    poll_fn(|cx| {
        let Some(desk) = ended.0.upgrade() else { return Poll::Ready(()) };
        ended.1.bell.answer(cx.waker(), &mut tasks);
        tasks.drain(..).for_each(Waker::wake);
        desk.task.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        desk.hand_out();
        Poll::Pending
    })
    .await;
}

/// However the task ends, no request waits for it.
struct Ended(Weak<Desk>, Arc<Origin>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.1.bell.close();
        let Some(desk) = self.0.upgrade() else { return };
        // Otherwise the worker ends, which says nothing of the processes.
        if std::thread::panicking() {
            desk.dispatchers.set_ended();
        }
        desk.outbox.take().iter().for_each(|call| call.drop_unless_taken());
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::yield_now;

    use super::*;
    use crate::calls::{Dispatch, Taken};

    struct Process(fn(&[Arc<Call>]) -> bool);

    impl Dispatch for Process {
        fn ids(&self) -> &[u64] {
            &[1]
        }

        fn send(&self, calls: &[Arc<Call>]) -> bool {
            self.0(calls)
        }
    }

    /// Sends calls in a worker that ends at once. Returns them, and whether the dispatchers have ended.
    fn sent(send: fn(&[Arc<Call>]) -> bool) -> (Vec<Arc<Call>>, bool) {
        let dispatchers = DispatchersRef::new(Box::new(Process(send)));
        let desk = Desk::new(&dispatchers, &CallConfig::default());
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
        let calls = runtime.unwrap().block_on(async {
            let call = || {
                let call = Call::new(&desk.origin, dispatchers.try_place().unwrap());
                call.begin_request(b"GET / HTTP/1.1\r\n\r\n");
                desk.send(Arc::clone(&call));
                call
            };
            let calls = vec![call(), call()];
            yield_now().await;
            [calls, vec![call()]].concat()
        });
        (calls, dispatchers.have_ended())
    }

    fn are_taken(calls: &[Arc<Call>]) -> Vec<bool> {
        calls.iter().map(|call| matches!(call.take(|_| ()), Taken::Head(()))).collect()
    }

    #[test]
    fn calls_of_one_turn_are_one_batch() {
        let (calls, ended) = sent(|calls| {
            assert_eq!(calls.len(), 2);
            true
        });
        // The worker has ended before it sent the last one. The others serve on.
        assert_eq!((are_taken(&calls), ended), (vec![true, true, false], false));
    }

    #[test]
    fn calls_that_cannot_be_sent_are_dropped() {
        fn panics(_: &[Arc<Call>]) -> bool {
            panic!("a test asks for it")
        }
        for send in [|_: &[Arc<Call>]| false, panics] {
            let (calls, ended) = sent(send);
            assert_eq!((are_taken(&calls), ended), (vec![false; 3], true));
        }
    }
}
