//! Answers refused requests and connections in the gateway's name, and counts them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use mesh_wire::error_format::ErrorFormat;
use mesh_wire::head::{HeadEnd, HeadScan};
use mesh_wire::ids::RequestId;
use mesh_wire::mesh::{self, Refusal};
use mesh_wire::method::Method;
use mesh_wire::proxy_protocol::begins_proxy_header;
use mesh_wire::request::{BodyLength, RequestInfo};
use tokio::time::{Instant, timeout};

use super::connection::{Http1Connection, Next};
use super::request::RefusedRequest;
use crate::error::Error;
use crate::serve::accounting::{RecordedHead, RequestEnd};
use crate::serve::reply::{self, Framing};
use crate::serve::worker::Worker;
use crate::transport::write_all;
use crate::upstream::Transport;

/// For a peer to accept the last word on its connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// Answers a connection for which there is no room. Best effort: does not wait for the client.
pub fn turn_away(worker: &Worker, stream: &impl Transport, error: &Error) {
    worker.counters.connections_refused.add(1);
    worker.refusal(error);
    if let Some(answer) = error.answer() {
        let mut out = Vec::new();
        let framing = Framing { keep_alive: false, head_only: false, minor: 1 };
        reply::write(&answer, ErrorFormat::Text, framing, &RequestId::None, &mut out);
        let _ = stream.try_write(&out);
    }
}

pub struct Replied {
    pub next: Next,
    /// 0: the client was gone.
    pub status: u16,
    pub sent: u64,
}

impl<T: Transport + 'static> Http1Connection<'_, T> {
    /// Replaces the error if a peer sent a PROXY header that it may not send, so that its operator learns why.
    pub fn explain(&self, refused: RefusedRequest) -> RefusedRequest {
        match refused.error {
            Error::BadRequest(_) | Error::Version if begins_proxy_header(self.input.filled()) => {
                Error::BadRequest("a PROXY protocol header came from a peer that may not send one")
                    .into()
            }
            _ => refused,
        }
    }

    pub async fn refuse(&mut self, refused: RefusedRequest) -> Next {
        if T::IS_PEER {
            // The peer has a record of it.
            self.draft = None;
        } else if refused.info.is_none() {
            self.draft =
                self.worker.draft(&self.client_addr, Instant::now(), RecordedHead::default);
        }
        self.worker.refused_request(&refused.error);
        // The head must be dropped; it would be taken for the next request.
        let whole = match refused.info {
            Some(info) if info.body == BodyLength::None => self.skip_head(),
            _ => false,
        };
        let replied = self.reply(&refused.error, refused.info, whole).await;
        let ended = RequestEnd {
            status: replied.status,
            minor: refused.info.map_or(1, |info| info.minor),
            sent: replied.sent,
            ..RequestEnd::default()
        };
        let draft = self.draft.take();
        self.worker.record_refusal(draft, &self.request_id, &refused.error, ended);
        replied.next
    }

    pub async fn refuse_connection(&mut self, error: &Error) -> Next {
        self.worker.refusal(error);
        let replied = self.reply(error, None, false).await;
        self.worker.counters.response_body_bytes.add(replied.sent);
        replied.next
    }

    /// Drops the head of a valid request that was refused.
    fn skip_head(&mut self) -> bool {
        match HeadScan::default().find(self.input.filled()) {
            HeadEnd::Whole(size) => {
                self.input.consume(size);
                true
            }
            _ => false,
        }
    }

    /// Sends an answer in the gateway's name.
    pub async fn reply(
        &mut self,
        error: &Error,
        info: Option<RequestInfo>,
        whole: bool,
    ) -> Replied {
        if let Error::Refused(refusal) = error {
            return self.reply_to_peer(*refusal, info, whole).await;
        }
        let Some(answer) = error.answer() else {
            return Replied { next: Next::Close, status: 0, sent: 0 };
        };
        let framing = Framing {
            keep_alive: whole
                && info.is_some_and(|i| i.keep_alive)
                && !self.worker.lame_duck.is_raised(),
            // A malformed head still says whether the answer may have a body.
            head_only: info
                .map_or(self.input.filled().starts_with(b"HEAD "), |i| i.method == Method::Head),
            minor: info.map_or(1, |i| i.minor),
        };
        if self.config().request_id && self.request_id == RequestId::None {
            self.request_id = RequestId::Made(self.worker.random_id());
        }
        let error_format = info.map_or(ErrorFormat::Text, |i| i.error_format);
        let mut out = self.worker.borrow_head();
        let body = reply::write(&answer, error_format, framing, &self.request_id, &mut out);
        let idle = self.config().timeouts.idle;
        self.timer.set(idle);
        let written = {
            let mut write = pin!(write_all(&self.client, &out));
            let timer = &mut *self.timer;
            poll_fn(|cx| match write.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => timer.poll(cx).map(|()| false),
            })
            .await
        };
        self.worker.release_head(out);
        let next = match (written, framing.keep_alive) {
            (false, _) => Next::Close,
            (true, true) => Next::Request,
            (true, false) => self.after_last_response(whole),
        };
        Replied { next, status: answer.status, sent: if written { body } else { 0 } }
    }

    /// Closes the connection of a peer. A request may be on its way: it takes this for its response, and goes
    /// elsewhere.
    pub async fn leave(self) {
        let mut out = Vec::new();
        Refusal::Draining.write(false, &mut out);
        let written = timeout(FAREWELL, write_all(&self.client, &out)).await;
        if matches!(written, Ok(Ok(()))) {
            self.end(Next::Linger).await;
        }
    }

    async fn reply_to_peer(
        &mut self,
        refusal: Refusal,
        info: Option<RequestInfo>,
        whole: bool,
    ) -> Replied {
        // The rest of a body would be taken for the next request.
        let keep_alive = whole && info.is_some();
        let mut out = self.worker.borrow_head();
        refusal.write(keep_alive, &mut out);
        let written = write_all(&self.client, &out).await.is_ok();
        self.worker.release_head(out);
        let next = match (written, keep_alive) {
            (false, _) => Next::Close,
            (true, true) => Next::Request,
            (true, false) => Next::Linger,
        };
        Replied { next, status: mesh::REFUSAL, sent: 0 }
    }
}
