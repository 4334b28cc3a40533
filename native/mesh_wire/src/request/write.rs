//! Writes a request head for the endpoint: copies unchanged lines and adds the gateway's fields.

use httparse::Header;

use super::head::{RequestHead, Target};
use super::info::BodyLength;
use crate::client_addr::ClientAddr;
use crate::fields::FieldKind;
use crate::forwarded::{self, ClientHop, ProxyFields};
use crate::head::copy_fields;
use crate::ids::RequestId;
use crate::lines::{field, offset_in};

/// What the gateway adds to a request head.
pub struct Forwarding<'a> {
    pub client: &'a ClientAddr,
    /// The listener's port, for clients that send no host.
    pub listener_port: u16,
    /// The host for the endpoint if the client sent none.
    pub default_host: &'a str,
    /// The id for the endpoint. `None` passes the client's fields on.
    pub request_id: &'a RequestId,
    /// Begins a trace and replaces the client's trace fields.
    pub traceparent: Option<[u8; 55]>,
}

impl RequestHead<'_, '_> {
    pub fn write(&self, forwarding: &Forwarding<'_>, out: &mut Vec<u8>) {
        let mut received = ProxyFields::default();
        let mut run = None;
        if let (Target::AsIs(_), 1) = (self.target, self.info.minor) {
            run = Some(offset_in(self.bytes, self.method.as_bytes()));
        } else {
            self.write_request_line(out);
        }
        copy_fields(self.bytes, self.headers, run, out, |i, header| {
            self.keeps(i, header, forwarding, &mut received)
        });
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
        let hop = ClientHop {
            client: forwarding.client,
            host,
            port: self.host.as_ref().and_then(|host| host.port),
            http_port: if self.host.is_some() { 80 } else { forwarding.listener_port },
            https: forwarding.client.tls || (forwarding.client.trusted && self.https),
        };
        forwarded::write(out, &hop, &received);
        if let RequestId::Made(_) = forwarding.request_id {
            // Few writes, because nearly every request has an id.
            out.extend_from_slice(b"X-Request-Id: ");
            forwarding.request_id.write(out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(traceparent) = &forwarding.traceparent {
            field(out, b"Traceparent", traceparent);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the head as a peer sent it, without the fields between gateways.
    pub fn write_of_peer(&self, out: &mut Vec<u8>) {
        copy_fields(self.bytes, self.headers, Some(0), out, |i, _| {
            self.kinds[i] != FieldKind::Mesh
        });
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

    fn keeps<'s>(
        &'s self,
        i: usize,
        header: &Header<'s>,
        forwarding: &Forwarding<'_>,
        received: &mut ProxyFields<'s>,
    ) -> bool {
        let kind = self.kinds[i];
        if kind.is_hop_by_hop() || kind == FieldKind::Alias || self.removes(kind, header.name) {
            return false;
        }
        match kind {
            FieldKind::Host => matches!(self.target, Target::AsIs(_)) && !self.host_text.is_empty(),
            // RFC 9110 section 10.1.1: an HTTP/1.0 client cannot know 100 (Continue).
            FieldKind::Expect => self.info.minor > 0,
            FieldKind::MaxForwards => self.max_forwards.is_none(),
            FieldKind::XRequestId => !matches!(forwarding.request_id, RequestId::Made(_)),
            FieldKind::Traceparent | FieldKind::Tracestate => forwarding.traceparent.is_none(),
            _ if forwarded::is_forwarding_field(kind) => {
                if forwarding.client.trusted {
                    received.add(kind, header.value);
                }
                false
            }
            _ => true,
        }
    }
}
