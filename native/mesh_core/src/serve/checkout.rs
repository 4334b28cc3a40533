//! Checks out an upstream connection, and holds requests while an endpoint restarts (crash, code reload,
//! deploy).
//!
//! Holding is bounded in time and in the number of requests.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::worker::Worker;
use crate::error::Error;
use crate::observe::Notice;
use crate::upstream::{Attempt, Checkout, LocalService, Reuse};

/// Retry interval: an endpoint that returns at its old address changes no route.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Counts a held request until dropped.
struct HeldRequest(Rc<Worker>);

impl HeldRequest {
    /// `None` if the maximum number of requests is held.
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

/// Checks out an upstream connection. If holding is configured, waits for an endpoint to return; `service`
/// is then the service that returned, and upstreams that the attempt has tried are tried again.
pub async fn checkout(
    worker: &Rc<Worker>,
    service: &mut Rc<LocalService>,
    attempt: &mut Attempt,
    reuse: Reuse,
    hold: Option<Duration>,
) -> Result<Checkout, Error> {
    let failed = match try_checkout(worker, service, attempt, reuse).await {
        Ok(checkout) => return Ok(checkout),
        Err(error) => error,
    };
    if hold.is_some_and(|hold| hold.is_zero()) || !failed.is_transient() {
        return Err(failed);
    }
    let Some(_held) = HeldRequest::new(worker) else { return Err(failed) };
    let began = *attempt.held_since.get_or_insert_with(|| {
        service.counters.holds.add(1);
        Instant::now()
    });
    let is_over = || hold.is_some_and(|hold| began.elapsed() >= hold);
    while !is_over() {
        let changed = worker.shared.table_changed.notified();
        // Whether the table changed or the time passed, try again.
        let _ = timeout(LOOK_AGAIN, changed).await;
        // Peers that have refused the request may serve it now.
        attempt.tried.clear();
        if let Some(now) = worker.routes.named(&service.service.name) {
            *service = now;
        }
        match try_checkout(worker, service, attempt, reuse).await {
            Ok(checkout) => return Ok(checkout),
            Err(error) if !error.is_transient() => return Err(error),
            // Tables may change in bursts: try once per burst.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    Err(Error::HeldTooLong)
}

async fn try_checkout(
    worker: &Worker,
    service: &LocalService,
    attempt: &Attempt,
    reuse: Reuse,
) -> Result<Checkout, Error> {
    let connect = worker.shared.config.timeouts.connect;
    let checkout = service.checkout(attempt, reuse, connect, worker.oldest_idle()).await;
    let up = match &checkout {
        Ok(checkout) if checkout.reused => None,
        Ok(_) => Some(true),
        // The routes already say that the endpoint does not listen.
        Err(Error::NotListening) => None,
        Err(Error::OutOfSockets(error)) => {
            worker.shared.observer.notice(Notice::Connect, || error.to_string());
            None
        }
        Err(Error::Unreachable(why)) => {
            worker.shared.observer.notice(Notice::Connect, || why.clone());
            Some(false)
        }
        Err(Error::NotHttp2(why)) => {
            // Says more than that the endpoint is down.
            worker.shared.observer.notice(Notice::NotHttp2, || why.clone());
            None
        }
        Err(_) => Some(false),
    };
    // A service on several nodes is down on none of them because one cannot be reached.
    if let Some(up) = up
        && !service.has_peers()
        && service.service.set_reachable(up)
    {
        let notice = if up { Notice::UpstreamUp } else { Notice::UpstreamDown };
        worker.shared.observer.notice(notice, || service.service.name.clone());
    }
    checkout
}
