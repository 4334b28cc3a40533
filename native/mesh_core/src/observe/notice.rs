//! Aggregates events for an operator's log, so that one line covers many.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How many different notices are kept. More are dropped until the next delivery.
const MAX_NOTICES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A limit was reached. About: its name in `limits`, or `timeouts.` and its name there.
    Limit,
    /// The first failure to connect to a service after a success.
    UpstreamDown,
    /// The first success after a failure.
    UpstreamUp,
    /// An endpoint's response was invalid. About: the service and the reason.
    BadResponse,
    /// A task panicked and ended its own connection.
    Panic,
    /// `accept(2)` failed. About: the system's error.
    Accept,
    /// No connection could be attempted: no descriptors or ports are left, or there is no route to the
    /// endpoint. About: the system's error.
    Connect,
    /// An endpoint does not speak HTTP/2, as its address says. About: the address and what it does instead.
    NotHttp2,
    /// The access log cannot be written or reopened. About: the system's error.
    LogFile,
    /// Records were dropped because they were not collected in time.
    RecordsLost,
    /// A peer has answered for the first time, or again.
    PeerUp,
    /// A peer does not answer in time, so others get its requests.
    PeerSuspect,
    /// A peer has not answered for so long that its connections were closed.
    PeerLost,
    /// No connection to a peer can be opened. About: its name, the address and the reason.
    PeerUnreachable,
    /// A connection to the mesh port did not come from a peer. About: its address and the reason.
    MeshStranger,
}

/// A notice, and how often it happened since the last delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedNotice {
    pub notice: Notice,
    pub about: String,
    pub count: u64,
}

#[derive(Default)]
pub struct Notices {
    all: Mutex<Vec<CountedNotice>>,
    /// Counts of [`LIMITS`] without a lock, because every request of a flood may reach one.
    limits: [AtomicU64; LIMITS.len()],
}

/// The limits that a flood of requests can reach. Others are counted by name, under the lock.
const LIMITS: [&str; 9] = [
    "head_bytes",
    "header_count",
    "body_bytes",
    "connections",
    "connections_per_client",
    "requests_per_connection",
    "held_requests",
    "timeouts.head",
    "timeouts.idle",
];

impl Notices {
    /// Counts a limit that was reached; `name` is its key in the configuration.
    pub fn limit(&self, name: &str) {
        match LIMITS.iter().position(|limit| *limit == name) {
            Some(at) => _ = self.limits[at].fetch_add(1, Ordering::Relaxed),
            None => self.add(Notice::Limit, name.to_string()),
        }
    }

    pub fn add(&self, notice: Notice, about: String) {
        let mut all = self.all.lock();
        let same = all.iter().position(|n| n.notice == notice && n.about == about);
        // Moved to the end, so that the latest of "down" and "up" comes last.
        let count = same.map_or(0, |at| all.remove(at).count) + 1;
        if all.len() < MAX_NOTICES {
            all.push(CountedNotice { notice, about, count });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.limits.iter().all(|count| count.load(Ordering::Relaxed) == 0)
            && self.all.lock().is_empty()
    }

    pub fn take(&self) -> Vec<CountedNotice> {
        let limits = LIMITS.iter().zip(&self.limits).filter_map(|(name, count)| {
            let count = count.swap(0, Ordering::Relaxed);
            let about = || (*name).to_string();
            (count > 0).then(|| CountedNotice { notice: Notice::Limit, about: about(), count })
        });
        let mut taken: Vec<_> = limits.collect();
        taken.append(&mut self.all.lock());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_notice_comes_last() {
        let notices = Notices::default();
        for notice in [Notice::UpstreamDown, Notice::UpstreamUp, Notice::UpstreamDown] {
            notices.add(notice, "a".into());
        }
        let taken = notices.take();
        let said: Vec<_> = taken.iter().map(|n| (n.notice, n.count)).collect();
        assert_eq!(said, [(Notice::UpstreamUp, 1), (Notice::UpstreamDown, 2)]);
        assert!(notices.is_empty());
    }

    #[test]
    fn limits_are_counted_by_name() {
        let notices = Notices::default();
        for name in ["head_bytes", "a new one", "head_bytes", "a new one", "timeouts.idle"] {
            notices.limit(name);
        }
        assert!(!notices.is_empty());
        let taken = notices.take();
        let said: Vec<_> = taken.iter().map(|n| (n.about.as_str(), n.count)).collect();
        assert_eq!(said, [("head_bytes", 2), ("timeouts.idle", 1), ("a new one", 2)]);
        assert!(taken.iter().all(|n| n.notice == Notice::Limit) && notices.is_empty());
    }

    #[test]
    fn different_notices_are_bounded() {
        let notices = Notices::default();
        (0..10_000).for_each(|n| notices.add(Notice::Accept, n.to_string()));
        assert_eq!(notices.take().len(), MAX_NOTICES);
    }
}
