//! Counts the streams of a connection that the gateway resets, mostly because their clients have left.
//!
//! Servers take many resets for an attack (CVE-2023-44487) and end the connection, with the streams of all clients.
//! Netty does so at 200 in 30 seconds, Cowboy and Bandit at 500 in 10, nghttp2 at 1,000, Envoy at 500 if most streams
//! end so.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// How many resets may come at once.
const BURST: u32 = 100;
/// How long it takes until one more may follow.
const PACE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Resets {
    /// When none of them counts any more, if any does.
    forgotten: Cell<Option<Instant>>,
}

impl Resets {
    pub fn add(&self) {
        let now = Instant::now();
        self.forgotten.set(Some(self.forgotten.get().map_or(now, |at| at.max(now)) + PACE));
    }

    /// How many more there may be now.
    pub fn left(&self) -> usize {
        let wait = |at: Instant| at.saturating_duration_since(Instant::now());
        let counted = self.forgotten.get().map_or(0, |at| wait(at).as_millis());
        if counted == 0 {
            self.forgotten.set(None);
        }
        u128::from(BURST).saturating_sub(counted.div_ceil(PACE.as_millis())) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_forgotten_at_their_pace() {
        let resets = Resets::default();
        assert_eq!(resets.left(), BURST as usize);
        (0..BURST).for_each(|_| resets.add());
        assert_eq!(resets.left(), 0);
        let later = |by| resets.forgotten.set(resets.forgotten.get().map(|at| at - by));
        later(PACE * 10);
        // It takes some time to look.
        assert!((10..15).contains(&resets.left()));
        later(PACE * BURST);
        assert_eq!(resets.left(), BURST as usize);
        resets.add();
        assert_eq!(resets.left(), BURST as usize - 1);
    }
}
