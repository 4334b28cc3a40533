//! Drains one worker: serves what the kernel has accepted, lets requests finish, then closes tunnels, which
//! would never end by themselves, one after another.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::accept::Accepting;
use super::shared::Phase;
use super::tunnels::Tunnels;
use super::worker::Worker;

/// How long accepting continues, for handshakes that have begun. `listener::reject_new` prevents new ones.
const SETTLE: Duration = Duration::from_millis(50);
/// Interval between closing tunnels, unless the drain time requires a shorter one. Their clients reconnect
/// at once, all to the remaining gateways.
const PACE: Duration = Duration::from_millis(100);
/// Longest time to close all tunnels, if the drain time is unlimited.
const MAX_CLOSE_TIME: Duration = Duration::from_secs(30);
/// How often due tunnels are closed.
const TICK: Duration = Duration::from_millis(10);

/// Runs until everything is closed, or the drain time is over.
pub async fn run(
    worker: &Rc<Worker>,
    accepting: Option<Accepting<'_>>,
    mut phase: Receiver<Phase>,
) {
    let began = Instant::now();
    close_listeners(worker, accepting, began, limit(&mut phase, began)).await;
    let mut closing: Option<Closing> = None;
    loop {
        if phase.has_changed().unwrap_or(false) {
            closing = None;
        }
        let limit = limit(&mut phase, began);
        let now = Instant::now();
        if worker.is_idle() || limit.is_some_and(|limit| limit <= now) {
            return;
        }
        // Requests come first, but one that never ends must not delay all tunnels to the last moment.
        let half = limit.map(|limit| began + (limit - began) / 2);
        if worker.has_only_tunnels() || half.is_some_and(|half| half <= now) {
            let closing = closing.get_or_insert_with(|| Closing::new(&worker.tunnels, now, limit));
            closing.close_due(&worker.tunnels, now);
        }
        let next = match &closing {
            Some(closing) if closing.closed < closing.count => Some(now + TICK),
            Some(_) => limit,
            None => half,
        };
        let wake = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = worker.ended.notified() => {}
            _ = phase.changed() => closing = None,
            () = wake => {}
        }
    }
}

fn limit(phase: &mut Receiver<Phase>, began: Instant) -> Option<Instant> {
    match *phase.borrow_and_update() {
        Phase::Draining(limit) => limit.and_then(|limit| began.checked_add(limit)),
        Phase::Serving | Phase::LameDuck => None,
    }
}

async fn close_listeners(
    worker: &Rc<Worker>,
    accepting: Option<Accepting<'_>>,
    began: Instant,
    limit: Option<Instant>,
) {
    if let Some(accepting) = accepting
        && limit.is_none_or(|limit| limit > began)
    {
        if worker.shared.listening.owns_queues() {
            let settled = began + SETTLE;
            sleep_until(limit.map_or(settled, |limit| limit.min(settled))).await;
            accepting.finish(worker).await;
        } else {
            accepting.pause().await;
        }
    }
    // Until now the listeners kept the queues alive for a worker that was restarting.
    worker.shared.listening.close();
}

/// Closes tunnels evenly over a period.
struct Closing {
    since: Instant,
    over: Duration,
    count: usize,
    closed: usize,
}

impl Closing {
    fn new(tunnels: &Tunnels, now: Instant, limit: Option<Instant>) -> Closing {
        tunnels.closing.set(true);
        let count = tunnels.open.get();
        let max = limit.map_or(MAX_CLOSE_TIME, |limit| (limit - now) * 9 / 10);
        let paced = PACE.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        Closing { since: now, over: paced.min(max), count, closed: 0 }
    }

    fn close_due(&mut self, tunnels: &Tunnels, now: Instant) {
        let elapsed = now - self.since;
        if elapsed >= self.over {
            self.closed = self.count;
            tunnels.close.notify_waiters();
            return;
        }
        let share = elapsed.as_secs_f64() / self.over.as_secs_f64();
        let due = (self.count as f64 * share) as usize;
        for _ in self.closed..due {
            tunnels.close.notify_one();
        }
        self.closed = self.closed.max(due);
    }
}
