//! Requests for an endpoint that is just restarting (crash, code reload, deploy) wait for it, if
//! the configuration says so, instead of failing: for a bounded time, and a bounded number of them.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::worker::Worker;
use crate::error::Error;
use crate::observe::Notice;
use crate::upstream::{Checkout, LocalService, Want};

/// An endpoint that comes back where it was changes no route: it is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A request that waits for its endpoint to come back.
struct HeldRequest(Rc<Worker>);

impl HeldRequest {
    /// `None` when as many wait as may.
    fn new(worker: &Rc<Worker>) -> Option<HeldRequest> {
        let held = &worker.shared.held_requests;
        if held.fetch_add(1, Ordering::Relaxed) >= worker.shared.config.limits.held_requests {
            held.fetch_sub(1, Ordering::Relaxed);
            worker.reached(&worker.counters.limits.held_requests, "held_requests");
            return None;
        }
        Some(HeldRequest(Rc::clone(worker)))
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.0.shared.held_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checks out an upstream connection. Where the configuration says so, it waits for an endpoint to come back;
/// then `service` is what has come back.
pub async fn checkout(
    worker: &Rc<Worker>,
    service: &mut Rc<LocalService>,
    want: Want,
) -> Result<Checkout, Error> {
    let failed = match try_checkout(worker, service, want).await {
        Ok(checkout) => return Ok(checkout),
        Err(error) => error,
    };
    let hold = worker.shared.config.timeouts.hold;
    if hold.is_some_and(|hold| hold.is_zero()) || !failed.may_pass() {
        return Err(failed);
    }
    let Some(_held) = HeldRequest::new(worker) else { return Err(failed) };
    service.counters.holds.add(1);
    let began = Instant::now();
    loop {
        let changed = worker.shared.table_changed.notified();
        // Either will do: there is something to try.
        let _ = timeout(LOOK_AGAIN, changed).await;
        if let Some(now) = worker.routes.named(&service.service.name) {
            *service = now;
        }
        match try_checkout(worker, service, want).await {
            Ok(checkout) => return Ok(checkout),
            Err(error) if !error.may_pass() => return Err(error),
            Err(_) if hold.is_some_and(|hold| began.elapsed() >= hold) => {
                return Err(Error::HeldTooLong);
            }
            // A change of the table can come in bursts: one look per burst.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn try_checkout(
    worker: &Worker,
    service: &LocalService,
    want: Want,
) -> Result<Checkout, Error> {
    let checkout = service.checkout(want, worker.connect_timeout(), worker.oldest_idle()).await;
    let up = match &checkout {
        Ok(checkout) if checkout.reused => None,
        Ok(_) => Some(true),
        // That an endpoint does not listen is what the routes say; nobody needs to be told.
        Err(Error::NotListening) => None,
        Err(Error::OutOfSockets(error)) => {
            worker.shared.observer.notice(Notice::Connect, || error.to_string());
            None
        }
        Err(Error::Unreachable(why)) => {
            worker.shared.observer.notice(Notice::Connect, || why.clone());
            Some(false)
        }
        Err(_) => Some(false),
    };
    if let Some(up) = up
        && service.service.turned(up)
    {
        let notice = if up { Notice::UpstreamUp } else { Notice::UpstreamDown };
        worker.shared.observer.notice(notice, || service.service.name.clone());
    }
    checkout
}
