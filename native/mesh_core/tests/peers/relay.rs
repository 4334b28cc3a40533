//! The network between two nodes: it can fall silent, go on, and break.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    silent: bool,
    ended: bool,
    /// How often all connections were cut: what the earlier ones hold is lost.
    cuts: usize,
    /// Bytes that came during a silence.
    held: usize,
    sockets: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits while nothing is forwarded. `false` once the connections of this age are cut.
    fn may_pass(&self, cuts: usize) -> bool {
        let mut state = self.lock();
        while state.silent && !state.ended && state.cuts == cuts {
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        !state.ended && state.cuts == cuts
    }
}

impl Relay {
    pub fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let shared = Arc::<Shared>::default();
        let relay = Relay { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if shared.lock().ended {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || carry(&shared, socket, target));
            }
        });
        relay
    }

    /// Forwards nothing, in both directions, and keeps all sockets open.
    pub fn silence(&self) {
        self.shared.lock().silent = true;
    }

    /// Forwards what has come since, and what comes.
    pub fn go_on(&self) {
        self.shared.lock().silent = false;
        self.shared.changed.notify_all();
    }

    /// Breaks all connections. What was not forwarded is lost.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.cuts += 1;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Bytes that came during a silence.
    pub fn held(&self) -> usize {
        self.shared.lock().held
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.cut();
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
    }
}

fn carry(shared: &Arc<Shared>, near: TcpStream, target: SocketAddr) {
    let cuts = {
        let mut state = shared.lock();
        state.sockets.extend(near.try_clone());
        state.cuts
    };
    if !shared.may_pass(cuts) {
        return;
    }
    let Ok(far) = TcpStream::connect(target) else { return };
    for socket in [&near, &far] {
        let _ = socket.set_nodelay(true);
    }
    let mut state = shared.lock();
    if state.cuts != cuts {
        return;
    }
    state.sockets.extend(far.try_clone());
    drop(state);
    let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { return };
    let back = Arc::clone(shared);
    std::thread::spawn(move || pump(&back, far2, near2, cuts));
    pump(shared, near, far, cuts);
}

fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, cuts: usize) {
    let mut piece = [0; 64 * 1024];
    loop {
        let n = from.read(&mut piece).unwrap_or(0);
        let mut state = shared.lock();
        state.held += if state.silent { n } else { 0 };
        drop(state);
        if !shared.may_pass(cuts) {
            return;
        }
        if n == 0 || to.write_all(&piece[..n]).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
