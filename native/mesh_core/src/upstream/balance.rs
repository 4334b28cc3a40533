//! Chooses one of a service's upstreams for each request, by the load that this worker has put on them.
//!
//! Upstreams on this node come first. Otherwise the less loaded of two is used (the power of two choices):
//! workers and gateways that do not know each other's load would all choose the least loaded one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::pool::{Pool, UpstreamLoad};
use super::watch::watch;
use crate::routing::LocalPreference;

/// How long an upstream that is new, or a peer that returns, gets less than its share.
pub const SLOW_START: Duration = Duration::from_secs(10);
/// How long an upstream that has refused a request gets none while others are left.
const REFUSED: Duration = Duration::from_secs(1);
/// The load of one request at an upstream that is not new.
const UNIT: usize = 1000;
/// How many times a request at an upstream counts when the upstream appears.
const NEW: usize = 10;

/// What a request needs of its upstream.
#[derive(Default)]
pub struct Attempt {
    /// The request asks for a WebSocket.
    pub tunnel: bool,
    /// No process of this VM would take the request: it goes to the endpoint's socket.
    pub by_socket: bool,
    /// It was sent again to a socket that had just closed a new connection.
    pub again: bool,
    /// The request was sent again because an endpoint had not begun with it.
    pub repeated: bool,
    /// Ids of the addresses that have failed or refused this request: it does not go there again.
    pub tried: Vec<u64>,
    /// Since when the request has been held.
    pub held_since: Option<Instant>,
}

pub struct Balancer {
    /// With the upstreams on this node or not, in the order of the service.
    members: Vec<Member>,
    prefer: LocalPreference,
    /// The upstream that was used last: of two equal ones the other is used.
    last: Cell<usize>,
    /// Changes with each use. Until then, the same upstream is chosen again.
    seed: Cell<u64>,
}

struct Member {
    pool: Rc<Pool>,
    last_resort: bool,
    /// Since when it has been new.
    new_since: Cell<Option<Instant>>,
    /// The peer has refused a request for this service: until then others come first.
    refused_until: Cell<Option<Instant>>,
}

/// The smaller, the better: upstreams are used only if none of a better rank is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_failing: bool,
    is_last_resort: bool,
}

/// Up to two upstreams, chosen at random among all that were added.
#[derive(Default)]
struct Pair {
    added: usize,
    chosen: [usize; 2],
}

impl Balancer {
    /// `upstreams`: each with whether it is a last resort.
    pub fn new(upstreams: Vec<(Rc<Pool>, bool)>, prefer: LocalPreference) -> Balancer {
        let oldest = upstreams.iter().map(|(pool, _)| pool.address.since).min();
        let members = upstreams.into_iter().map(|(pool, last_resort)| {
            let since = pool.address.since;
            // The upstreams that a gateway starts with are no newer than each other.
            let is_late = oldest.is_some_and(|oldest| since.duration_since(oldest) > SLOW_START);
            let new_since = Cell::new(is_late.then_some(since));
            Member { pool, last_resort, new_since, refused_until: Cell::new(None) }
        });
        Balancer {
            members: members.collect(),
            prefer,
            last: Cell::new(usize::MAX),
            seed: Cell::new(fastrand::u64(..)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn pool(&self, upstream: usize) -> &Rc<Pool> {
        &self.members[upstream].pool
    }

    /// Chooses an upstream that is neither among the `tried` of the attempt nor in `failed`.
    #[inline]
    pub fn choose(&self, attempt: &Attempt, failed: &[usize]) -> Option<usize> {
        if self.members.len() == 1 && attempt.tried.is_empty() && failed.is_empty() {
            return Some(0);
        }
        self.choose_of_several(attempt, failed)
    }

    /// The upstream with this address has refused a request.
    pub fn refused(&self, address: u64) {
        let mut members = self.members.iter();
        if let Some(member) = members.find(|member| member.pool.address.id == address) {
            member.refused_until.set(Instant::now().checked_add(REFUSED));
        }
    }

    pub fn has_peers(&self) -> bool {
        self.members.iter().any(|member| member.pool.is_peer)
    }

    /// Whether an upstream is left that has neither been tried nor this address, and does not fail.
    pub fn has_another(&self, attempt: &Attempt, address: u64) -> bool {
        self.members.iter().any(|member| {
            let id = member.pool.address.id;
            id != address && !attempt.tried.contains(&id) && !member.is_failing()
        })
    }

    #[inline(never)]
    fn choose_of_several(&self, attempt: &Attempt, failed: &[usize]) -> Option<usize> {
        let mut rng = Rng::with_seed(self.seed.get());
        let mut best = Rank { is_failing: true, is_last_resort: true };
        let [mut local, mut remote] = [Pair::default(), Pair::default()];
        let mut is_slow = false;
        for (upstream, member) in self.members.iter().enumerate() {
            is_slow |= member.starts_slowly();
            if failed.contains(&upstream) || attempt.tried.contains(&member.pool.address.id) {
                continue;
            }
            let rank = member.rank();
            if rank < best {
                best = rank;
                [local, remote] = [Pair::default(), Pair::default()];
            }
            if rank == best {
                let is_remote = member.pool.is_peer && self.prefer.0.is_some();
                let pair = if is_remote { &mut remote } else { &mut local };
                pair.add(upstream, &mut rng);
            }
        }
        // The clock is read only while an upstream starts slowly.
        let now = is_slow.then(Instant::now);
        let load = |upstream: usize| self.members[upstream].load(attempt.tunnel, now);
        let local = local.less_loaded(self.last.get(), &mut rng, load);
        let remote = remote.less_loaded(self.last.get(), &mut rng, load);
        let (Some(near), Some(far)) = (local, remote) else { return local.or(remote) };
        // Without slow starts: an endpoint of this node that starts again must not lose its place.
        let load = |upstream: usize| self.members[upstream].load(attempt.tunnel, None);
        let allowed = self.prefer.0.unwrap_or(0).saturating_mul(UNIT);
        let spills = load(near) > load(far).saturating_add(allowed);
        Some(if spills { far } else { near })
    }

    /// Counts the request at the upstream that was chosen for it. The next request chooses anew.
    #[inline(always)]
    pub fn load(&self, upstream: usize, attempt: &Attempt) -> UpstreamLoad {
        self.used(upstream);
        let pool = self.pool(upstream);
        if pool.is_peer {
            watch(pool);
        }
        UpstreamLoad::new(pool, attempt.tunnel)
    }

    fn used(&self, upstream: usize) {
        if self.members.len() > 1 {
            self.last.set(upstream);
            self.seed.set(Rng::with_seed(self.seed.get()).u64(..));
        }
    }
}

impl Member {
    fn rank(&self) -> Rank {
        Rank { is_failing: self.is_failing(), is_last_resort: self.last_resort }
    }

    fn is_failing(&self) -> bool {
        self.pool.is_failing() || self.refuses()
    }

    /// The clock is read only after a refusal.
    fn refuses(&self) -> bool {
        let refuses = self.refused_until.get().is_some_and(|until| Instant::now() < until);
        if !refuses {
            self.refused_until.set(None);
        }
        refuses
    }

    fn load(&self, tunnel: bool, now: Option<Instant>) -> usize {
        let count = if tunnel { self.pool.tunnels() } else { self.pool.in_flight() };
        (count + 1).saturating_mul(now.map_or(UNIT, |now| self.weight(now)))
    }

    fn starts_slowly(&self) -> bool {
        self.new_since.get().is_some() || self.pool.returned.get().is_some()
    }

    fn weight(&self, now: Instant) -> usize {
        let weights = [&self.new_since, &self.pool.returned].map(|began| {
            let weight = began.get().map_or(UNIT, |since| weight(now.duration_since(since)));
            if weight == UNIT {
                began.set(None);
            }
            weight
        });
        weights.into_iter().max().unwrap_or(UNIT)
    }
}

/// What a request counts at an upstream that is as old as this: ten times as much at first, once in the end.
fn weight(age: Duration) -> usize {
    let left = SLOW_START.saturating_sub(age).as_millis() as usize;
    UNIT + (NEW - 1) * UNIT * left / SLOW_START.as_millis() as usize
}

impl Pair {
    /// Reservoir sampling: all pairs are equally likely.
    fn add(&mut self, upstream: usize, rng: &mut Rng) {
        let place = if self.added < 2 { self.added } else { rng.usize(..=self.added) };
        if let Some(place) = self.chosen.get_mut(place) {
            *place = upstream;
        }
        self.added += 1;
    }

    fn less_loaded(
        &self,
        last: usize,
        rng: &mut Rng,
        load: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        let [first, second] = self.chosen;
        match self.added {
            0 => None,
            1 => Some(first),
            _ => Some(match load(first).cmp(&load(second)) {
                std::cmp::Ordering::Less => first,
                std::cmp::Ordering::Greater => second,
                _ if first == last => second,
                _ if second == last => first,
                // Not always the first: places in the pair are not equally likely.
                _ if self.added > 2 && rng.bool() => second,
                _ => first,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::calls::CallConfig;
    use crate::mesh::PeerRef;
    use crate::routing::{Address, UpstreamAddr};

    /// `L` is an upstream on this node, `P` a peer; in lower case it is a last resort.
    fn balancer(kinds: &str, prefer: Option<usize>) -> Balancer {
        aged(kinds, prefer, &[])
    }

    /// The same with the ages of the first upstreams, in seconds. The others appear now.
    fn aged(kinds: &str, prefer: Option<usize>, ages: &[u64]) -> Balancer {
        let now = Instant::now();
        let upstreams = (0..).zip(kinds.chars()).map(|(id, kind)| {
            let address = match kind.to_ascii_uppercase() {
                'L' => UpstreamAddr::Loopback(1),
                _ => UpstreamAddr::Peer(PeerRef::for_test("b")),
            };
            let age = Duration::from_secs(ages.get(id as usize).copied().unwrap_or(0));
            let since = now.checked_sub(age).expect("the machine runs for longer");
            let mut address = Address::new(id, address);
            address.since = since;
            (Pool::new(Arc::new(address), &CallConfig::default()), kind.is_lowercase())
        });
        Balancer::new(upstreams.collect(), LocalPreference(prefer))
    }

    impl Balancer {
        /// `n` requests (or tunnels) at an upstream.
        fn with(&self, upstream: usize, n: usize, tunnel: bool) -> Vec<UpstreamLoad> {
            (0..n).map(|_| UpstreamLoad::new(self.pool(upstream), tunnel)).collect()
        }

        /// How often each upstream is chosen by requests that come one after the other.
        fn shares(&self, attempt: &Attempt) -> Vec<usize> {
            let mut shares = vec![0; self.members.len()];
            for _ in 0..6000 {
                let chosen = self.choose(attempt, &[]).expect("an upstream");
                assert_eq!(self.choose(attempt, &[]), Some(chosen), "the same until it is used");
                self.used(chosen);
                shares[chosen] += 1;
            }
            shares
        }

        fn fail(&self, upstream: usize) {
            self.pool(upstream).health.failed(Instant::now(), Instant::now());
        }
    }

    fn is_even(shares: &[usize]) -> bool {
        let most = shares.iter().max().copied().unwrap_or(0);
        let least = shares.iter().min().copied().unwrap_or(0);
        most * 10 <= least * 12
    }

    #[test]
    fn equal_upstreams_get_equal_shares() {
        let any = Attempt::default();
        assert_eq!(balancer("LL", Some(2)).shares(&any), [3000, 3000]);
        for kinds in ["LLL", "PPPP", "LLLLLLL"] {
            let shares = balancer(kinds, Some(2)).shares(&any);
            assert!(is_even(&shares), "{kinds}: {shares:?}");
        }
        let shares = balancer("LPP", None).shares(&any);
        assert!(is_even(&shares), "without a preference: {shares:?}");
        let skipping = balancer("LLLL", Some(2));
        skipping.fail(1);
        let shares = skipping.shares(&any);
        assert!(shares[1] == 0 && is_even(&[shares[0], shares[2], shares[3]]), "{shares:?}");
    }

    #[test]
    fn an_upstream_with_more_requests_than_any_other_gets_none() {
        let any = Attempt::default();
        for kinds in ["LL", "LLL", "PPPPP"] {
            let balancer = balancer(kinds, Some(2));
            let _load = balancer.with(0, 1, false);
            let shares = balancer.shares(&any);
            assert!(shares[0] == 0 && is_even(&shares[1..]), "{kinds}: {shares:?}");
        }
    }

    #[test]
    fn a_peer_is_used_once_this_node_has_more_requests_by_the_preference() {
        let any = Attempt::default();
        for (prefer, theirs) in [(0, 0), (2, 0), (2, 3), (5, 1)] {
            let balancer = balancer("PLP", Some(prefer));
            let _theirs = [balancer.with(0, theirs, false), balancer.with(2, theirs, false)];
            let _ours = balancer.with(1, theirs + prefer, false);
            assert_eq!(balancer.choose(&any, &[]), Some(1), "{prefer}, {theirs}");
            let _one_more = balancer.with(1, 1, false);
            let shares = balancer.shares(&any);
            assert!(shares[1] == 0 && is_even(&[shares[0], shares[2]]), "{prefer}: {shares:?}");
        }
    }

    #[test]
    fn tunnels_are_chosen_by_tunnels_and_requests_by_requests() {
        let tunnel = Attempt { tunnel: true, ..Attempt::default() };
        let request = Attempt::default();
        let balancer = balancer("LL", Some(2));
        let _tunnels = balancer.with(0, 5, true);
        let _requests = balancer.with(1, 5, false);
        assert_eq!(balancer.choose(&tunnel, &[]), Some(1));
        assert_eq!(balancer.choose(&request, &[]), Some(0));
    }

    #[test]
    fn failing_upstreams_and_last_resorts_come_after_the_others() {
        let any = Attempt::default();
        // A last resort on this node comes after a peer, and before what is failing.
        let balancer = balancer("lPP", Some(2));
        let _load = [balancer.with(1, 50, false), balancer.with(2, 60, false)];
        assert_eq!(balancer.choose(&any, &[]), Some(1));
        balancer.pool(1).is_suspect.set(true);
        assert_eq!(balancer.choose(&any, &[]), Some(2));
        balancer.fail(2);
        assert_eq!(balancer.choose(&any, &[]), Some(0));
        // All are failing: all are tried, the last resort after the others.
        balancer.fail(0);
        assert_eq!(balancer.choose(&any, &[]), Some(1));
        assert_eq!(balancer.choose(&any, &[1]), Some(2));
        assert_eq!(balancer.choose(&any, &[2, 1]), Some(0));
        assert_eq!(balancer.choose(&any, &[2, 1, 0]), None);
        balancer.pool(1).is_suspect.set(false);
        balancer.pool(2).health.succeeded();
        assert_eq!(balancer.choose(&any, &[1]), Some(2));
    }

    #[test]
    fn an_upstream_is_tried_once() {
        for kinds in ["L", "LP", "LLP", "lPLLPp"] {
            let balancer = balancer(kinds, Some(2));
            let mut attempt = Attempt::default();
            for _ in kinds.chars() {
                let upstream = balancer.choose(&attempt, &[]).expect("one is left");
                let id = balancer.pool(upstream).address.id;
                assert!(!attempt.tried.contains(&id), "{kinds}");
                attempt.tried.push(id);
            }
            assert_eq!(balancer.choose(&attempt, &[]), None, "{kinds}");
        }
        assert_eq!(balancer("", Some(2)).choose(&Attempt::default(), &[]), None);
    }

    #[test]
    fn a_request_at_a_new_upstream_counts_ten_times() {
        let weights = [0, 5_000, 9_000, 9_999, 10_000, 60_000];
        let weights = weights.map(|age| weight(Duration::from_millis(age)));
        assert_eq!(weights, [10_000, 5_500, 1_900, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn a_new_upstream_starts_slowly() {
        let any = Attempt::default();
        let balancer = aged("LLL", Some(2), &[60, 5, 60]);
        // 8 * 1 for the old ones, and 2 * 5.5 or 1 * 5.5 for the new one.
        let _old = [balancer.with(0, 7, false), balancer.with(2, 7, false)];
        let new = balancer.with(1, 1, false);
        assert_eq!(balancer.shares(&any)[1], 0);
        drop(new);
        let shares = balancer.shares(&any);
        assert!(shares[1] > 3000, "{shares:?}");
        // A peer that was lost and has answered again.
        let balancer = aged("PPP", Some(2), &[60, 60, 60]);
        balancer.pool(1).returned.set(Some(Instant::now()));
        let _old = [balancer.with(0, 8, false), balancer.with(2, 8, false)];
        let first = balancer.with(1, 1, false);
        assert_eq!(balancer.shares(&any)[1], 0);
        drop(first);
        let since = Instant::now().checked_sub(SLOW_START);
        balancer.pool(1).returned.set(since);
        assert!(balancer.shares(&any)[1] > 3000);
        // It is no longer new.
        let balancer = aged("LLL", Some(2), &[60, 11, 60]);
        assert!(is_even(&balancer.shares(&any)));
    }

    #[test]
    fn upstreams_that_came_together_start_at_once() {
        let any = Attempt::default();
        for ages in [[0, 0, 0], [9, 4, 0]] {
            let shares = aged("LLL", Some(2), &ages).shares(&any);
            assert!(is_even(&shares), "{ages:?}: {shares:?}");
        }
    }
}
