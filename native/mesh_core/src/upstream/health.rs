//! Tracks failed attempts to connect to an address, and for how long others are preferred.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Health(Cell<HealthState>);

#[derive(Clone, Copy, Default)]
struct HealthState {
    /// Consecutive failures.
    failures: u32,
    failed_at: Option<Instant>,
    backoff_until: Option<Instant>,
}

impl Health {
    /// The address failed recently: other addresses come first.
    fn is_backing_off(&self, now: Instant) -> bool {
        self.0.get().backoff_until.is_some_and(|until| now < until)
    }

    /// The same for the current time, which is read only if the address failed at all.
    pub fn is_backing_off_now(&self) -> bool {
        self.0.get().backoff_until.is_some() && self.is_backing_off(Instant::now())
    }

    pub fn has_failed_since(&self, time: Instant) -> bool {
        self.0.get().failed_at.is_some_and(|at| at >= time)
    }

    /// An attempt begins. Until it ends, other requests do not try an address that failed before: only one
    /// of them waits for it.
    pub fn attempt(&self, now: Instant) {
        let state = self.0.get();
        if state.failures > 0 {
            self.0.set(HealthState {
                backoff_until: now.checked_add(jittered(backoff(state.failures))),
                ..state
            });
        }
    }

    pub fn succeeded(&self) {
        self.0.set(HealthState::default());
    }

    /// An attempt that began at `began` has failed.
    pub fn failed(&self, began: Instant, now: Instant) {
        let state = self.0.get();
        // Concurrent attempts report the same failure: count it once.
        let is_new = state.failed_at.is_none_or(|last| began >= last);
        let failures = state.failures.saturating_add(u32::from(is_new));
        self.0.set(HealthState {
            failures,
            failed_at: Some(now),
            backoff_until: now.checked_add(jittered(backoff(failures))),
        });
    }
}

/// 1 s, 2 s, 4 s, 8 s, then always 10 s.
fn backoff(failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    MIN_BACKOFF.saturating_mul(factor).min(MAX_BACKOFF)
}

/// Up to a fifth more or less, so that workers and gateways do not try again at the same time.
fn jittered(backoff: Duration) -> Duration {
    backoff * fastrand::u32(80..=120) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortest(backoff: u64) -> Duration {
        seconds(backoff) * 79 / 100
    }

    fn longest(backoff: u64) -> Duration {
        seconds(backoff) * 120 / 100
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn backoffs_double_up_to_ten_seconds() {
        let health = Health::default();
        let mut now = Instant::now();
        assert!(!health.is_backing_off(now));
        for backoff in [1, 2, 4, 8, 10, 10, 10] {
            health.attempt(now);
            health.failed(now, now);
            assert!(health.is_backing_off(now + shortest(backoff)), "{backoff}");
            now += longest(backoff);
            assert!(!health.is_backing_off(now), "{backoff}");
        }
        for _ in 0..100 {
            health.failed(now, now);
        }
        assert!(!health.is_backing_off(now + longest(10)));
    }

    #[test]
    fn backoffs_differ() {
        let now = Instant::now();
        let backs_off = (0..1000).filter(|_| {
            let health = Health::default();
            health.failed(now, now);
            health.is_backing_off(now + seconds(1))
        });
        let long = backs_off.count();
        assert!((300..700).contains(&long), "{long} of 1000 are longer than usual");
    }

    #[test]
    fn a_success_resets_the_backoff() {
        let health = Health::default();
        let now = Instant::now();
        for _ in 0..5 {
            health.failed(now, now);
        }
        health.succeeded();
        assert!(!health.is_backing_off(now));
        health.failed(now, now);
        assert!(health.is_backing_off(now) && !health.is_backing_off(now + longest(1)));
    }

    #[test]
    fn concurrent_failures_count_once() {
        let health = Health::default();
        let began = Instant::now();
        for late in 0..50 {
            health.failed(began, began + Duration::from_millis(2_000 + late));
        }
        let last = began + Duration::from_millis(2_049);
        assert!(health.is_backing_off(last) && !health.is_backing_off(last + longest(1)));
    }

    #[test]
    fn one_request_at_a_time_retries() {
        let health = Health::default();
        let now = Instant::now();
        health.attempt(now);
        assert!(!health.is_backing_off(now), "nothing has failed yet");
        health.failed(now, now);
        let again = now + longest(1);
        assert!(!health.is_backing_off(again));
        health.attempt(again);
        assert!(health.is_backing_off(again));
    }
}
