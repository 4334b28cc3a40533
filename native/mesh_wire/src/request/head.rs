//! A request head that has been checked.

use httparse::Header;

use super::info::RequestInfo;
use crate::fields::{self, FieldKind};
use crate::host::Host;
use crate::ids::{self, SingleValue};

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
    pub(super) kinds: &'h [FieldKind],
    pub(super) request_id: SingleValue<'b>,
    pub(super) traceparent: SingleValue<'b>,
}

/// The request target for the endpoint. The absolute form is for proxies; endpoints get the origin form
/// (RFC 9112 section 3.2.1).
#[derive(Clone, Copy)]
pub(super) enum Target<'b> {
    AsIs(&'b str),
    /// The authority of an absolute form, and its path with query. The path may lack its slash.
    Absolute(&'b str, &'b str),
}

impl RequestHead<'_, '_> {
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn method(&self) -> &str {
        self.method
    }

    /// The path of the target with its query.
    pub fn path(&self) -> &str {
        match self.target {
            Target::AsIs(target) => target,
            Target::Absolute(_, path) => path,
        }
    }

    /// The value of the first field with this name, or an empty slice.
    pub fn first(&self, name: &str) -> &[u8] {
        let found = self.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.map_or(b"", |h| h.value)
    }

    /// Whether the target is an `https` URL (RFC 9110 section 7.4).
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The client's request id, if it sent exactly one and that is valid.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.valid(ids::is_request_id)
    }

    /// The trace id of the client's `traceparent`, if that is valid.
    pub fn trace_id(&self) -> Option<&[u8]> {
        let given = self.traceparent.valid(|value| ids::trace_id(value).is_some())?;
        ids::trace_id(given)
    }

    /// Whether `Connection` names this field and a client may have it removed.
    pub(super) fn removes(&self, kind: FieldKind, name: &str) -> bool {
        self.info.names_fields
            && !kind.is_framing_or_routing()
            && !kind.is_of_proxies(name)
            && fields::connection_names(name, self.headers, self.kinds)
    }
}
