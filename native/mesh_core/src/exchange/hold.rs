//! Requests for an endpoint that is just restarting (crash, code reload, deploy) wait for it, if
//! the configuration says so, instead of failing: for a bounded time, and a bounded number of them.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Exchange;
use crate::error::Error;
use crate::upstream::{Lent, Want};
use crate::worker::HeldRequest;

/// An endpoint that comes back where it was changes no route: it is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Exchange<'_> {
    /// Lends an upstream connection, waiting for the endpoint to come back where that is wanted.
    pub(super) async fn lend(&mut self, want: Want) -> Result<Lent, Error> {
        let failed = match self.try_lend(want).await {
            Ok(lent) => return Ok(lent),
            Err(error) => error,
        };
        let worker = Rc::clone(&self.connection.worker);
        let hold = worker.shared.config.timeouts.hold;
        if hold.is_some_and(|hold| hold.is_zero()) || !failed.may_pass() {
            return Err(failed);
        }
        let Some(_held) = HeldRequest::new(&worker) else { return Err(failed) };
        self.service.counters.holds.add(1);
        let began = Instant::now();
        loop {
            let changed = worker.shared.table_changed.notified();
            // Either will do: there is something to try.
            let _ = timeout(LOOK_AGAIN, changed).await;
            if let Some(service) = worker.routes.named(&self.service.service.name) {
                self.service = service;
            }
            match self.try_lend(want).await {
                Ok(lent) => return Ok(lent),
                Err(error) if !error.may_pass() => return Err(error),
                Err(_) if hold.is_some_and(|hold| began.elapsed() >= hold) => {
                    return Err(Error::HeldTooLong);
                }
                // A change of the table can come in bursts: one look per burst.
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn try_lend(&self, want: Want) -> Result<Lent, Error> {
        let worker = &self.connection.worker;
        self.service.lend(want, worker.connect_timeout(), worker.upstream_idle()).await
    }
}
