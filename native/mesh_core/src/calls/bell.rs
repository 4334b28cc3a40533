//! Wakes tasks of one worker from other threads, with one wake-up of its event loop for many of them.

use std::mem;
use std::task::Waker;

use parking_lot::Mutex;

/// Waking a task of another thread costs a system call each. So the tasks wait in a list, and only the first one
/// wakes the task that wakes them all.
#[derive(Default)]
pub struct Bell(Mutex<Ringing>);

#[derive(Default)]
struct Ringing {
    /// The task that answers. Without it, tasks are woken directly.
    answering: Option<Waker>,
    /// At most two for each call that is open.
    waiting: Vec<Waker>,
}

impl Bell {
    /// Wakes a task.
    pub fn ring(&self, task: Waker) {
        let mut ringing = self.0.lock();
        let Some(answering) = &ringing.answering else {
            drop(ringing);
            return task.wake();
        };
        let first = ringing.waiting.is_empty().then(|| answering.clone());
        ringing.waiting.push(task);
        drop(ringing);
        if let Some(answering) = first {
            answering.wake();
        }
    }

    /// Moves the waiting tasks to the empty `tasks`. The task with this waker is woken for the next ones.
    pub fn answer(&self, own: &Waker, tasks: &mut Vec<Waker>) {
        let mut ringing = self.0.lock();
        mem::swap(&mut ringing.waiting, tasks);
        if !ringing.answering.as_ref().is_some_and(|answering| answering.will_wake(own)) {
            ringing.answering = Some(own.clone());
        }
    }

    /// From now on tasks are woken directly: the task that answers has ended.
    pub fn close(&self) {
        let Ringing { answering, waiting } = mem::take(&mut *self.0.lock());
        drop(answering);
        waiting.into_iter().for_each(Waker::wake);
    }
}
