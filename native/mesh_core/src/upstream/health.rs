//! Remembers that an address could not be connected to, and for how long other addresses come first.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Health(Cell<State>);

#[derive(Clone, Copy, Default)]
struct State {
    /// In a row.
    failures: u32,
    failed_at: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Health {
    /// It failed lately: other addresses come first.
    pub fn rests(&self, now: Instant) -> bool {
        self.0.get().rests_until.is_some_and(|until| now < until)
    }

    /// An attempt to connect begins. Until it has ended, other requests do not try an address that
    /// failed before: one of them waits for it, not all.
    pub fn attempt(&self, now: Instant) {
        let state = self.0.get();
        if state.failures > 0 {
            self.0.set(State { rests_until: now.checked_add(pause(state.failures)), ..state });
        }
    }

    pub fn succeeded(&self) {
        self.0.set(State::default());
    }

    /// An attempt that began then has failed now.
    pub fn failed(&self, began: Instant, now: Instant) {
        let state = self.0.get();
        // Attempts that ran at the same time found the same failure.
        let is_new = state.failed_at.is_none_or(|last| began >= last);
        let failures = state.failures.saturating_add(u32::from(is_new));
        self.0.set(State {
            failures,
            failed_at: Some(now),
            rests_until: now.checked_add(pause(failures)),
        });
    }
}

/// 1 s, 2 s, 4 s, 8 s, 10 s and so on.
fn pause(failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let health = Health::default();
        let mut now = Instant::now();
        assert!(!health.rests(now));
        for pause in [1, 2, 4, 8, 10, 10, 10] {
            health.attempt(now);
            health.failed(now, now);
            assert!(health.rests(now + seconds(pause) - Duration::from_millis(1)), "{pause}");
            now += seconds(pause);
            assert!(!health.rests(now), "{pause}");
        }
        for _ in 0..100 {
            health.failed(now, now);
        }
        assert!(!health.rests(now + LONGEST_PAUSE));
    }

    #[test]
    fn a_success_clears_it() {
        let health = Health::default();
        let now = Instant::now();
        for _ in 0..5 {
            health.failed(now, now);
        }
        health.succeeded();
        assert!(!health.rests(now));
        health.failed(now, now);
        assert!(health.rests(now) && !health.rests(now + seconds(1)));
    }

    #[test]
    fn attempts_at_the_same_time_count_once() {
        let health = Health::default();
        let began = Instant::now();
        for late in 0..50 {
            health.failed(began, began + Duration::from_millis(2_000 + late));
        }
        let last = began + Duration::from_millis(2_049);
        assert!(health.rests(last) && !health.rests(last + seconds(1)));
    }

    #[test]
    fn one_request_at_a_time_tries_again() {
        let health = Health::default();
        let now = Instant::now();
        health.attempt(now);
        assert!(!health.rests(now), "nothing has failed yet");
        health.failed(now, now);
        let again = now + seconds(1);
        assert!(!health.rests(again));
        health.attempt(again);
        assert!(health.rests(again));
    }
}
