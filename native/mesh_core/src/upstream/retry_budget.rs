//! Limits the retries of a service to a share of its requests, so that retries cannot multiply the load of a
//! service that fails.

use std::cell::Cell;

use tokio::time::Instant;

/// What one request adds.
const PER_REQUEST: f64 = 0.2;
/// What one second adds: services with few requests can retry, too.
const PER_SECOND: f64 = 10.0;
/// How long unused retries last, on average: the budget holds what this many seconds add.
const SECONDS: f64 = 10.0;

/// How many retries are left, as of the last retry.
pub struct RetryBudget {
    left: Cell<f64>,
    at: Cell<Instant>,
    /// The service's requests until then. Counting them here again would cost each request.
    requests: Cell<u64>,
}

impl RetryBudget {
    pub fn new(now: Instant, requests: u64) -> RetryBudget {
        RetryBudget {
            left: Cell::new(PER_SECOND * SECONDS),
            at: Cell::new(now),
            requests: Cell::new(requests),
        }
    }

    /// Takes one retry, if there is one. `requests` is how many requests the service has had.
    pub fn withdraw(&self, now: Instant, requests: u64) -> bool {
        let seconds = now.duration_since(self.at.replace(now)).as_secs_f64();
        let new = requests.saturating_sub(self.requests.replace(requests)) as f64;
        let age = seconds / SECONDS;
        // What was left expires exponentially, and so does what was added steadily since.
        let kept = if age > 0.0 { -(-age).exp_m1() / age } else { 1.0 };
        let added = (PER_REQUEST * new + PER_SECOND * seconds) * kept;
        let left = self.left.get() * (-age).exp() + added;
        let granted = left >= 1.0;
        self.left.set(if granted { left - 1.0 } else { left });
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The retries granted to a service with `requests` and `asked` retries in each of `steps` steps.
    fn granted(
        budget: &RetryBudget,
        clock: &mut (Instant, u64),
        (steps, step): (u32, Duration),
        requests: u64,
        asked: u32,
    ) -> u32 {
        let mut granted = 0;
        for _ in 0..steps {
            clock.0 += step;
            clock.1 += requests;
            granted += (0..asked).filter(|_| budget.withdraw(clock.0, clock.1)).count() as u32;
        }
        granted
    }

    const MS: Duration = Duration::from_millis(1);

    fn new() -> (RetryBudget, (Instant, u64)) {
        let now = Instant::now();
        (RetryBudget::new(now, 7), (now, 7))
    }

    #[test]
    fn a_service_without_requests_has_ten_seconds_worth() {
        let (budget, mut clock) = new();
        assert_eq!(granted(&budget, &mut clock, (1, Duration::ZERO), 0, 1000), 100);
        let then = granted(&budget, &mut clock, (1000, MS), 0, 1);
        assert!((9..=10).contains(&then), "{then} in the next second");
        // After a long rest it has no more.
        let rest = Duration::from_secs(3600);
        assert_eq!(granted(&budget, &mut clock, (1, rest), 0, 1000), 100);
    }

    #[test]
    fn a_fifth_of_the_requests_can_be_retried() {
        let (budget, mut clock) = new();
        granted(&budget, &mut clock, (1, MS), 0, 1000);
        // For 60 seconds, 1000 requests per second which are all retried.
        let granted_then = granted(&budget, &mut clock, (60_000, MS), 1, 1);
        assert!((11_900..=12_600).contains(&granted_then), "{granted_then}");
    }

    #[test]
    fn unused_retries_expire() {
        let (budget, mut clock) = new();
        // An hour with 1000 requests per second, and no retry: what ten seconds add is left.
        clock = (clock.0 + Duration::from_secs(3600), clock.1 + 3_600_000);
        let burst = granted(&budget, &mut clock, (1, Duration::ZERO), 0, 10_000);
        assert!((2_090..=2_110).contains(&burst), "{burst}");
        // And they are gone once the service is quiet.
        let (budget, mut clock) = new();
        clock = (clock.0 + Duration::from_secs(60), clock.1 + 60_000);
        assert!(budget.withdraw(clock.0, clock.1));
        clock.0 += Duration::from_secs(60);
        let burst = granted(&budget, &mut clock, (1, Duration::ZERO), 0, 10_000);
        assert!((100..=110).contains(&burst), "{burst}");
    }

    /// A service that was removed and put back counts its requests anew.
    #[test]
    fn a_counter_that_begins_again_adds_nothing() {
        let (budget, clock) = new();
        assert!(budget.withdraw(clock.0, 3));
        assert_eq!(granted(&budget, &mut (clock.0, 8), (1, Duration::ZERO), 0, 1000), 100);
    }
}
