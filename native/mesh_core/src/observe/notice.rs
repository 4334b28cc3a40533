//! Events worth a line in the log of an operator, added up so that there is one line for many.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Different ones that are kept apart; more than these are dropped until the next hand-out.
const MOST: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A limit of the configuration, by its name in `limits`, or `timeouts.` and its name there.
    Limit,
    /// The first failure to connect to a service after it had been reached.
    UpstreamDown,
    /// The first success after that.
    UpstreamUp,
    /// An endpoint's response was no HTTP; about: the service, and what was wrong with it.
    BadResponse,
    /// A task panicked; it cost its own connection.
    Panic,
    /// `accept(2)` failed; about: in the system's words.
    Accept,
    /// No connection to an endpoint could be tried, for lack of descriptors or ports, or because
    /// this machine has no way to it; about: in the system's words.
    Connect,
    /// The access log cannot be written or reopened; about: in the system's words.
    LogFile,
    /// Records were dropped, for nobody took them in time.
    RecordsLost,
}

/// What has happened since the last hand-out, `count` times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    pub notice: Notice,
    pub about: String,
    pub count: u64,
}

#[derive(Default)]
pub struct Notices {
    all: Mutex<Vec<Noticed>>,
    /// Of [`LIMITS`], which come with each request of a flood: no lock for them.
    limits: [AtomicU64; LIMITS.len()],
}

/// What a [`Notice::Limit`] is about.
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
    /// A limit has been reached; its name is one of [`LIMITS`].
    pub fn limit(&self, name: &str) {
        match LIMITS.iter().position(|limit| *limit == name) {
            Some(at) => _ = self.limits[at].fetch_add(1, Ordering::Relaxed),
            None => self.add(Notice::Limit, name.to_string()),
        }
    }

    pub fn add(&self, notice: Notice, about: String) {
        let mut all = self.all.lock();
        let same = all.iter().position(|n| n.notice == notice && n.about == about);
        // To the end, so that of "down" and "up" the last word comes last.
        let count = same.map_or(0, |at| all.remove(at).count) + 1;
        if all.len() < MOST {
            all.push(Noticed { notice, about, count });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.limits.iter().all(|count| count.load(Ordering::Relaxed) == 0)
            && self.all.lock().is_empty()
    }

    pub fn take(&self) -> Vec<Noticed> {
        let limits = LIMITS.iter().zip(&self.limits).filter_map(|(name, count)| {
            let count = count.swap(0, Ordering::Relaxed);
            let about = || (*name).to_string();
            (count > 0).then(|| Noticed { notice: Notice::Limit, about: about(), count })
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
    fn the_last_word_comes_last() {
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
    fn limits_are_counted_by_name_whatever_the_name() {
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
    fn a_flood_of_different_ones_is_bounded() {
        let notices = Notices::default();
        (0..10_000).for_each(|n| notices.add(Notice::Accept, n.to_string()));
        assert_eq!(notices.take().len(), MOST);
    }
}
