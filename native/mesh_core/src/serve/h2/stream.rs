//! Serves one stream from its request to its end, with what is counted and what the client is told.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Method, Request};
use mesh_wire::ids::RequestId;
use mesh_wire::prefer::Prefer;
use mesh_wire::request::BodyLength;
use tokio::time::Instant;

use super::body::Body;
use super::request::{self, Routed};
use super::sender::Sender;
use super::session::Running;
use super::sink::Sink;
use super::tunnel::Stream;
use super::{names, response};
use crate::error::Error;
use crate::observe::Draft;
use crate::runtime::{Buf, Timer};
use crate::serve::accounting::Ended;
use crate::serve::exchange::{Exchange, Finished, Outcome, State, Upgraded};
use crate::serve::tunnel::join;

/// In [`Ended`], for HTTP/2.
const MINOR: u8 = 2;

pub async fn serve(running: Running, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let session = Rc::clone(&running.session);
    let (parts, frames) = request.into_parts();
    let sender = Sender::new(respond, &session.queue);
    let worker = &session.worker;
    let manner = Manner {
        prefer: names::prefers(&parts),
        is_head: parts.method == Method::HEAD,
        request_id: names::request_id(worker, &parts),
    };
    let ended = frames.is_end_stream();
    let head_read = Instant::now();
    let traceparent = names::new_trace(worker, &parts);
    let head = || names::head(&parts, traceparent.as_ref());
    let draft = worker.draft(&session.client, head_read, head);
    let ids = (&manner.request_id, traceparent);
    let routed = match request::accept(worker, &session.client, &parts, ids, ended) {
        Ok(routed) => routed,
        Err(error) => {
            worker.refused_request(&error);
            let (status, sent) = manner.answer(&sender, &error);
            let ended = Ended { minor: MINOR, ..Ended::default() }.answered(status, sent);
            worker.record_refusal(draft, &manner.request_id, &error, ended);
            return;
        }
    };
    drop(parts);
    let state = State::new(&worker.shared.config, head_read);
    let exchange = exchange(&running, &sender, &manner, routed, (frames, draft), &state);
    let Some((upgraded, frames)) = exchange.await else { return };
    running.becomes_tunnel();
    let stream = Stream::new(&sender, frames);
    let Upgraded { upstream, mut first_bytes, service, open: _open } = upgraded;
    let mut nothing = Buf::new();
    let tunnel = join(worker, &service, (&stream, &mut nothing), (&upstream, &mut first_bytes));
    let mut tunnel = pin!(tunnel);
    // What has not ended by then, h2 resets.
    poll_fn(|cx| match sender.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => tunnel.as_mut().poll(cx),
    })
    .await;
}

/// Forwards a request. Returns what a tunnel goes on with, if the request became one.
async fn exchange(
    running: &Running,
    sender: &Sender,
    manner: &Manner,
    routed: Routed,
    (frames, draft): (RecvStream, Option<Draft>),
    state: &State,
) -> Option<(Upgraded, RecvStream)> {
    let session = &running.session;
    let worker = &session.worker;
    let Routed { method, body: length, service, head, websocket } = routed;
    let counters = &service.counters;
    let body = Body {
        stream: frames,
        sender,
        length,
        most: worker.shared.config.limits.body_bytes,
        read: 0,
        is_done: length == BodyLength::None,
    };
    let timer = &mut Timer::default();
    let mut exchange = Exchange {
        worker,
        service: Rc::clone(&service),
        method,
        head,
        body,
        sink: Sink { state, counters, sender, websocket, head: None },
        state,
        timer,
    };
    let Outcome { result, mut ended } = exchange.run(MINOR).await;
    let record = |ended| worker.record(draft, &manner.request_id, Some(&service), ended);
    let error = match result {
        Ok(finished) => {
            record(ended);
            session.judge(true);
            return match finished {
                Finished::Upgraded(upgraded) => Some((upgraded, exchange.body.stream)),
                Finished::Responded => None,
            };
        }
        Err(error) => error,
    };
    let left = matches!(error, Error::ClientGone | Error::ReaderTimeout);
    session.judge(!left);
    if ended.status > 0 {
        sender.reset(if left { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    } else {
        let (status, sent) = manner.answer(sender, &error);
        counters.answered(status, sent);
        ended = ended.answered(status, sent);
    }
    record(ended.failed(&error));
    None
}

/// How the client wants to be answered.
struct Manner {
    prefer: Prefer,
    is_head: bool,
    request_id: RequestId,
}

impl Manner {
    /// Answers in the gateway's own name, if there is anybody to be answered; with which status,
    /// and a body of how many bytes.
    fn answer(&self, sender: &Sender, error: &Error) -> (u16, u64) {
        let Some(answer) = error.answer() else { return (0, 0) };
        let (head, body) = response::answer(&answer, self.prefer, &self.request_id);
        let body = if self.is_head { String::new() } else { body };
        let sent = body.len() as u64;
        // Fails only when nobody is there any more.
        let _ = sender.answer(head, body);
        (answer.status, sent)
    }
}
