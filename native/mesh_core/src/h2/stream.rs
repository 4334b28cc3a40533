//! One stream from its request to its end, with what is counted and what the client is told.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Method, Request};
use tokio::time::Instant;

use super::client::Client;
use super::connection::Running;
use super::exchange::{Exchange, Upgraded};
use super::request::{self, Accepted};
use super::{names, response, tunnel};
use crate::account::{Ended, InFlight};
use crate::error::Error;
use crate::exchange::State;
use crate::http1::request::BodyLength;
use crate::ids::RequestId;
use crate::observe::Draft;
use crate::reply::Prefer;

pub async fn serve(running: Running, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let session = Rc::clone(&running.session);
    let (parts, body) = request.into_parts();
    let client = Client::new(respond, &session.queue);
    let manner = Manner {
        prefer: names::prefers(&parts),
        is_head: parts.method == Method::HEAD,
        request_id: names::request_id(&session.worker, &parts),
    };
    let ended = body.is_end_stream();
    let head_read = Instant::now();
    let worker = &session.worker;
    let traceparent = names::new_trace(worker, &parts);
    let head = || names::head(&parts, traceparent.as_ref());
    let draft = worker.draft(&session.peer, head_read, head);
    let ids = (&manner.request_id, traceparent);
    let accepted = request::accept(&session, &parts, ids, ended, head_read);
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            worker.refused_request(&error);
            let (status, sent) = manner.answer(&client, &error);
            let ended = Ended { minor: 2, ..Ended::default() }.answered(status, sent);
            worker.record_refusal(draft, &manner.request_id, &error, ended);
            return;
        }
    };
    drop(parts);
    let exchange = exchange(&running, &client, &manner, accepted, body, draft);
    let Some(upgraded) = exchange.await else { return };
    running.becomes_tunnel();
    let mut tunnel = pin!(tunnel::run(&session.worker, &client, upgraded));
    poll_fn(|cx| match client.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => tunnel.as_mut().poll(cx),
    })
    .await;
}

/// Forwards a request. What comes back is a tunnel, if it became one.
async fn exchange(
    running: &Running,
    client: &Client,
    manner: &Manner,
    accepted: Accepted,
    body: RecvStream,
    draft: Option<Draft>,
) -> Option<Upgraded> {
    let session = &running.session;
    let service = Rc::clone(&accepted.service);
    let counters = &service.counters;
    let in_flight = InFlight::new(&service, accepted.method);
    let config = &session.worker.shared.config;
    let state = State::new(config, accepted.body == BodyLength::None, accepted.head_read);
    let exchange = Exchange { worker: &session.worker, client, body, accepted, state: &state };
    let result = exchange.run().await;
    let mut ended = Ended::of(&state, 2);
    ended.took.record(&counters.latency);
    drop(in_flight);
    let started = ended.status > 0;
    if started {
        counters.response(ended.status);
    }
    let record = |ended| session.worker.record(draft, &manner.request_id, Some(&service), ended);
    let error = match result {
        Ok(finished) => {
            record(ended);
            session.judge(true);
            return finished.tunnel;
        }
        Err(error) => error,
    };
    session.worker.failed(&service, &error);
    let left = matches!(error, Error::ClientGone | Error::ReaderTimeout);
    session.judge(!left);
    if started {
        client.reset(if left { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    } else {
        let (status, sent) = manner.answer(client, &error);
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
    fn answer(&self, client: &Client, error: &Error) -> (u16, u64) {
        let Some(answer) = error.answer() else { return (0, 0) };
        let (head, body) = response::answer(&answer, self.prefer, &self.request_id);
        let body = if self.is_head { String::new() } else { body };
        let sent = body.len() as u64;
        // Fails only when nobody is there any more.
        let _ = client.answer(head, body);
        (answer.status, sent)
    }
}
