//! A request head that has been checked.

use httparse::Header;

use super::info::RequestInfo;
use crate::fields::{self, Field};
use crate::host::Host;
use crate::ids::{self, Line};

/// A checked request head, borrowed from the connection's buffer.
pub struct RequestHead<'h, 'b> {
    pub info: RequestInfo,
    /// `None` only in HTTP/1.0.
    pub host: Option<Host<'b>>,
    /// `Max-Forwards` where it counts (RFC 9110 section 7.6.2).
    pub max_forwards: Option<u64>,
    pub(super) bytes: &'b [u8],
    pub(super) method: &'b str,
    pub(super) target: Target<'b>,
    /// The host as the client wrote it.
    pub(super) host_text: &'b [u8],
    /// The target is a URL whose scheme is `https`.
    pub(super) https: bool,
    pub(super) headers: &'h [Header<'b>],
    pub(super) kinds: &'h [Field],
    pub(super) request_id: Line<'b>,
    pub(super) traceparent: Line<'b>,
}

/// What of the request target goes to the endpoint. The absolute form is for proxies; endpoints
/// get the origin form of it (RFC 9112 section 3.2.1).
#[derive(Clone, Copy)]
pub(super) enum Target<'b> {
    AsIs(&'b str),
    /// From the absolute form: authority, and path with query (which may lack its slash).
    Absolute(&'b str, &'b str),
}

impl RequestHead<'_, '_> {
    /// Length of the head in the buffer.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn method(&self) -> &str {
        self.method
    }

    /// The path of the target, and its query.
    pub fn path(&self) -> &str {
        match self.target {
            Target::AsIs(target) => target,
            Target::Absolute(_, path) => path,
        }
    }

    /// The first field of this name, or nothing.
    pub fn first(&self, name: &str) -> &[u8] {
        let found = self.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.map_or(b"", |h| h.value)
    }

    /// Asks for an `https` resource in so many words (RFC 9110 section 7.4).
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The client's id for the request, where it gave a single and sane one.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.valid(ids::is_request_id)
    }

    /// The id of the trace that the request is a part of.
    pub fn trace_id(&self) -> Option<&[u8]> {
        let given = self.traceparent.valid(|value| ids::trace_id(value).is_some())?;
        ids::trace_id(given)
    }

    /// `Connection` names this field, and it is one that a client may have removed.
    pub(super) fn removes(&self, kind: Field, name: &str) -> bool {
        self.info.names_fields
            && !kind.is_framing_or_routing()
            && !kind.is_of_proxies(name)
            && self.is_named(name)
    }

    /// `Connection` names this field, so it is for the gateway only.
    fn is_named(&self, name: &str) -> bool {
        let connection =
            self.headers.iter().zip(self.kinds).filter(|(_, k)| **k == Field::Connection);
        connection
            .flat_map(|(h, _)| fields::members(h.value))
            .any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
    }
}
