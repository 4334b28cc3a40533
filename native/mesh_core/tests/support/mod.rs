//! What the tests stand on: a running gateway, endpoints that do as a script says, raw clients.
//! Plain threads and blocking sockets, so that nothing here shares code or habits with what is
//! tested. Every wait is for an event and has an upper bound; nothing sleeps to synchronise.

// Each test binary and example uses its own part of this.
#![allow(dead_code)]

pub mod client;
pub mod endpoint;
pub mod mesh;
pub mod socket;
pub mod wire;

use std::time::{Duration, Instant};

/// Upper bound of every wait. Reached only when something is wrong; generous, since the machine
/// may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until the answer is yes. For figures that no event announces (counters, descriptors).
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never came true: {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
    }
}
