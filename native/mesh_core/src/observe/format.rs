//! Formats access log lines.

use mesh_wire::lines::{millis, number};

use super::clock::{Clock, Style};
use super::escape;
use super::record::{Record, RecordField};
use crate::error::Side;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Common,
    Combined,
    Json,
    Logfmt,
}

pub struct Formatter {
    format: Format,
    clock: Clock,
}

impl Formatter {
    pub fn new(format: Format) -> Formatter {
        let style = match format {
            Format::Common | Format::Combined => Style::Common,
            Format::Json | Format::Logfmt => Style::Iso,
        };
        Formatter { format, clock: Clock::new(style) }
    }

    /// Call before each batch.
    pub fn begin(&mut self) {
        self.clock.begin();
    }

    /// Formats a line without its line feed.
    pub fn line(&mut self, record: &Record) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(record, &mut out);
        out.pop();
        out
    }

    pub fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        match self.format {
            Format::Common => self.common(record, out),
            Format::Combined => {
                self.common(record, out);
                out.push(b' ');
                or_dash(record, RecordField::Referer, out);
                out.push(b' ');
                or_dash(record, RecordField::UserAgent, out);
            }
            Format::Json => self.pairs::<Json>(record, out),
            Format::Logfmt => self.pairs::<Logfmt>(record, out),
        }
        out.push(b'\n');
    }

    fn common(&mut self, record: &Record, out: &mut Vec<u8>) {
        escape::bare(record.fields.get(RecordField::Client), out);
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(self.clock.tell(record.began).0.as_bytes());
        out.extend_from_slice(b"] \"");
        if record.fields.get(RecordField::Method).is_empty() {
            out.push(b'-');
        } else {
            escape::bare(record.fields.get(RecordField::Method), out);
            out.push(b' ');
            escape::bare(record.fields.get(RecordField::Path), out);
            out.push(b' ');
            out.extend_from_slice(protocol(record));
        }
        out.extend_from_slice(b"\" ");
        if record.status == 0 {
            out.push(b'-');
        } else {
            number(out, record.status.into());
        }
        out.push(b' ');
        number(out, record.sent);
    }

    fn pairs<S: Pairs>(&mut self, record: &Record, out: &mut Vec<u8>) {
        out.extend_from_slice(S::OPEN);
        let (second, millis) = self.clock.tell(record.began);
        S::name("time", out);
        let from = out.len();
        out.extend_from_slice(second.as_bytes());
        out.extend_from_slice(&millis);
        out.push(b'Z');
        S::quote_from(from, out);
        for (name, field) in [
            ("service", RecordField::Service),
            ("client", RecordField::Client),
            ("host", RecordField::Host),
            ("method", RecordField::Method),
            ("path", RecordField::Path),
        ] {
            S::text(name, record.fields.get(field), out);
        }
        S::text("protocol", protocol(record), out);
        S::number("status", record.status.into(), out);
        if let Some(status) = record.grpc_status {
            S::number("grpc_status", status.into(), out);
        }
        S::number("bytes_in", record.received, out);
        S::number("bytes_out", record.sent, out);
        S::millis("duration_ms", record.timings.total, out);
        if let Some(nanos) = record.timings.first_byte {
            S::millis("first_byte_ms", nanos, out);
        }
        if let Some(nanos) = record.timings.gateway {
            S::millis("gateway_ms", nanos, out);
        }
        for (name, field) in [
            ("request_id", RecordField::RequestId),
            ("trace_id", RecordField::TraceId),
            ("referer", RecordField::Referer),
            ("user_agent", RecordField::UserAgent),
        ] {
            let text = record.fields.get(field);
            if !text.is_empty() {
                S::text(name, text, out);
            }
        }
        if let Some(failure) = record.error {
            S::text("error", failure.kind.as_bytes(), out);
            S::text("side", side_name(failure.side).as_bytes(), out);
            if let Some(reason) = failure.reason {
                S::text("reason", reason.as_bytes(), out);
            }
        }
        out.extend_from_slice(S::CLOSE);
    }
}

pub fn side_name(side: Side) -> &'static str {
    match side {
        Side::Downstream => "downstream",
        Side::Upstream => "upstream",
        Side::Gateway => "gateway",
    }
}

fn protocol(record: &Record) -> &'static [u8] {
    match record.minor {
        0 => b"HTTP/1.0",
        1 => b"HTTP/1.1",
        _ => b"HTTP/2",
    }
}

fn or_dash(record: &Record, field: RecordField, out: &mut Vec<u8>) {
    match record.fields.get(field) {
        b"" => out.extend_from_slice(b"\"-\""),
        text => escape::quoted(text, out),
    }
}

/// A style of writing names and values.
trait Pairs {
    const OPEN: &'static [u8];
    const CLOSE: &'static [u8];

    fn name(name: &str, out: &mut Vec<u8>);

    fn value(text: &[u8], out: &mut Vec<u8>);

    /// Quotes what was written since `from`, if the style requires it.
    fn quote_from(from: usize, out: &mut Vec<u8>);

    fn text(name: &str, text: &[u8], out: &mut Vec<u8>) {
        Self::name(name, out);
        Self::value(text, out);
    }

    fn number(name: &str, value: u64, out: &mut Vec<u8>) {
        Self::name(name, out);
        number(out, value);
    }

    fn millis(name: &str, nanos: u64, out: &mut Vec<u8>) {
        Self::name(name, out);
        millis(out, nanos);
    }
}

struct Json;

impl Pairs for Json {
    const OPEN: &'static [u8] = b"{";
    const CLOSE: &'static [u8] = b"}";

    fn name(name: &str, out: &mut Vec<u8>) {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }

    fn value(text: &[u8], out: &mut Vec<u8>) {
        escape::json(text, out);
    }

    fn quote_from(from: usize, out: &mut Vec<u8>) {
        out.insert(from, b'"');
        out.push(b'"');
    }
}

struct Logfmt;

impl Pairs for Logfmt {
    const OPEN: &'static [u8] = b"";
    const CLOSE: &'static [u8] = b"";

    fn name(name: &str, out: &mut Vec<u8>) {
        if out.last().is_some_and(|last| *last != b'\n') {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
    }

    fn value(text: &[u8], out: &mut Vec<u8>) {
        escape::logfmt(text, out);
    }

    fn quote_from(_from: usize, _out: &mut Vec<u8>) {}
}
