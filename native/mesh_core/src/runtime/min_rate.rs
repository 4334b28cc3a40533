//! Limits how long a peer may delay a transfer.
//!
//! A plain idle timeout would let a client send or read one byte now and then forever. Here each byte earns
//! time in proportion, so the time runs out below a minimum rate.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

pub struct MinRate {
    /// The time at the start, and the maximum. `None`: no limit.
    idle: Option<Duration>,
    /// Bytes that earn one second. `None`: any byte restores all time.
    rate: Option<u64>,
    left: Cell<Duration>,
    since: Cell<Option<Instant>>,
}

impl MinRate {
    pub fn new(idle: Option<Duration>, rate: Option<u64>) -> MinRate {
        MinRate {
            idle,
            rate: rate.filter(|rate| *rate > 0),
            left: Cell::new(idle.unwrap_or_default()),
            since: Cell::new(None),
        }
    }

    /// Starts the clock: the transfer waits for the peer.
    pub fn waiting(&self) {
        if self.idle.is_some() && self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
    }

    /// Stops the clock: the peer has moved this many bytes.
    pub fn moved(&self, bytes: usize) {
        let (Some(idle), Some(since)) = (self.idle, self.since.take()) else { return };
        let earned =
            self.rate.map_or(idle, |rate| Duration::from_secs_f64(bytes as f64 / rate as f64));
        let left = self.left.get().saturating_sub(since.elapsed());
        self.left.set(left.saturating_add(earned).min(idle));
    }

    /// When the time runs out, while the transfer waits.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.since.get()?;
        since.checked_add(self.left.get())
    }
}
