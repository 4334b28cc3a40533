//! How long one side may keep a transfer waiting. A plain idle time would let a client send, or
//! take, a byte now and then for ever; here what moves only earns time in proportion, so that the
//! patience of [`MinRate`] runs out unless the transfer keeps up a minimum rate.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::timer;

pub struct MinRate {
    /// The most patience there is, and what there is in the beginning. `None`: no end.
    idle: Option<Duration>,
    /// Bytes that earn one second. `None`: any byte restores all patience.
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

    /// The other side is being waited for.
    pub fn waiting(&self) {
        if self.idle.is_some() && self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
    }

    /// It has moved this many bytes.
    pub fn moved(&self, bytes: usize) {
        let (Some(idle), Some(since)) = (self.idle, self.since.take()) else { return };
        let earned =
            self.rate.map_or(idle, |rate| Duration::from_secs_f64(bytes as f64 / rate as f64));
        let left = self.left.get().saturating_sub(since.elapsed());
        self.left.set(left.saturating_add(earned).min(idle));
    }

    /// When patience runs out, while there is any waiting.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.since.get()?;
        timer::after(since, self.left.get())
    }
}
