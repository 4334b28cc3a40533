//! Sends messages to processes from the threads of workers.
//!
//! A worker runs on a dirty scheduler, where the VM sends only for the process that the thread works for. Once
//! that process is killed every send fails, although the worker goes on. Then a thread of our own sends.

use std::cell::RefCell;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rustler::sys::{ErlNifEnv, ErlNifTerm, enif_is_current_process_alive, enif_send};
use rustler::{Env, LocalPid, OwnedEnv, Term};

/// A message in an environment of its own.
pub struct Message {
    env: OwnedEnv,
    term: ErlNifTerm,
}

impl Message {
    pub fn new<'a>(make: impl FnOnce(Env<'a>) -> Term<'a>) -> Message {
        let env = OwnedEnv::new();
        let term = env.run(|env| make(env).as_c_arg());
        Message { env, term }
    }

    /// Sends from a worker's thread. Returns the message if the process does not live.
    pub fn send(self, to: &LocalPid) -> Result<(), Message> {
        SENDING.with_borrow(|sending| match sending {
            Some(sending) => {
                if sending.lives() && self.enqueue(sending.env, to) {
                    return Ok(());
                }
                if sending.lives() { Err(self) } else { sending.relay.send(self, *to) }
            }
            // Only workers send.
            None => Err(self),
        })
    }

    fn enqueue(&self, caller: *mut ErlNifEnv, to: &LocalPid) -> bool {
        self.env.run(|env| {
            // SAFETY: `caller` is the environment of the running call on a scheduler's thread, and null on any
            // other. `term` was made in `env`, which is sent once: a send that fails leaves it unchanged, and one
            // that succeeds is the last use before it is freed.
            unsafe { enif_send(caller, to.as_c_arg(), env.as_c_arg(), self.term) == 1 }
        })
    }
}

thread_local! {
    static SENDING: RefCell<Option<Sender>> = const { RefCell::new(None) };
}

struct Sender {
    env: *mut ErlNifEnv,
    relay: Arc<Relay>,
}

impl Sender {
    /// Whether the process of the call lives.
    fn lives(&self) -> bool {
        // SAFETY: `env` is that of the NIF call that this thread runs: `Sending` is dropped before it returns.
        unsafe { enif_is_current_process_alive(self.env) != 0 }
    }
}

/// Lets this thread send until dropped.
pub struct Sending(());

impl Sending {
    /// For a call on a dirty scheduler, which must outlive the value.
    pub fn from(env: Env<'_>, relay: &Arc<Relay>) -> Sending {
        let sender = Sender { env: env.as_c_arg(), relay: Arc::clone(relay) };
        SENDING.with_borrow_mut(|sending| *sending = Some(sender));
        Sending(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        SENDING.with_borrow_mut(|sending| *sending = None);
    }
}

/// A thread that sends. It starts when it is needed, and is joined before the library can be unloaded.
#[derive(Default)]
pub struct Relay(Mutex<Option<Running>>);

struct Running {
    queue: mpsc::Sender<(Message, LocalPid)>,
    thread: JoinHandle<()>,
}

impl Relay {
    /// The queue is bounded by the calls that are open.
    fn send(&self, message: Message, to: LocalPid) -> Result<(), Message> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let (queue, messages) = mpsc::channel::<(Message, LocalPid)>();
            let relay = std::thread::Builder::new().name("mesh_relay".into());
            let thread = relay.spawn(move || {
                for (message, to) in messages {
                    // A message that cannot be sent is dropped, and with it the calls that it holds.
                    message.enqueue(null_mut(), &to);
                }
            });
            *running = thread.ok().map(|thread| Running { queue, thread });
        }
        match &*running {
            Some(running) => running.queue.send((message, to)).map_err(|failed| failed.0.0),
            None => Err(message),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let running = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { queue, thread }) = running {
            drop(queue);
            // Fails only if the thread has panicked, which ends it, too.
            let _ = thread.join();
        }
    }
}
