//! The head for the endpoint: every line that need not change as it came, and what the gateway adds.

use httparse::Header;

use super::head::{RequestHead, Target};
use super::info::BodyLength;
use crate::client_addr::ClientAddr;
use crate::fields::Field;
use crate::forwarded::{self, Received, Seen};
use crate::ids::RequestId;
use crate::lines::{field, offset_in};

/// What the gateway adds to a request.
pub struct Forwarding<'a> {
    pub peer: &'a ClientAddr,
    /// Port of the listener, for clients that name no host.
    pub listener_port: u16,
    /// Host to name to the endpoint when the client named none.
    pub default_host: &'a str,
    /// The one that the endpoint is to see. `None` leaves that to the client.
    pub request_id: &'a RequestId,
    /// Begins a trace, in place of what the client sent.
    pub traceparent: Option<[u8; 55]>,
}

impl RequestHead<'_, '_> {
    /// Writes the head for the endpoint.
    pub fn write(&self, forwarding: &Forwarding<'_>, out: &mut Vec<u8>) {
        let mut received = Received::default();
        let mut run = None;
        if let (Target::AsIs(_), 1) = (self.target, self.info.minor) {
            run = Some(offset_in(self.bytes, self.method.as_bytes()));
        } else {
            self.write_request_line(out);
        }
        self.copy_fields(run, forwarding, &mut received, out);
        let named_host = !self.host_text.is_empty();
        let host = if named_host { self.host_text } else { forwarding.default_host.as_bytes() };
        if matches!(self.target, Target::Absolute(..)) || !named_host {
            field(out, b"Host", host);
        }
        match self.info.body {
            BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            BodyLength::None | BodyLength::Length(_) => {}
        }
        if self.info.websocket {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        if let Some(hops) = self.max_forwards {
            field(out, b"Max-Forwards", hops.saturating_sub(1).to_string().as_bytes());
        }
        out.extend_from_slice(if self.info.minor > 0 {
            b"Via: 1.1 mesh\r\n"
        } else {
            b"Via: 1.0 mesh\r\n"
        });
        let seen = Seen {
            peer: forwarding.peer,
            host,
            port: self.host.as_ref().and_then(|host| host.port),
            http_port: if self.host.is_some() { 80 } else { forwarding.listener_port },
            https: forwarding.peer.tls || (forwarding.peer.trusted && self.https),
        };
        forwarded::write(out, &seen, &received);
        if let RequestId::Made(_) = forwarding.request_id {
            // In few pieces, since nearly every request has it.
            out.extend_from_slice(b"X-Request-Id: ");
            forwarding.request_id.write(out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(traceparent) = &forwarding.traceparent {
            field(out, b"Traceparent", traceparent);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_request_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        let target = match self.target {
            Target::AsIs(target) => target,
            Target::Absolute(_, path) => {
                if !path.starts_with(['/', '*']) {
                    out.push(b'/');
                }
                path
            }
        };
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    /// Copies the lines that stay, run by run, and notes the forwarded fields that do not. A run
    /// may have begun with the request line.
    fn copy_fields<'s>(
        &'s self,
        mut run: Option<usize>,
        forwarding: &Forwarding<'_>,
        received: &mut Received<'s>,
        out: &mut Vec<u8>,
    ) {
        for (i, header) in self.headers.iter().enumerate() {
            let start = offset_in(self.bytes, header.name.as_bytes());
            if self.keeps(i, header, forwarding, received) {
                run.get_or_insert(start);
            } else if let Some(from) = run.take() {
                out.extend_from_slice(&self.bytes[from..start]);
            }
        }
        if let Some(from) = run {
            out.extend_from_slice(&self.bytes[from..self.bytes.len() - 2]);
        }
    }

    fn keeps<'s>(
        &'s self,
        i: usize,
        header: &Header<'s>,
        forwarding: &Forwarding<'_>,
        received: &mut Received<'s>,
    ) -> bool {
        let kind = self.kinds[i];
        if kind.is_hop_by_hop() || kind == Field::Alias || self.removes(kind, header.name) {
            return false;
        }
        match kind {
            Field::Host => matches!(self.target, Target::AsIs(_)) && !self.host_text.is_empty(),
            // RFC 9110 section 10.1.1: an HTTP/1.0 client cannot know 100 (Continue).
            Field::Expect => self.info.minor > 0,
            Field::MaxForwards => self.max_forwards.is_none(),
            Field::XRequestId => !matches!(forwarding.request_id, RequestId::Made(_)),
            Field::Traceparent | Field::Tracestate => forwarding.traceparent.is_none(),
            _ if forwarded::is_ours(kind) => {
                if forwarding.peer.trusted {
                    received.take(kind, header.value);
                }
                false
            }
            _ => true,
        }
    }
}
