//! What a client is told when its request goes no further: answers in the gateway's own name, and
//! what of them is counted.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use mesh_wire::head::{Found, HeadScan};
use mesh_wire::ids::RequestId;
use mesh_wire::method::Method;
use mesh_wire::prefer::Prefer;
use mesh_wire::proxy_protocol::begins_proxy_header;
use mesh_wire::request::{BodyLength, RequestInfo};
use tokio::time::Instant;

use super::connection::{Connection, Next};
use super::request::Refused;
use crate::error::Error;
use crate::serve::accounting::{Ended, Head};
use crate::serve::reply::{self, Framing};
use crate::serve::worker::Worker;
use crate::upstream::Transport;
use crate::upstream::transport::write_all;

/// Answers a client that there is no room for it. Best effort: it is not waited for.
pub fn turn_away(worker: &Worker, stream: &impl Transport, error: &Error) {
    worker.counters.connections_refused.add(1);
    worker.refusal(error);
    if let Some(answer) = error.answer() {
        let mut out = Vec::new();
        let framing = Framing { keep_alive: false, head_only: false, minor: 1 };
        reply::write(&answer, Prefer::Text, framing, &RequestId::None, &mut out);
        let _ = stream.try_write(&out);
    }
}

/// How an answer of the gateway's went.
pub struct Replied {
    pub next: Next,
    /// 0: nobody was there to be answered.
    pub status: u16,
    /// Bytes of its body.
    pub sent: u64,
}

impl<T: Transport + 'static> Connection<'_, T> {
    /// An announcement where none is due is no request; its sender is told what is wrong with it.
    pub fn explain(&self, refused: Refused) -> Refused {
        match refused.error {
            Error::BadRequest(_) | Error::Version if begins_proxy_header(self.input.filled()) => {
                Error::BadRequest("a PROXY protocol header came from a peer that may not send one")
                    .into()
            }
            _ => refused,
        }
    }

    pub async fn refuse(&mut self, refused: Refused) -> Next {
        if refused.info.is_none() {
            self.draft = self.worker.draft(&self.peer, Instant::now(), Head::default);
        }
        self.worker.refused_request(&refused.error);
        // The head has been left where it is: whatever comes next would be taken for it.
        let whole = match refused.info {
            Some(info) if info.body == BodyLength::None => self.skip_head(),
            _ => false,
        };
        let replied = self.reply(&refused.error, refused.info, whole).await;
        let ended = Ended {
            status: replied.status,
            minor: refused.info.map_or(1, |info| info.minor),
            sent: replied.sent,
            ..Ended::default()
        };
        let draft = self.draft.take();
        self.worker.record_refusal(draft, &self.request_id, &refused.error, ended);
        replied.next
    }

    /// Answers a connection that will not be served.
    pub async fn refuse_all(&mut self, error: &Error) -> Next {
        self.worker.refusal(error);
        let replied = self.reply(error, None, false).await;
        self.worker.counters.response_body_bytes.add(replied.sent);
        replied.next
    }

    /// Drops the head of a well-formed request that was refused.
    fn skip_head(&mut self) -> bool {
        match HeadScan::default().find(self.input.filled()) {
            Found::Whole(size) => {
                self.input.consume(size);
                true
            }
            _ => false,
        }
    }

    /// Answers in the gateway's own name.
    pub async fn reply(
        &mut self,
        error: &Error,
        info: Option<RequestInfo>,
        whole: bool,
    ) -> Replied {
        let Some(answer) = error.answer() else {
            return Replied { next: Next::Close, status: 0, sent: 0 };
        };
        let framing = Framing {
            keep_alive: whole && info.is_some_and(|i| i.keep_alive) && !self.worker.retiring.get(),
            // A head that is malformed further on still says what must not be answered with a body.
            head_only: info
                .map_or(self.input.filled().starts_with(b"HEAD "), |i| i.method == Method::Head),
            minor: info.map_or(1, |i| i.minor),
        };
        if self.worker.shared.config.request_id && self.request_id == RequestId::None {
            self.request_id = RequestId::Made(self.worker.random_id());
        }
        let prefer = info.map_or(Prefer::Text, |i| i.prefer);
        let mut out = self.worker.take_head();
        let body = reply::write(&answer, prefer, framing, &self.request_id, &mut out);
        let idle = self.worker.shared.config.timeouts.idle;
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
        self.worker.give_head(out);
        let next = match (written, framing.keep_alive) {
            (false, _) => Next::Close,
            (true, true) => Next::Request,
            (true, false) => self.last(whole),
        };
        Replied { next, status: answer.status, sent: if written { body } else { 0 } }
    }
}
