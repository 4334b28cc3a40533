//! Connections to endpoints: opened, lent to one request at a time, kept for the next. Each worker
//! has its own, so that lending one takes no lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Side};
use crate::io::{Stream, is_quiet};
use crate::own::Own;
use crate::stats::ServiceCounters;
use crate::table::{Service, UpstreamAddr};

/// Between two looks at whether a Unix socket's queue has room.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A service as one worker sees it: its counters, and the idle connections to its upstreams.
pub struct LocalService {
    pub service: Arc<Service>,
    pub counters: Arc<ServiceCounters>,
    idle: Vec<RefCell<Vec<Idle>>>,
    /// Where the next request starts to look for an upstream.
    next: Cell<usize>,
}

struct Idle {
    stream: Stream,
    counted: OpenUpstream,
    since: Instant,
}

/// A connection on loan.
pub struct Lent {
    pub stream: Stream,
    pub counted: OpenUpstream,
    /// Which upstream of the service it leads to.
    upstream: usize,
    /// Has served a request before, so that the endpoint may have just closed it.
    pub reused: bool,
}

/// Counts a connection to an upstream as open while it lives.
pub struct OpenUpstream(Arc<ServiceCounters>);

impl OpenUpstream {
    fn new(counters: &Arc<ServiceCounters>) -> OpenUpstream {
        counters.upstream_connections_opened.add(1);
        counters.upstream_connections_open.add(1);
        OpenUpstream(Arc::clone(counters))
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        self.0.upstream_connections_open.sub(1);
    }
}

/// Which connections will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Any that is not known to be dead: the request can be repeated.
    Any,
    /// One that has been looked at this moment: the request cannot be repeated.
    Probed,
    /// A new one: a kept one has just failed.
    New,
}

impl LocalService {
    pub fn new(service: Arc<Service>, worker: usize) -> Rc<LocalService> {
        Rc::new(LocalService {
            counters: service.stats.of_worker(worker),
            idle: service.upstreams.iter().map(|_| RefCell::default()).collect(),
            next: Cell::new(0),
            service,
        })
    }

    /// Lends the connection that was used last, if one was kept. With several upstreams each gets
    /// its turn. What has come back before `oldest` is too old.
    pub fn lend_kept(&self, want: Want, oldest: Option<Instant>) -> Option<Lent> {
        let upstream = self.next.get();
        let lent = self.kept(upstream, want, oldest)?;
        self.turn_from(upstream);
        Some(lent)
    }

    /// Lends a connection as [`lend_kept`](Self::lend_kept) does, or a new one. An upstream that
    /// cannot be reached is passed over.
    pub async fn lend(
        &self,
        want: Want,
        connect: Option<Duration>,
        oldest: Option<Instant>,
    ) -> Result<Lent, Error> {
        let count = self.idle.len();
        let first = self.next.get();
        self.turn_from(first);
        let mut failed = Error::NotListening;
        for upstream in (0..count).map(|i| (first + i) % count) {
            if let Some(lent) = self.kept(upstream, want, oldest) {
                return Ok(lent);
            }
            match open(&self.service.upstreams[upstream], connect).await {
                Ok(stream) => {
                    let counted = OpenUpstream::new(&self.counters);
                    return Ok(Lent { stream, counted, upstream, reused: false });
                }
                Err(error) => failed = error,
            }
        }
        if failed.side() == Side::Upstream {
            self.counters.connect_errors.add(1);
        }
        Err(failed)
    }

    /// The next request begins with the upstream after this one.
    fn turn_from(&self, upstream: usize) {
        let next = upstream + 1;
        self.next.set(if next < self.idle.len() { next } else { 0 });
    }

    fn kept(&self, upstream: usize, want: Want, oldest: Option<Instant>) -> Option<Lent> {
        if want == Want::New {
            return None;
        }
        let kept = self.take_idle(upstream, want == Want::Probed, oldest)?;
        self.counters.upstream_connections_reused.add(1);
        let Idle { stream, counted, .. } = kept;
        Some(Lent { stream, counted, upstream, reused: true })
    }

    fn take_idle(&self, upstream: usize, probe: bool, oldest: Option<Instant>) -> Option<Idle> {
        let mut idle = self.idle.get(upstream)?.borrow_mut();
        while let Some(last) = idle.pop() {
            if oldest.is_some_and(|oldest| last.since < oldest) {
                // Those below are older still.
                idle.clear();
                return None;
            }
            if is_quiet(&last.stream, probe) {
                return Some(last);
            }
        }
        None
    }

    /// Takes a connection back on which a whole response has been read and nothing more.
    pub fn give_back(&self, lent: Lent, now: Instant) {
        if !self.service.is_retired() {
            let idle = Idle { stream: lent.stream, counted: lent.counted, since: now };
            self.idle[lent.upstream].borrow_mut().push(idle);
        }
    }

    /// Closes what has been idle for too long; how many are left.
    pub fn reap(&self, oldest: Option<Instant>) -> usize {
        let retired = self.service.is_retired();
        let mut left = 0;
        for idle in &self.idle {
            let mut idle = idle.borrow_mut();
            let fresh = |i: &Idle| oldest.is_none_or(|oldest| i.since >= oldest);
            idle.retain(|i| !retired && fresh(i) && is_quiet(&i.stream, false));
            left += idle.len();
        }
        left
    }
}

async fn open(address: &UpstreamAddr, limit: Option<Duration>) -> Result<Stream, Error> {
    let connected = match limit {
        Some(limit) => timeout(limit, connect(address)).await.map_err(|_| Error::ConnectTimeout)?,
        None => connect(address).await,
    };
    connected.map_err(Error::connecting)
}

async fn connect(address: &UpstreamAddr) -> io::Result<Stream> {
    Ok(match address {
        UpstreamAddr::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let own = Own::new(stream.local_addr()?);
            Stream::Tcp(own, stream)
        }
        UpstreamAddr::Unix(path) => Stream::Unix(connect_unix(path).await?),
    })
}

/// While the endpoint's queue is full the kernel lets TCP wait and refuses a Unix socket at once, so
/// that a burst of requests would be refused by an endpoint that is only busy.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
