//! Records, log lines and notices on their way to a process. They are sent from the collector's own
//! thread: from a scheduler's thread, or a worker's, which is one, sending from outside is not
//! possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::Side;
use mesh_core::observe::{
    AccessLog, Failure, Field, Format, Notice, Noticed, Observe, Record, Sink,
};
use rustler::{
    Atom, Encoder, Env, LocalPid, NewBinary, NifResult, OwnedEnv, Term, types::map::map_new,
};

use crate::decode::{Map, Read, choice, optional, parsed};
use crate::terms::atoms;

/// Records and lines that may be on their way to a process that has not said it took them. More of
/// them are dropped: a mailbox has no bound of its own. These take some 30 MB.
const MOST_UNDERWAY: usize = 32 * 1024;

/// The argument of `observe/3`, with a sink that sends to the process.
pub fn read(term: Term<'_>, pid: LocalPid, underway: &Arc<AtomicUsize>) -> Read<Observe> {
    Map::read(term, |map| {
        let sink = ToProcess { pid, env: OwnedEnv::new(), underway: Arc::clone(underway) };
        Ok(Observe {
            access_log: map
                .with("access_log", |log| optional(log, |log| Map::read(log, access_log)))?,
            sample: map.get("sample")?,
            sink: Some(Box::new(sink)),
        })
    })
}

fn access_log(map: &mut Map<'_>) -> Read<AccessLog> {
    use Format::{Combined, Common, Json, Logfmt};
    let formats = [("common", Common), ("combined", Combined), ("json", Json), ("logfmt", Logfmt)];
    // `:logger`, or the path of a file.
    let to_logger = |to: Term<'_>| choice(to, &[("logger", ())]).map(|()| None);
    Ok(AccessLog {
        format: map.with("format", |format| choice(format, &formats))?,
        query: map.get("query")?,
        path: map.with("to", |to| to_logger(to).or_else(|_| parsed(to).map(Some)))?,
    })
}

struct ToProcess {
    pid: LocalPid,
    env: OwnedEnv,
    underway: Arc<AtomicUsize>,
}

impl ToProcess {
    fn send(&mut self, kind: Atom, list: impl FnOnce(Env<'_>) -> Option<Term<'_>>) -> bool {
        let tag = atoms::mesh();
        let sent = self.env.send_and_clear(&self.pid, |env| {
            (tag, kind, list(env).unwrap_or_else(|| Vec::<Term>::new().encode(env)))
        });
        // Nobody is there to take it.
        sent.is_ok()
    }

    fn send_bounded(
        &mut self,
        kind: Atom,
        count: usize,
        list: impl FnOnce(Env<'_>) -> Option<Term<'_>>,
    ) -> bool {
        let before = self.underway.fetch_add(count, Ordering::Relaxed);
        if before < MOST_UNDERWAY && self.send(kind, list) {
            return true;
        }
        self.underway.fetch_sub(count, Ordering::Relaxed);
        false
    }
}

impl Sink for ToProcess {
    fn records(&mut self, records: &[&Record]) -> bool {
        self.send_bounded(atoms::records(), records.len(), |env| {
            let rows: NifResult<Vec<Term>> = records.iter().map(|r| record(env, r)).collect();
            rows.ok().map(|rows| rows.encode(env))
        })
    }

    fn lines(&mut self, lines: &[Vec<u8>]) -> bool {
        self.send_bounded(atoms::lines(), lines.len(), |env| {
            let lines: Vec<Term> = lines.iter().map(|line| binary(env, line)).collect();
            Some(lines.encode(env))
        })
    }

    fn notices(&mut self, notices: Vec<Noticed>) {
        self.send(atoms::notices(), |env| {
            let rows: Vec<_> =
                notices.iter().map(|n| (kind(n.notice), &*n.about, n.count)).collect();
            Some(rows.encode(env))
        });
    }
}

/// `{measurements, metadata}`; durations in nanoseconds, those that are not known are left out.
fn record<'a>(env: Env<'a>, record: &Record) -> NifResult<Term<'a>> {
    let mut measurements = map_new(env)
        .map_put(atoms::duration(), record.timings.total)?
        .map_put(atoms::request_bytes(), record.received)?
        .map_put(atoms::response_bytes(), record.sent)?;
    if let Some(nanos) = record.timings.first_byte {
        measurements = measurements.map_put(atoms::first_byte_duration(), nanos)?;
    }
    if let Some(nanos) = record.timings.gateway {
        measurements = measurements.map_put(atoms::gateway_duration(), nanos)?;
    }
    let nil = || atoms::nil().encode(env);
    let text = |field| match record.fields.get(field) {
        b"" => nil(),
        text => binary(env, text),
    };
    let (error, side, reason) = match record.error {
        None => (nil(), nil(), nil()),
        Some(Failure { kind, side, reason }) => {
            let kind = Atom::from_str(env, kind)?;
            (kind.encode(env), self::side(side).encode(env), reason.encode(env))
        }
    };
    let status = if record.status == 0 { nil() } else { record.status.encode(env) };
    let version = match record.minor {
        0 => "1.0",
        1 => "1.1",
        _ => "2",
    };
    let metadata = Term::map_from_term_arrays(
        env,
        &[
            atoms::service().encode(env),
            atoms::host().encode(env),
            atoms::method().encode(env),
            atoms::path().encode(env),
            atoms::status().encode(env),
            atoms::http_version().encode(env),
            atoms::client().encode(env),
            atoms::user_agent().encode(env),
            atoms::request_id().encode(env),
            atoms::trace_id().encode(env),
            atoms::error().encode(env),
            atoms::side().encode(env),
            atoms::reason().encode(env),
        ],
        &[
            text(Field::Service),
            text(Field::Host),
            text(Field::Method),
            text(Field::Path),
            status,
            version.encode(env),
            text(Field::Client),
            text(Field::UserAgent),
            text(Field::RequestId),
            text(Field::TraceId),
            error,
            side,
            reason,
        ],
    )?;
    Ok((measurements, metadata).encode(env))
}

fn binary<'a>(env: Env<'a>, text: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, text.len());
    binary.copy_from_slice(text);
    binary.into()
}

fn side(side: Side) -> Atom {
    match side {
        Side::Downstream => atoms::downstream(),
        Side::Upstream => atoms::upstream(),
        Side::Gateway => atoms::gateway(),
    }
}

fn kind(notice: Notice) -> Atom {
    match notice {
        Notice::Limit => atoms::limit(),
        Notice::UpstreamDown => atoms::upstream_down(),
        Notice::UpstreamUp => atoms::upstream_up(),
        Notice::BadResponse => atoms::bad_response(),
        Notice::Panic => atoms::panic(),
        Notice::Accept => atoms::accept(),
        Notice::Connect => atoms::connect(),
        Notice::LogFile => atoms::log_file(),
        Notice::RecordsLost => atoms::records_lost(),
    }
}
