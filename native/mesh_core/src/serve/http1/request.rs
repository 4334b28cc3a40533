//! Reads an HTTP/1.1 request head, checks it, and finds its service.

use std::rc::Rc;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::head::{self, HeadEnd, HeadScan};
use mesh_wire::ids::RequestId;
use mesh_wire::mesh::{self, Refusal};
use mesh_wire::proxy_protocol::ProxyHeader;
use mesh_wire::request::{self, BodyLength, Forwarding, RequestHead, RequestInfo};
use tokio::time::Instant;

use super::connection::Http1Connection;
use crate::error::Error;
use crate::serve::accounting::RecordedHead;
use crate::serve::h2::Preface;
use crate::serve::worker::Worker;
use crate::upstream::{LocalService, Transport};

/// A request with its service.
pub struct RoutedRequest {
    pub info: RequestInfo,
    pub service: Rc<LocalService>,
    /// The head for the endpoint.
    pub head: Vec<u8>,
    pub head_read: Instant,
}

/// A refused request, and what is known of it.
pub struct RefusedRequest {
    pub error: Error,
    pub info: Option<RequestInfo>,
}

impl<E: Into<Error>> From<E> for RefusedRequest {
    fn from(error: E) -> RefusedRequest {
        RefusedRequest { error: error.into(), info: None }
    }
}

impl<T: Transport> Http1Connection<'_, T> {
    /// Reads the PROXY protocol header of a trusted peer, and replaces the client's address with the one
    /// that it names.
    pub async fn read_proxy_header(&mut self) -> Result<(), Error> {
        let worker = Rc::clone(&self.worker);
        let config = &worker.shared.config;
        let Some(version) = config.proxy_protocol.filter(|_| self.client_addr.trusted) else {
            return Ok(());
        };
        self.timer.set(config.timeouts.head);
        loop {
            match version.read(self.input.filled()).map_err(Error::BadRequest)? {
                ProxyHeader::Whole { size, client, tls } => {
                    if let Some(address) = client {
                        self.client_addr = ClientAddr::new(address, &config.trusted_proxies);
                    }
                    self.client_addr.tls = tls;
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

    /// Whether the client sends the HTTP/2 preface. HTTP/1.1 never begins with "PRI " (RFC 9113 section 3.4).
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

    /// Reads and accepts a complete head. Returns `None` if the client closed before it began.
    pub async fn read_head(&mut self) -> Result<Option<RoutedRequest>, RefusedRequest> {
        let worker = Rc::clone(&self.worker);
        let config = worker.shared.config_for(T::IS_PEER);
        let (limits, head_timeout) = (&config.limits, config.timeouts.head);
        let max = limits.head_bytes;
        let mut scan = HeadScan::default();
        let mut looked = false;
        self.timer.set(None);
        self.request_id = RequestId::None;
        self.draft = None;
        loop {
            if !self.input.is_empty() {
                // Most heads arrive complete; then the parser finds the end.
                if !looked && let Some(accepted) = self.accept()? {
                    return Ok(Some(accepted));
                }
                match scan.find(self.input.filled()) {
                    HeadEnd::Whole(size) if size > max => return Err(self.too_long().into()),
                    HeadEnd::Whole(_) => {
                        let malformed = Error::BadRequest("the request head is malformed");
                        return self.accept()?.ok_or(malformed.into()).map(Some);
                    }
                    HeadEnd::BareLf => {
                        return Err(Error::BadRequest("a line does not end with CRLF").into());
                    }
                    HeadEnd::Partial { new_line } => {
                        // Rejects invalid input (TLS, for example) without waiting for the rest. Once per
                        // line, so that a trickle of bytes does not cost a parse each.
                        if new_line && looked {
                            let mut storage = head::storage();
                            request::parse(self.input.filled(), &mut storage, limits.header_count)?;
                        }
                        if self.input.len() >= max {
                            return Err(self.too_long().into());
                        }
                        if !looked {
                            self.timer.set(head_timeout);
                        }
                        looked = true;
                        self.input.make_room(max);
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

    /// The error for a head that is too long, by the part that makes it so.
    fn too_long(&self) -> Error {
        let max = self.config().limits.head_bytes;
        match memchr::memchr(b'\n', self.input.filled()) {
            Some(end) if end < max => Error::HeadTooLong,
            _ => Error::TargetTooLong,
        }
    }

    /// Checks the head, finds the service, and writes the head for the endpoint. Returns `None` if the head
    /// is incomplete.
    fn accept(&mut self) -> Result<Option<RoutedRequest>, RefusedRequest> {
        let shared = &self.worker.shared;
        let config = shared.config_for(T::IS_PEER);
        let limits = &config.limits;
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
        self.client_asked_close = !info.keep_alive;
        // The response tells the client that this was the connection's last request.
        self.requests += 1;
        if limits.requests_per_connection.is_some_and(|max| self.requests >= max) {
            info.keep_alive = false;
            let limit = &self.worker.counters.limits.requests_per_connection;
            self.worker.reached(limit, "requests_per_connection");
        }
        if config.request_id {
            self.request_id = match request.request_id() {
                Some(given) => RequestId::Given(given.into()),
                // The endpoint gets what the peer has written.
                None if T::IS_PEER => RequestId::None,
                None => RequestId::Made(self.worker.random_id()),
            };
        }
        let begins_trace = config.start_trace && request.trace_id().is_none();
        let traceparent = begins_trace.then(|| self.worker.traceparent());
        let head = || RecordedHead::of(&request, traceparent.as_ref());
        self.draft = if T::IS_PEER {
            self.worker.draft_of_peer(&request, head_read, head)
        } else {
            self.worker.draft(&self.client_addr, head_read, head)
        };
        let refused = |error| RefusedRequest { error, info: Some(info) };
        if let (BodyLength::Length(length), Some(max)) = (info.body, limits.body_bytes)
            && length > max
        {
            return Err(refused(Error::BodyTooLong));
        }
        if T::IS_PEER {
            let routed = accept_of_peer(&self.worker, &request).map_err(refused)?;
            let (service, head) = routed;
            self.asks_to_go = !request.first(mesh::GO).is_empty();
            self.input.consume(size);
            self.input.release(&self.worker.buffers);
            return Ok(Some(RoutedRequest { info, service, head, head_read }));
        }
        if request.is_https() && !self.client_addr.speaks_https() {
            return Err(refused(Error::Misdirected));
        }
        if request.max_forwards == Some(0) {
            // RFC 9110 section 7.6.2: the gateway is the final recipient.
            return Err(refused(Error::NotImplemented("Max-Forwards is 0")));
        }
        let Some((service, default_host)) = self.worker.routes.find(request.host.as_ref()) else {
            let host = request.host.as_ref().map_or("", |h| h.as_str()).to_string();
            return Err(refused(Error::UnknownService(host)));
        };
        let forwarding = Forwarding {
            client: &self.client_addr,
            listener_port: shared.port,
            default_host: default_host.as_deref().unwrap_or(""),
            request_id: &self.request_id,
            traceparent,
        };
        let mut head = self.worker.borrow_head();
        request.write(&forwarding, &mut head);
        self.input.consume(size);
        // The response may take time, and waiting for it needs no buffer.
        self.input.release(&self.worker.buffers);
        Ok(Some(RoutedRequest { info, service, head, head_read }))
    }
}

/// Finds the service that a peer names, and writes the head for its endpoint.
fn accept_of_peer(
    worker: &Worker,
    request: &RequestHead<'_, '_>,
) -> Result<(Rc<LocalService>, Vec<u8>), Error> {
    if worker.lame_duck.is_raised() {
        return Err(Error::Refused(Refusal::Draining));
    }
    let name = std::str::from_utf8(request.first(mesh::SERVICE)).unwrap_or("");
    let service = worker.routes.of_this_node(name).ok_or(Error::Refused(Refusal::NotHere))?;
    let mut head = worker.borrow_head();
    request.write_of_peer(&mut head);
    Ok((service, head))
}
