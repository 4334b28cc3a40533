//! Events worth a line in the log of an operator, added up so that there is one line for many.

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
pub struct Notices(Mutex<Vec<Noticed>>);

impl Notices {
    pub fn add(&self, notice: Notice, about: String) {
        let mut all = self.0.lock();
        let same = all.iter().position(|n| n.notice == notice && n.about == about);
        // To the end, so that of "down" and "up" the last word comes last.
        let count = same.map_or(0, |at| all.remove(at).count) + 1;
        if all.len() < MOST {
            all.push(Noticed { notice, about, count });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub fn take(&self) -> Vec<Noticed> {
        std::mem::take(&mut self.0.lock())
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
    fn a_flood_of_different_ones_is_bounded() {
        let notices = Notices::default();
        (0..10_000).for_each(|n| notices.add(Notice::Accept, n.to_string()));
        assert_eq!(notices.take().len(), MOST);
    }
}
