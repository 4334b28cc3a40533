//! A request of HTTP/1.1: read, checked, and given a service.

use std::rc::Rc;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::head::{self, Found, HeadScan};
use mesh_wire::ids::RequestId;
use mesh_wire::proxy_protocol::ProxyHeader;
use mesh_wire::request::{self, BodyLength, Forwarding, RequestInfo};
use tokio::time::Instant;

use super::connection::Connection;
use crate::error::Error;
use crate::serve::accounting::Head;
use crate::serve::h2::Preface;
use crate::upstream::{LocalService, Transport};

/// A request that goes on to a service.
pub struct Routed {
    pub info: RequestInfo,
    pub service: Rc<LocalService>,
    /// The head for the endpoint.
    pub head: Vec<u8>,
    pub head_read: Instant,
}

/// A request that goes no further, and as much as is known about it.
pub struct Refused {
    pub error: Error,
    pub info: Option<RequestInfo>,
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused { error: error.into(), info: None }
    }
}

impl<T: Transport> Connection<'_, T> {
    /// Reads the PROXY protocol header with which a trusted peer begins, and takes the client that
    /// it names for the peer from now on.
    pub async fn read_proxy_header(&mut self) -> Result<(), Error> {
        let worker = Rc::clone(&self.worker);
        let config = &worker.shared.config;
        let Some(version) = config.proxy_protocol.filter(|_| self.peer.trusted) else {
            return Ok(());
        };
        self.timer.set(config.timeouts.head);
        loop {
            match version.read(self.input.filled()).map_err(Error::BadRequest)? {
                ProxyHeader::Whole { size, client, tls } => {
                    if let Some(address) = client {
                        self.peer = ClientAddr::new(address, &config.trusted_proxies);
                    }
                    self.peer.tls = tls;
                    self.input.consume(size);
                    return Ok(());
                }
                ProxyHeader::Partial if self.read_more().await? == 0 => {
                    return Err(Error::ClientGone);
                }
                ProxyHeader::Partial => {}
            }
        }
    }

    /// Whether the client begins with the preface of HTTP/2. Nothing of HTTP/1.1 begins with "PRI "
    /// (RFC 9113 section 3.4).
    pub async fn speaks_http2(&mut self) -> Result<bool, Error> {
        self.timer.set(self.worker.shared.config.timeouts.head);
        loop {
            match Preface::of(self.input.filled()) {
                Preface::No => return Ok(false),
                Preface::Whole => return Ok(true),
                Preface::Partial if self.read_more().await? == 0 => return Err(Error::ClientGone),
                Preface::Partial => {}
            }
        }
    }

    /// Reads until there is a whole head, and takes it. `None`: the client closed before it began.
    pub async fn read_head(&mut self) -> Result<Option<Routed>, Refused> {
        let worker = Rc::clone(&self.worker);
        let limits = &worker.shared.config.limits;
        let head_timeout = worker.shared.config.timeouts.head;
        let most = limits.head_bytes;
        let mut scan = HeadScan::default();
        let mut looked = false;
        self.timer.set(None);
        self.request_id = RequestId::None;
        self.draft = None;
        loop {
            if !self.input.is_empty() {
                // Mostly a head comes whole, and the parser finds its end.
                if !looked && let Some(accepted) = self.accept()? {
                    return Ok(Some(accepted));
                }
                match scan.find(self.input.filled()) {
                    Found::Whole(size) if size > most => return Err(self.too_long().into()),
                    Found::Whole(_) => {
                        let malformed = Error::BadRequest("the request head is malformed");
                        return self.accept()?.ok_or(malformed.into()).map(Some);
                    }
                    Found::BareLf => {
                        return Err(Error::BadRequest("a line does not end with CRLF").into());
                    }
                    Found::Partial { new_line } => {
                        // What can be told to be wrong already is, so that nonsense (TLS, say) is
                        // not waited on. Once per line: a trickle of bytes must not cost a parse each.
                        if new_line && looked {
                            let mut storage = head::storage();
                            request::parse(self.input.filled(), &mut storage, limits.header_count)?;
                        }
                        if self.input.len() >= most {
                            return Err(self.too_long().into());
                        }
                        if !looked {
                            self.timer.set(head_timeout);
                        }
                        looked = true;
                        self.input.make_room(most);
                    }
                }
            }
            match self.read_more().await? {
                0 if self.input.is_empty() => return Ok(None),
                0 => return Err(Error::ClientGone.into()),
                _ => {}
            }
        }
    }

    /// Which part of a head that is too long makes it so.
    fn too_long(&self) -> Error {
        let most = self.worker.shared.config.limits.head_bytes;
        match memchr::memchr(b'\n', self.input.filled()) {
            Some(end) if end < most => Error::HeadTooLong,
            _ => Error::TargetTooLong,
        }
    }

    /// Checks the head, finds the service, and writes the head for the endpoint. `None`: the head
    /// is not whole.
    fn accept(&mut self) -> Result<Option<Routed>, Refused> {
        let shared = &self.worker.shared;
        let limits = &shared.config.limits;
        let mut storage = head::storage();
        let Some(request) = request::parse(self.input.filled(), &mut storage, limits.header_count)?
        else {
            return Ok(None);
        };
        let size = request.size();
        if size > limits.head_bytes {
            return Err(self.too_long().into());
        }
        #[cfg(test)]
        assert_ne!(request.method(), "PANIC", "a test asks for it");
        let head_read = Instant::now();
        let mut info = request.info;
        self.said_last = !info.keep_alive;
        // The last one that this connection may bring is told so in its response.
        self.taken += 1;
        if limits.requests_per_connection.is_some_and(|most| self.taken >= most) {
            info.keep_alive = false;
            let limit = &self.worker.counters.limits.requests_per_connection;
            self.worker.reached(limit, "requests_per_connection");
        }
        if shared.config.request_id {
            self.request_id = match request.request_id() {
                Some(given) => RequestId::Given(given.into()),
                None => RequestId::Made(self.worker.random_id()),
            };
        }
        let begins_trace = shared.config.start_trace && request.trace_id().is_none();
        let traceparent = begins_trace.then(|| self.worker.traceparent());
        let head = || Head::of(&request, traceparent.as_ref());
        self.draft = self.worker.draft(&self.peer, head_read, head);
        let refused = |error| Refused { error, info: Some(info) };
        if let (BodyLength::Length(length), Some(most)) = (info.body, limits.body_bytes)
            && length > most
        {
            return Err(refused(Error::BodyTooLong));
        }
        if request.is_https() && !self.peer.speaks_https() {
            return Err(refused(Error::Misdirected));
        }
        if request.max_forwards == Some(0) {
            // RFC 9110 section 7.6.2: it goes no further, so this is its final recipient.
            return Err(refused(Error::NotImplemented("Max-Forwards ends here")));
        }
        let Some((service, default_host)) = self.worker.routes.find(request.host.as_ref()) else {
            let host = request.host.as_ref().map_or("", |h| h.as_str()).to_string();
            return Err(refused(Error::UnknownService(host)));
        };
        let forwarding = Forwarding {
            peer: &self.peer,
            listener_port: shared.port,
            default_host: default_host.as_deref().unwrap_or(""),
            request_id: &self.request_id,
            traceparent,
        };
        let mut head = self.worker.take_head();
        request.write(&forwarding, &mut head);
        self.input.consume(size);
        // An answer can take its time, and whoever waits for it needs no buffer.
        self.input.give_back(&self.worker.buffers);
        Ok(Some(Routed { info, service, head, head_read }))
    }
}
