//! Sends HTTP/1.1 responses to HTTP/2 clients, read from the endpoint no faster than the client accepts them.

use std::task::{Context, Poll};

use http::{Response, StatusCode, header};
use mesh_wire::chunked::Output;
use mesh_wire::response::{ResponseHead, ResponseInfo};

use super::response;
use super::sender::Sender;
use super::websocket::Key;
use crate::error::Error;
use crate::observe::ServiceCounters;
use crate::serve::exchange::{ExchangeState, Part, ResponseSink};

pub struct H2Sink<'a> {
    pub state: &'a ExchangeState,
    pub counters: &'a ServiceCounters,
    pub sender: &'a Sender,
    pub websocket: Option<Key>,
    /// The response has a gRPC status, in its trailers or in its head.
    pub is_grpc: bool,
    /// The head says that the response is one of gRPC, whose end may be an error.
    pub may_end_in_error: bool,
    /// The head, until more of the response is known. Before it is sent, the client can still be told that
    /// the endpoint failed.
    pub head: Option<Response<()>>,
}

impl ResponseSink for H2Sink<'_> {
    const QUEUES: bool = true;

    fn head(&mut self, head: &ResponseHead<'_, '_>) -> Result<(), Error> {
        let mut response = response::head(head, self.state.server_timing())?;
        match (head.info.status, &self.websocket) {
            (101, Some(key)) => switch(key, head.info, &mut response)?,
            (101, None) => {
                return Err(Error::BadResponse("it switches to a protocol that was not requested"));
            }
            // RFC 8441 section 5: the client would take it for a WebSocket.
            (200..=299, Some(_)) => {
                return Err(Error::BadResponse(
                    "it accepts a WebSocket without switching protocols",
                ));
            }
            _ => {}
        }
        if self.is_grpc {
            self.state.grpc_status.set(response::grpc_status(response.headers()));
            self.may_end_in_error = response::may_end_in_error(&response);
        }
        self.head = Some(response);
        Ok(())
    }

    async fn interim(&mut self) -> Result<(), Error> {
        self.head.take().map_or(Ok(()), |head| self.sender.send_interim(head))
    }

    async fn part(&mut self, data: &[u8], part: Part<'_>) -> Result<(), Error> {
        let mut trailers = None;
        let end = match part {
            Part::More => false,
            Part::Last => true,
            Part::LastChunk(decoder) => {
                trailers = Some(response::trailers(decoder)?).filter(|all| !all.is_empty());
                trailers.is_none()
            }
        };
        let head_ends = end && data.is_empty() && self.head.is_some();
        self.send_head(head_ends)?;
        if !head_ends && (end || !data.is_empty()) {
            self.sender.data(data, end, &self.state.down).await?;
            self.state.stopwatch.wrote();
        }
        self.state.sent(self.counters, data.len());
        let Some(trailers) = trailers else { return Ok(()) };
        if self.is_grpc {
            self.state.grpc_status.set(response::grpc_status(&trailers));
        }
        self.sender.trailers(trailers)
    }

    fn output(&self) -> Output {
        Output::Data
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender.poll_room(cx, 1).map_ok(drop)
    }
}

impl H2Sink<'_> {
    fn send_head(&mut self, end: bool) -> Result<(), Error> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let status = head.status().as_u16();
        self.sender.head(head, end)?;
        self.state.response_started.set(Some(status));
        self.state.stopwatch.wrote();
        Ok(())
    }
}

/// Turns an endpoint's 101 into a 200 (RFC 8441 section 5).
fn switch(key: &Key, info: ResponseInfo, response: &mut Response<()>) -> Result<(), Error> {
    // RFC 6455 section 4.1: a WebSocket needs all three.
    let accept = response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    let accepted = accept.is_some_and(|accept| key.is_accepted_by(accept.as_bytes()));
    if !info.websocket || !accepted {
        return Err(Error::BadResponse("it switches to a protocol that was not requested"));
    }
    *response.status_mut() = StatusCode::OK;
    Ok(())
}
