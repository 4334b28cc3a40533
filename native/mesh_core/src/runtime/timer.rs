//! A connection's one timer. Moving a deadline later costs a store and nothing else: the timer
//! underneath is only moved when it fires too early, or when the deadline comes nearer, and it is
//! asked whether it has fired no more often than that.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Belongs to one task, which it wakes.
#[derive(Default)]
pub struct Timer {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The task will be woken when `sleep` is over.
    armed: bool,
}

impl Timer {
    /// `None` disarms.
    pub fn set(&mut self, after: Option<Duration>) {
        self.set_at(deadline(after));
    }

    pub fn set_at(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// Ready once the deadline has passed; never without one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
            self.armed = false;
        }
        if self.armed && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        self.armed = true;
        Poll::Pending
    }
}

/// The moment `after` from now; an absurdly long time is no deadline.
pub fn deadline(duration: Option<Duration>) -> Option<Instant> {
    duration.and_then(|duration| after(Instant::now(), duration))
}

/// The moment `duration` after `start`.
pub fn after(start: Instant, duration: Duration) -> Option<Instant> {
    start.checked_add(duration)
}
