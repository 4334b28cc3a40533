//! Forwards an HTTP/1.1 request, and decides how its connection continues.

use std::rc::Rc;
use std::time::Duration;

use mesh_wire::mesh::Refusal;

use super::body::Http1Body;
use super::connection::{Http1Connection, Next};
use super::refusal::Replied;
use super::request::RoutedRequest;
use super::sink::Http1Sink;
use crate::error::Error;
use crate::observe::Hop;
use crate::serve::exchange::{Exchange, ExchangeState, Finished, Outcome, Upgraded};
use crate::upstream::Transport;

pub enum Served {
    Next(Next),
    Tunnel(Box<Upgraded>),
}

impl<T: Transport + 'static> Http1Connection<'_, T> {
    pub async fn exchange(&mut self, routed: RoutedRequest) -> Served {
        let RoutedRequest { info, service, head, head_read } = routed;
        let worker = Rc::clone(&self.worker);
        let config = worker.shared.config_for(T::IS_PEER);
        let state = ExchangeState::new(config, head_read);
        if T::IS_PEER {
            state.hop.set(Some(Hop::In));
        }
        let sink = Http1Sink {
            state: &state,
            worker: &worker,
            counters: &service.counters,
            request: info,
            client: &self.client,
            head: worker.borrow_head(),
            status: 0,
            makes_chunks: false,
            keep_alive: false,
            asks_to_go: self.asks_to_go,
        };
        let pool = &worker.buffers;
        let body = Http1Body::new(&info, &config.limits, &self.client, &mut self.input, pool);
        let mut exchange = Exchange {
            worker: &worker,
            service: Rc::clone(&service),
            method: info.method,
            wants_tunnel: info.websocket,
            head,
            body,
            sink,
            state: &state,
            timer: self.timer,
        };
        let Outcome { result, timings } = exchange.run().await;
        let (request_read, keep_alive) = (exchange.body.is_read(), exchange.sink.keep_alive);
        worker.release_head(exchange.sink.head);
        self.answered = head_read.checked_add(Duration::from_nanos(timings.total));
        let draft = self.draft.take();
        let error = match result {
            Ok(finished) => {
                let ended = || state.request_end(timings, info.minor);
                worker.record(draft, &self.request_id, Some(&service), ended);
                let request_sent = state.request_sent.get();
                return match finished {
                    Finished::Upgraded(upgraded) => Served::Tunnel(upgraded),
                    Finished::Responded if keep_alive && request_sent => {
                        Served::Next(Next::Request)
                    }
                    Finished::Responded => Served::Next(self.after_last_response(request_sent)),
                };
            }
            Err(error) => error,
        };
        let ended = state.request_end(timings, info.minor);
        if ended.status > 0 {
            // The response is incomplete, and the client must be able to tell.
            self.client.reset_on_close();
            worker.record(draft, &self.request_id, Some(&service), || ended.failed(&error));
            return Served::Next(Next::Close);
        }
        let error = if T::IS_PEER && !state.checked_out.get() {
            // Nothing has reached an endpoint: another node may serve it.
            Error::Refused(Refusal::NotHere)
        } else {
            error
        };
        let Replied { next, status, sent } = self.reply(&error, Some(info), request_read).await;
        service.counters.answered(status, sent);
        let ended = ended.answered(status, sent).failed(&error);
        worker.record(draft, &self.request_id, Some(&service), || ended);
        Served::Next(next)
    }
}
