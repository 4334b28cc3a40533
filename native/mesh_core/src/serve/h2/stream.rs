//! Serves one stream from its request to its end: forwards, answers, counts and records it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Method, Request};
use mesh_wire::error_format::ErrorFormat;
use mesh_wire::ids::RequestId;
use mesh_wire::request::BodyLength;
use tokio::time::Instant;

use super::body::H2Body;
use super::request::{self, RoutedStream};
use super::sender::Sender;
use super::session::StreamGuard;
use super::sink::H2Sink;
use super::tunnel::TunnelStream;
use super::{metadata, response};
use crate::error::Error;
use crate::observe::Draft;
use crate::runtime::{Buf, Timer};
use crate::serve::accounting::RequestEnd;
use crate::serve::exchange::{Exchange, ExchangeState, Finished, Outcome, Upgraded};
use crate::serve::tunnel::relay;
use crate::transport::Transport;

/// The version of HTTP/2 in [`RequestEnd::minor`].
const HTTP_2: u8 = 2;

pub async fn serve(guard: StreamGuard, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let session = Rc::clone(&guard.session);
    let (parts, frames) = request.into_parts();
    let sender = Sender::new(respond, &session.queue);
    let worker = &session.worker;
    let options = AnswerOptions {
        error_format: metadata::error_format(&parts),
        is_head: parts.method == Method::HEAD,
        is_grpc: metadata::is_grpc(&parts.headers),
        request_id: metadata::request_id(worker, &parts),
    };
    let ended = frames.is_end_stream();
    let head_read = Instant::now();
    let traceparent = metadata::new_trace(worker, &parts);
    let head = || metadata::head(&parts, traceparent.as_ref());
    let draft = worker.draft(&session.client, head_read, head);
    let ids = (&options.request_id, traceparent);
    let routed = match request::accept(worker, &session.client, &parts, ids, ended) {
        Ok(routed) => routed,
        Err(error) => {
            worker.refused_request(&error);
            let (status, sent) = options.answer(&sender, &error);
            let ended = RequestEnd {
                minor: HTTP_2,
                grpc_status: options.grpc_status(&error),
                ..RequestEnd::default()
            }
            .answered(status, sent);
            worker.record_refusal(draft, &options.request_id, &error, ended);
            return;
        }
    };
    drop(parts);
    let state = ExchangeState::new(&worker.shared.config, head_read);
    state.body_may_pause.set(options.is_grpc);
    let exchange = exchange(&guard, &sender, &options, routed, (frames, draft), &state);
    let Some((upgraded, frames)) = exchange.await else { return };
    guard.becomes_tunnel();
    let stream = TunnelStream::new(&sender, frames);
    let Upgraded { upstream, mut first_bytes, service, counted: _counted } = *upgraded;
    let mut nothing = Buf::new();
    let timeouts = &worker.shared.config.timeouts;
    let tunnel =
        relay(worker, timeouts, &service, (&stream, &mut nothing), (&upstream, &mut first_bytes));
    let mut tunnel = pin!(tunnel);
    let is_gone = poll_fn(|cx| match sender.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => tunnel.as_mut().poll(cx).map(|()| false),
    })
    .await;
    // h2 resets what has not ended by then.
    if !is_gone && let Some(code) = upstream.reset_code() {
        sender.reset(code.into());
    } else if is_gone && let Some(code) = sender.reset_code.get() {
        upstream.reset(code.into());
    }
}

/// Forwards a request. Returns both sides of a tunnel if the request became one.
async fn exchange(
    guard: &StreamGuard,
    sender: &Sender,
    options: &AnswerOptions,
    routed: RoutedStream,
    (frames, draft): (RecvStream, Option<Draft>),
    state: &ExchangeState,
) -> Option<(Box<Upgraded>, RecvStream)> {
    let session = &guard.session;
    let worker = &session.worker;
    let RoutedStream { method, body: length, service, head, websocket } = routed;
    let counters = &service.counters;
    let body = H2Body {
        stream: frames,
        sender,
        length,
        max: worker.shared.config.limits.body_bytes,
        read: 0,
        is_done: length == BodyLength::None,
    };
    let timer = &mut Timer::default();
    let mut exchange = Exchange {
        worker,
        service: Rc::clone(&service),
        method,
        wants_tunnel: websocket.is_some(),
        head,
        body,
        sink: H2Sink {
            state,
            counters,
            sender,
            websocket,
            is_grpc: options.is_grpc,
            may_end_in_error: false,
            head: None,
        },
        state,
        timer,
    };
    let Outcome { result, timings } = exchange.run().await;
    let mut ended = state.request_end(timings, HTTP_2);
    let record = |ended: RequestEnd| {
        if let Some(status) = ended.grpc_status {
            counters.grpc.of(status).add(1);
        }
        worker.record(draft, &options.request_id, Some(&service), || ended);
    };
    let error = match result {
        Ok(finished) => {
            record(ended);
            session.note_end(true);
            return match finished {
                Finished::Upgraded(upgraded) => Some((upgraded, exchange.body.stream)),
                Finished::Responded => None,
            };
        }
        Err(error) => error,
    };
    let left = matches!(error, Error::ClientGone | Error::ReaderTimeout);
    session.note_end(!left);
    if ended.status > 0 {
        match error {
            _ if left => sender.reset(Reason::CANCEL),
            Error::UpstreamReset(code) => sender.reset(code.into()),
            // A reset would be INTERNAL to the client, and a lost endpoint is UNAVAILABLE.
            _ if exchange.sink.may_end_in_error && end_in_error(sender, &error) => {
                ended.grpc_status = options.grpc_status(&error);
            }
            _ => sender.reset(Reason::INTERNAL_ERROR),
        }
    } else if let (Error::UpstreamReset(code), true) = (&error, options.is_grpc) {
        // The client makes a status of it, and may repeat a request that was refused.
        sender.reset((*code).into());
    } else {
        let (status, sent) = options.answer(sender, &error);
        ended.grpc_status = options.grpc_status(&error);
        counters.answered(status, sent);
        ended = ended.answered(status, sent);
    }
    record(ended.failed(&error));
    None
}

/// Ends a gRPC response that has begun with the status of the error. `false` if it has ended.
fn end_in_error(sender: &Sender, error: &Error) -> bool {
    error.answer().is_some_and(|answer| sender.trailers(response::grpc_trailers(&answer)).is_ok())
}

/// How to answer the client.
struct AnswerOptions {
    error_format: ErrorFormat,
    is_head: bool,
    is_grpc: bool,
    request_id: RequestId,
}

impl AnswerOptions {
    /// Sends an answer in the gateway's name, unless the client is gone. Returns its status and the size of
    /// its body.
    fn answer(&self, sender: &Sender, error: &Error) -> (u16, u64) {
        let Some(answer) = error.answer() else { return (0, 0) };
        if self.is_grpc {
            let head = response::grpc_answer(&answer, &self.request_id);
            let status = head.status().as_u16();
            // Fails only if the client is gone.
            let _ = sender.head(head, true);
            return (status, 0);
        }
        let (head, body) = response::answer(&answer, self.error_format, &self.request_id);
        let body = if self.is_head { String::new() } else { body };
        let sent = body.len() as u64;
        // Fails only if the client is gone.
        let _ = sender.answer(head, body);
        (answer.status, sent)
    }

    fn grpc_status(&self, error: &Error) -> Option<u16> {
        error.answer().filter(|_| self.is_grpc).map(|answer| answer.grpc_status())
    }
}
