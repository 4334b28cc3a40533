//! The listening sockets of a gateway, which other processes may share: each worker has its own descriptors of
//! them while it accepts.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::listener;

/// Sockets that listen already, of a service manager or of another process.
pub struct Inherited {
    pub sockets: Vec<TcpListener>,
    /// Whether workers accept from the beginning.
    pub accepting: bool,
    /// The queues of the sockets outlive this process.
    pub keep_queue: bool,
}

impl Default for Inherited {
    fn default() -> Inherited {
        Inherited { sockets: Vec::new(), accepting: true, keep_queue: false }
    }
}

pub struct Listening {
    listeners: Mutex<Vec<TcpListener>>,
    /// Connections wait in the kernel's queues while it is false.
    accepting: watch::Sender<bool>,
    /// Workers that accept.
    busy: Mutex<usize>,
    paused: Condvar,
    /// As [`Inherited::keep_queue`].
    keep_queue: bool,
    /// Another process has the sockets, or may be about to accept in place of this one.
    is_shared: AtomicBool,
}

impl Listening {
    /// `listeners` are all of the gateway.
    pub fn new(listeners: Vec<TcpListener>, accepting: bool, keep_queue: bool) -> Listening {
        Listening {
            listeners: Mutex::new(listeners),
            accepting: watch::channel(accepting).0,
            busy: Mutex::new(0),
            paused: Condvar::new(),
            keep_queue,
            is_shared: AtomicBool::new(!accepting),
        }
    }

    /// Whether workers are to accept.
    pub fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }

    /// Lets the workers accept, of queues that belong to this gateway from now on.
    pub fn accept(&self) {
        self.is_shared.store(false, Ordering::Relaxed);
        self.accepting.send_replace(true);
    }

    /// Stops accepting. `false` if a worker still accepts after this time.
    pub fn pause(&self, max: Duration) -> bool {
        self.accepting.send_replace(false);
        let until = Instant::now() + max;
        let mut busy = self.busy.lock();
        while *busy > 0 {
            if self.paused.wait_until(&mut busy, until).timed_out() {
                return *busy == 0;
            }
        }
        true
    }

    /// Counts a worker as accepting until dropped.
    pub fn enter(&self) -> Entered<'_> {
        *self.busy.lock() += 1;
        Entered(self)
    }

    /// Duplicates the sockets for one worker's event loop.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners.lock().iter().map(TcpListener::try_clone).collect()
    }

    /// Duplicates the sockets for another process. Their queues are no longer this gateway's alone.
    pub fn share(&self) -> io::Result<Vec<TcpListener>> {
        let listeners = self.listeners()?;
        self.is_shared.store(true, Ordering::Relaxed);
        Ok(listeners)
    }

    /// Closes these descriptors. A queue ends with the last descriptor of its socket.
    pub fn close(&self) {
        self.listeners.lock().clear();
    }

    /// Whether the queues end with this gateway, which then has to empty them.
    pub fn owns_queues(&self) -> bool {
        !self.keep_queue && !self.is_shared.load(Ordering::Relaxed)
    }

    /// Stops new connections from entering the queues, unless others use them.
    pub fn reject_new(&self) {
        if self.owns_queues() {
            self.listeners.lock().iter().for_each(listener::reject_new);
        }
    }
}

pub struct Entered<'l>(&'l Listening);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut busy = self.0.busy.lock();
        *busy -= 1;
        if *busy == 0 {
            self.0.paused.notify_all();
        }
    }
}
