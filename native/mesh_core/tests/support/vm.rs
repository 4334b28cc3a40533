//! Stands in for the processes of a VM: gets calls, and answers them from threads that block as processes do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use mesh_core::calls::{Call, ClientVersion, Dispatch, Framing, Notice, Read, Taken, Write};
use mesh_core::{BodyLength, UpstreamAddr};

use super::PATIENCE;
use super::wire::Fields;

/// The processes of one endpoint.
#[derive(Clone)]
pub struct Vm(Arc<Inner>);

struct Inner {
    id: u64,
    lives: AtomicBool,
    panics: AtomicBool,
    batches: AtomicUsize,
    calls: Mutex<VecDeque<Held>>,
    arrived: Condvar,
    serve: Option<Box<dyn Fn(Held) + Send + Sync>>,
}

struct Dispatcher(Arc<Inner>, [u64; 1]);

/// The reference of a call: when the last one is gone the call has failed.
pub struct Held(pub Arc<Call>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fail();
    }
}

#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub fields: Fields,
    pub body: BodyLength,
    pub version: ClientVersion,
}

/// What reading a body has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Data(Vec<u8>),
    End,
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Vm {
    fn new(serve: Option<Box<dyn Fn(Held) + Send + Sync>>) -> Vm {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Vm(Arc::new(Inner {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            lives: AtomicBool::new(true),
            panics: AtomicBool::new(false),
            batches: AtomicUsize::new(0),
            calls: Mutex::default(),
            arrived: Condvar::new(),
            serve,
        }))
    }

    /// Keeps its calls for [`next`](Self::next).
    pub fn start() -> Vm {
        Vm::new(None)
    }

    /// Serves each call in a thread of its own.
    pub fn serving(serve: impl Fn(Held) + Send + Sync + 'static) -> Vm {
        Vm::new(Some(Box::new(serve)))
    }

    /// Answers every request with what it was.
    pub fn echoing() -> Vm {
        Vm::serving(|call| {
            let Some(request) = call.take() else { return };
            let mut body = format!("{} {}\n", request.method, request.target).into_bytes();
            body.extend(call.read_all().expect("a whole body"));
            let is_head = request.method == "HEAD";
            call.respond(200, if is_head { b"" } else { &body }, is_head);
        })
    }

    /// The same endpoint, called here.
    pub fn at(&self, socket: &UpstreamAddr) -> UpstreamAddr {
        socket.clone().in_vm(Box::new(Dispatcher(Arc::clone(&self.0), [self.0.id])))
    }

    /// All processes end: what they have not taken is lost.
    pub fn die(&self) {
        self.0.lives.store(false, Ordering::SeqCst);
        drop(std::mem::take(&mut *lock(&self.0.calls)));
    }

    /// The next send panics.
    pub fn panic(&self) {
        self.0.panics.store(true, Ordering::SeqCst);
    }

    /// How often calls were sent.
    pub fn batches(&self) -> usize {
        self.0.batches.load(Ordering::SeqCst)
    }

    /// Calls that no test has taken.
    pub fn waiting(&self) -> usize {
        lock(&self.0.calls).len()
    }

    pub fn next(&self) -> Held {
        let until = Instant::now() + PATIENCE;
        let mut calls = lock(&self.0.calls);
        loop {
            if let Some(call) = calls.pop_front() {
                return call;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no call came");
            calls = match self.0.arrived.wait_timeout(calls, left) {
                Ok((calls, _)) => calls,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The next call, taken.
    pub fn take(&self) -> (Held, Request) {
        let call = self.next();
        let request = call.take().expect("a call that can be taken");
        (call, request)
    }
}

impl Dispatch for Dispatcher {
    fn ids(&self) -> &[u64] {
        &self.1
    }

    fn send(&self, calls: &[Arc<Call>]) -> bool {
        let vm = &self.0;
        assert!(!vm.panics.load(Ordering::SeqCst), "a test asks for it");
        if !vm.lives.load(Ordering::SeqCst) {
            return false;
        }
        vm.batches.fetch_add(1, Ordering::SeqCst);
        for call in calls {
            let held = Held(Arc::clone(call));
            if vm.serve.is_some() {
                let vm = Arc::clone(vm);
                std::thread::spawn(move || (vm.serve.as_ref().expect("served"))(held));
            } else {
                lock(&vm.calls).push_back(held);
            }
        }
        vm.arrived.notify_all();
        true
    }
}

/// Each is of another process.
struct Message(mpsc::Sender<()>);

impl Notice for Message {
    fn process(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    fn send(self: Box<Self>) {
        // Fails only after a test has given up.
        let _ = self.0.send(());
    }
}

/// A notice, and where it arrives.
pub fn notice() -> (Box<dyn Notice>, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(Message(sender)), receiver)
}

impl Held {
    pub fn take(&self) -> Option<Request> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
        let taken = self.0.take(|head| Request {
            method: text(head.method),
            target: text(head.target),
            fields: Fields(head.fields.iter().map(|(n, v)| (text(n), v.to_vec())).collect()),
            body: head.body,
            version: head.version,
        });
        match taken {
            Taken::Head(request) => Some(request),
            Taken::Closed => None,
        }
    }

    /// Waits for a part of the body.
    pub fn read(&self, max: usize) -> Part {
        loop {
            let (sender, receiver) = mpsc::channel();
            match self.0.read(max, <[u8]>::to_vec, || Box::new(Message(sender))) {
                Read::Data(data) => return Part::Data(data),
                Read::End => return Part::End,
                Read::Closed => return Part::Closed,
                Read::Pending => {
                    receiver.recv_timeout(PATIENCE).expect("no word that there is more")
                }
            }
        }
    }

    pub fn read_all(&self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.read(usize::MAX) {
                Part::Data(data) => body.extend(data),
                Part::End => return Some(body),
                Part::Closed => return None,
            }
        }
    }

    /// Sends a head with these fields. `false` if the client is gone.
    pub fn head(&self, status: i64, fields: &[(&str, &str)], framing: Framing) -> bool {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.0.head(status, fields, framing).expect("a good head")
    }

    /// Sends a part, and waits for room. `false` if the client is gone.
    pub fn write(&self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let (sender, receiver) = mpsc::channel();
            let n = match self.0.write(data, || Box::new(Message(sender))) {
                Write::Accepted(n) if n < data.len() => {
                    receiver.recv_timeout(PATIENCE).expect("no word of room");
                    n
                }
                Write::Accepted(n) | Write::Again(n) => n,
                Write::Closed => return false,
                Write::NoHead => panic!("there is no head"),
            };
            data = &data[n..];
        }
        true
    }

    /// Sends as much as is accepted without waiting.
    pub fn write_now(&self, mut data: &[u8]) -> usize {
        let mut total = 0;
        loop {
            match self.0.write(data, || notice().0) {
                Write::Again(n) => {
                    total += n;
                    data = &data[n..];
                }
                Write::Accepted(n) => return total + n,
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn respond(&self, status: i64, body: &[u8], is_head: bool) -> bool {
        let length = body.len().to_string();
        let framing = if is_head { Framing::None } else { Framing::Length };
        self.head(status, &[("content-length", &length)], framing)
            && self.write(body)
            && self.0.finish()
    }

    /// What a process gets that asks to hear of the client's end.
    pub fn watch(&self) -> mpsc::Receiver<()> {
        let (notice, receiver) = notice();
        assert!(self.0.watch(notice), "the client is gone already");
        receiver
    }
}

/// Waits for a message.
pub fn arrives(messages: &mpsc::Receiver<()>) {
    messages.recv_timeout(PATIENCE).expect("no message");
}

/// Long enough for what must not happen.
pub const A_WHILE: Duration = Duration::from_millis(200);
