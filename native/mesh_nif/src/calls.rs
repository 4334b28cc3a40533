//! Requests that processes of this VM answer: hands them to dispatchers, and serves the processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mesh_core::BodyLength;
use mesh_core::calls::{
    Call, CallHead, ClientVersion, Dispatch, Framing, Notice, Read, Taken, Write,
};
use mesh_core::config::OnDisconnect;
use rustler::schedule::consume_timeslice;
use rustler::sys::ErlNifTerm;
use rustler::{
    Atom, Binary, Encoder, Env, Error, LocalPid, Monitor, NewBinary, NifResult, Resource,
    ResourceArc, Term,
};

use crate::atoms;
use crate::decode::{self, DecodeError, Decoded, choice};
use crate::held_binary::HeldBinary;
use crate::send::Message;

/// Copying this much takes about a hundredth of the time that a call may take.
const PERCENT: usize = 64 * 1024;

/// The reference of a call. The process that has taken the call is monitored: its end is that of the call.
pub struct CallResource(Arc<Call>);

#[rustler::resource_impl]
impl Resource for CallResource {
    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.0.fail();
    }
}

impl Drop for CallResource {
    /// No process can answer any more.
    fn drop(&mut self) {
        self.0.fail();
    }
}

type CallRef = ResourceArc<CallResource>;

/// Sends calls to processes, in turn.
pub struct ProcessDispatch {
    pids: Vec<LocalPid>,
    ids: Vec<u64>,
    turn: AtomicUsize,
}

/// Decodes a list of processes. `None` if it is empty.
pub fn dispatchers(term: Term<'_>) -> Decoded<Option<ProcessDispatch>> {
    const EXPECTED: &str = "a list of processes of this node";
    let terms = decode::terms(term, EXPECTED)?;
    let pids = terms.iter().map(|pid| pid.decode()).collect::<NifResult<Vec<LocalPid>>>();
    // The words of local pids are unique.
    let ids = terms.iter().map(|pid| word(*pid)).collect();
    let pids = pids.map_err(|_| DecodeError::got(term, EXPECTED))?;
    let is_empty = pids.is_empty();
    Ok((!is_empty).then(|| ProcessDispatch { pids, ids, turn: AtomicUsize::new(0) }))
}

/// The word of a local pid, which identifies the process.
fn word(pid: Term<'_>) -> u64 {
    // SAFETY: `ErlNifTerm` is a `usize`, `repr(transparent)`.
    unsafe { std::mem::transmute::<ErlNifTerm, usize>(pid.as_c_arg()) as u64 }
}

impl Dispatch for ProcessDispatch {
    fn ids(&self) -> &[u64] {
        &self.ids
    }

    fn send(&self, calls: &[Arc<Call>]) -> bool {
        let mut message = Message::new(|env| {
            let calls = calls
                .iter()
                .map(|call| ResourceArc::new(CallResource(Arc::clone(call))).encode(env));
            (atoms::mesh_calls(), calls.collect::<Vec<_>>()).encode(env)
        });
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for i in 0..self.pids.len() {
            match message.send(&self.pids[turn.wrapping_add(i) % self.pids.len()]) {
                Ok(()) => return true,
                Err(unsent) => message = unsent,
            }
        }
        false
    }
}

/// `{call, what}` for the calling process.
struct ProcessNotice {
    pid: LocalPid,
    id: u64,
    message: Message,
}

impl ProcessNotice {
    /// The message holds the call until it is sent or dropped, which happens at the end of the call at the latest.
    fn notice(env: Env<'_>, call: &CallRef, what: Atom) -> Box<dyn Notice> {
        let pid = env.pid();
        let id = word(pid.encode(env));
        let message = Message::new(|env| (call, what).encode(env));
        Box::new(ProcessNotice { pid, id, message })
    }
}

impl Notice for ProcessNotice {
    fn process(&self) -> u64 {
        self.id
    }

    fn send(self: Box<Self>) {
        // Fails if the process has ended.
        let _ = self.message.send(&self.pid);
    }
}

/// Sends what a notice would have said to the calling process.
fn send_now(env: Env<'_>, call: &CallRef, what: Atom) {
    // Fails only if the process is about to end.
    let _ = env.send(&env.pid(), (call, what));
}

/// `{call, method, target, headers, version, body, on_disconnect}` or `:closed`. The calling process answers the
/// request.
#[rustler::nif]
fn call_take<'a>(env: Env<'a>, call: CallRef) -> Term<'a> {
    match call.0.take(|head| self::head(env, &call, head)) {
        Taken::Head(head) => {
            if env.monitor(&call, &env.pid()).is_none() {
                call.0.fail();
            }
            head
        }
        Taken::Closed => atoms::closed().encode(env),
    }
}

fn head<'a>(env: Env<'a>, call: &CallRef, head: &CallHead<'_>) -> Term<'a> {
    let fields = head.fields.iter().map(|(name, value)| {
        let mut lower = NewBinary::new(env, name.len());
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        (Term::from(lower), binary(env, value)).encode(env)
    });
    let version = match head.version {
        ClientVersion::Http10 => atoms::http_1_0(),
        ClientVersion::Http11 => atoms::http_1_1(),
        ClientVersion::Http2 => atoms::http_2(),
    };
    let body = match head.body {
        BodyLength::None => atoms::none().encode(env),
        BodyLength::Length(length) => (atoms::length(), length).encode(env),
        BodyLength::Chunked => atoms::chunked().encode(env),
    };
    let on_disconnect = match call.0.on_disconnect() {
        OnDisconnect::Ignore => atoms::ignore(),
        OnDisconnect::Exit => atoms::exit(),
    };
    let fields = fields.collect::<Vec<_>>();
    let (method, target) = (binary(env, head.method), binary(env, head.target));
    (call, method, target, fields, version, body, on_disconnect).encode(env)
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.copy_from_slice(bytes);
    binary.into()
}

/// `{:ok, binary}` with at most `max` bytes of the request's body, `:pending` (then `{call, :readable}` follows),
/// `:end` or `:closed`.
#[rustler::nif]
fn call_read<'a>(env: Env<'a>, call: CallRef, max: usize) -> Term<'a> {
    let read = call.0.read(
        max,
        |bytes| {
            copied(env, bytes.len());
            binary(env, bytes)
        },
        || ProcessNotice::notice(env, &call, atoms::readable()),
    );
    match read {
        Read::Data(data) => (atoms::ok(), data).encode(env),
        Read::Pending => atoms::pending().encode(env),
        Read::End => atoms::end().encode(env),
        Read::Closed => atoms::closed().encode(env),
    }
}

fn copied(env: Env<'_>, bytes: usize) {
    if bytes >= PERCENT {
        consume_timeslice(env, (bytes / PERCENT).min(100) as i32);
    }
}

/// Sends a response head: `:ok`, `:closed` or `{:error, text}`. `framing` is `:length`, `:chunked`, `:none` or
/// `:interim`. With `:length` the client gets the head with the first data, or by `call_flush/1`.
#[rustler::nif]
fn call_head<'a>(
    env: Env<'a>,
    call: CallRef,
    status: i64,
    fields: Term<'a>,
    framing: Term<'a>,
) -> NifResult<Term<'a>> {
    let framings = [
        ("length", Framing::Length),
        ("chunked", Framing::Chunked),
        ("none", Framing::None),
        ("interim", Framing::Interim),
    ];
    let framing = choice(framing, &framings).map_err(|_| Error::BadArg)?;
    let fields = decode::terms(fields, "a list").map_err(|_| Error::BadArg)?;
    let fields = fields.into_iter().map(|field| field.decode::<(Binary<'a>, Binary<'a>)>());
    let fields = fields.collect::<NifResult<Vec<_>>>()?;
    let fields = fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    Ok(match call.0.head(status, fields, framing) {
        Ok(sent) => ok_or_closed(sent).encode(env),
        Err(why) => (atoms::error(), why.to_string()).encode(env),
    })
}

fn ok_or_closed(is_ok: bool) -> Atom {
    if is_ok { atoms::ok() } else { atoms::closed() }
}

/// Sends a part of the response body, from a byte of it on: `:ok`, `{:more, offset}` (then `{call, :room}` follows)
/// or `:closed`.
#[rustler::nif]
fn call_data<'a>(
    env: Env<'a>,
    call: CallRef,
    data: Binary<'a>,
    offset: usize,
) -> NifResult<Term<'a>> {
    let part = data.as_slice().get(offset..).ok_or(Error::BadArg)?;
    let hold = |n| Bytes::from_owner(HeldBinary::new(&data)).slice(offset..offset + n);
    let written =
        call.0.write_held(part, hold, || ProcessNotice::notice(env, &call, atoms::room()));
    let n = match written {
        Write::Accepted(n) => n,
        Write::Again(n) => {
            send_now(env, &call, atoms::room());
            n
        }
        Write::Closed => return Ok(atoms::closed().encode(env)),
        Write::NoHead => return Err(Error::BadArg),
    };
    copied(env, n);
    let is_whole = n == part.len();
    Ok(if is_whole { atoms::ok().encode(env) } else { (atoms::more(), offset + n).encode(env) })
}

/// Passes a head that was sent with `:length` on before there is data.
#[rustler::nif]
fn call_flush(call: CallRef) -> Atom {
    call.0.flush();
    atoms::ok()
}

/// The response is complete: `:ok`, or `:closed` if the client left before.
#[rustler::nif]
fn call_finish(call: CallRef) -> Atom {
    ok_or_closed(call.0.finish())
}

/// The request has failed: the client gets a 500, or a response that breaks off.
#[rustler::nif]
fn call_fail(call: CallRef) -> Atom {
    call.0.fail();
    atoms::ok()
}

/// Sends `{call, :closed}` to the calling process when the client leaves.
#[rustler::nif]
fn call_watch(env: Env<'_>, call: CallRef) -> Atom {
    if !call.0.watch(ProcessNotice::notice(env, &call, atoms::closed())) {
        send_now(env, &call, atoms::closed());
    }
    atoms::ok()
}

/// Whether the client waits for the response.
#[rustler::nif]
fn call_alive(call: CallRef) -> bool {
    call.0.is_alive()
}
