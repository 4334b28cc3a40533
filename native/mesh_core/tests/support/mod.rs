//! What the tests stand on: a running gateway, endpoints that do as a script says, raw clients.
//! Plain threads and blocking sockets, so that nothing here shares code or habits with what is
//! tested. Every wait is for an event and has an upper bound; nothing sleeps to synchronise.

// Each test binary and example uses its own part of this.
#![allow(dead_code)]

pub mod application;
pub mod client;
pub mod endpoint;
pub mod frames;
pub mod h2_endpoint;
pub mod h2_front;
pub mod http2;
pub mod hyper_ends;
pub mod mesh;
pub mod scene;
pub mod second_reading;
pub mod socket;
pub mod vm;
pub mod wire;

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::time::timeout;

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

/// Runs a test, for a good while where the machine is busy. Connections move on a thread of their
/// own, so that the test may block.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let done = runtime.block_on(async { timeout(PATIENCE * 12, test).await });
    runtime.shutdown_background();
    done.expect("the test hangs")
}
