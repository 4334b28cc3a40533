//! Sends records, log lines and notices to a process.
//!
//! Sends from the collector's thread: sending from outside is impossible on a scheduler's thread, and
//! workers run on those.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::Side;
use mesh_core::observe::{
    AccessLog, CountedNotice, Failure, Format, Hop, Notice, ObserveConfig, Record, RecordField,
    Sink,
};
use rustler::{
    Atom, Encoder, Env, LocalPid, NewBinary, NifResult, OwnedEnv, Term, types::map::map_new,
};

use crate::atoms;
use crate::decode::{Decoded, Map, choice, optional, parsed};

/// How many records and lines may be unacknowledged. More are dropped, because a mailbox is unbounded.
/// These take about 30 MB.
const MAX_UNDERWAY: usize = 32 * 1024;

/// Decodes the argument of `observe/3`, with a sink that sends to the process.
pub fn read(
    term: Term<'_>,
    pid: LocalPid,
    unacknowledged: &Arc<AtomicUsize>,
) -> Decoded<ObserveConfig> {
    Map::read(term, |map| {
        let sink =
            ProcessSink { pid, env: OwnedEnv::new(), unacknowledged: Arc::clone(unacknowledged) };
        Ok(ObserveConfig {
            access_log: map
                .with("access_log", |log| optional(log, |log| Map::read(log, access_log)))?,
            sample: map.get("sample")?,
            sink: Some(Box::new(sink)),
        })
    })
}

fn access_log(map: &mut Map<'_>) -> Decoded<AccessLog> {
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

struct ProcessSink {
    pid: LocalPid,
    env: OwnedEnv,
    unacknowledged: Arc<AtomicUsize>,
}

impl ProcessSink {
    fn send(&mut self, kind: Atom, list: impl FnOnce(Env<'_>) -> Option<Term<'_>>) -> bool {
        let tag = atoms::mesh();
        let sent = self.env.send_and_clear(&self.pid, |env| {
            (tag, kind, list(env).unwrap_or_else(|| Vec::<Term>::new().encode(env)))
        });
        // Fails if the process has ended.
        sent.is_ok()
    }

    fn send_bounded(
        &mut self,
        kind: Atom,
        count: usize,
        list: impl FnOnce(Env<'_>) -> Option<Term<'_>>,
    ) -> bool {
        let before = self.unacknowledged.fetch_add(count, Ordering::Relaxed);
        if before < MAX_UNDERWAY && self.send(kind, list) {
            return true;
        }
        self.unacknowledged.fetch_sub(count, Ordering::Relaxed);
        false
    }
}

impl Sink for ProcessSink {
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

    fn notices(&mut self, notices: Vec<CountedNotice>) {
        self.send(atoms::notices(), |env| {
            let rows: Vec<_> =
                notices.iter().map(|n| (kind(n.notice), &*n.about, n.count)).collect();
            Some(rows.encode(env))
        });
    }
}

/// `{measurements, metadata}`; durations in nanoseconds. Unknown durations are left out.
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
    let hop = match record.hop {
        None => nil(),
        Some(Hop::In) => atoms::in_().encode(env),
        Some(Hop::Out) => atoms::out().encode(env),
    };
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
            atoms::hop().encode(env),
            atoms::grpc_status().encode(env),
        ],
        &[
            text(RecordField::Service),
            text(RecordField::Host),
            text(RecordField::Method),
            text(RecordField::Path),
            status,
            version.encode(env),
            text(RecordField::Client),
            text(RecordField::UserAgent),
            text(RecordField::RequestId),
            text(RecordField::TraceId),
            error,
            side,
            reason,
            hop,
            record.grpc_status.encode(env),
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
        Notice::NotHttp2 => atoms::not_http2(),
        Notice::Panic => atoms::panic(),
        Notice::Accept => atoms::accept(),
        Notice::Connect => atoms::connect(),
        Notice::LogFile => atoms::log_file(),
        Notice::RecordsLost => atoms::records_lost(),
        Notice::PeerUp => atoms::peer_up(),
        Notice::PeerSuspect => atoms::peer_suspect(),
        Notice::PeerLost => atoms::peer_lost(),
        Notice::PeerUnreachable => atoms::peer_unreachable(),
        Notice::MeshStranger => atoms::mesh_stranger(),
    }
}
