//! What hyper reads in the bytes that the client and the endpoint of the tests have read with `wire`:
//! a misreading that `wire` shares with the gateway shows as a difference. hyper's parser of heads is
//! httparse, which the gateway uses too; `wire` shares nothing with either of them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

use super::wire;

/// A request or a response without what only one of the readers tells.
#[derive(Default, PartialEq)]
pub struct Message {
    /// `GET /path HTTP/1.1` or `HTTP/1.1 200`.
    start: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    whole: bool,
}

/// Names in small letters, lines of one name in their order.
fn sorted<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn of_wire(fields: &wire::Fields) -> Vec<(String, Vec<u8>)> {
    sorted(fields.0.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
}

fn of_hyper(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    sorted(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}

fn status_line(version: Version, status: StatusCode) -> String {
    format!("{version:?} {}", status.as_u16())
}

impl From<&wire::Request> for Message {
    fn from(request: &wire::Request) -> Message {
        Message {
            start: request.line.clone(),
            fields: of_wire(&request.fields),
            body: request.body.clone(),
            trailers: of_wire(&request.trailers),
            whole: request.whole,
        }
    }
}

impl From<&wire::Response> for Message {
    fn from(response: &wire::Response) -> Message {
        let version = response.line.split(' ').next().unwrap_or_default();
        Message {
            start: format!("{version} {}", response.status),
            fields: of_wire(&response.fields),
            body: response.body.clone(),
            trailers: of_wire(&response.trailers),
            whole: response.whole,
        }
    }
}

impl Message {
    fn new(start: String, fields: &HeaderMap) -> Message {
        Message { start, fields: of_hyper(fields), ..Message::default() }
    }

    async fn read(&mut self, mut body: Incoming) {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return };
            match frame.into_data() {
                Ok(data) => self.body.extend_from_slice(&data),
                Err(frame) => {
                    self.trailers = frame.trailers_ref().map_or_else(Vec::new, of_hyper);
                }
            }
        }
        self.whole = true;
    }

    /// Of a message that breaks off, each reader may have taken a part of its own.
    fn same(&self, other: &Message) -> bool {
        let begins = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let torn = !self.whole && !other.whole && begins(&self.body, &other.body);
        self == other || (torn && (&self.start, &self.fields) == (&other.start, &other.fields))
    }

    fn describe(&self) -> String {
        let text = |fields: &[(String, Vec<u8>)]| -> Vec<String> {
            fields.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect()
        };
        let (fields, trailers) = (text(&self.fields), text(&self.trailers));
        let start = self.body[..self.body.len().min(200)].escape_ascii();
        format!(
            "{:?} {fields:?} body of {} bytes ({start}), trailers {trailers:?}, whole: {}",
            self.start,
            self.body.len(),
            self.whole
        )
    }
}

/// hyper reads up to 100 fields unless it is told of more.
fn most_fields(messages: &[Message]) -> usize {
    messages
        .iter()
        .map(|message| message.fields.len().max(message.trailers.len()))
        .max()
        .unwrap_or(0)
}

fn compare(wire: &[Message], hyper: &[Message]) -> Result<(), String> {
    let same = wire.len() == hyper.len() && wire.iter().zip(hyper).all(|(a, b)| a.same(b));
    let all = |messages: &[Message]| messages.iter().map(Message::describe).collect::<Vec<_>>();
    if same {
        return Ok(());
    }
    Err(format!("two readings: wire has {:#?}, hyper has {:#?}", all(wire), all(hyper)))
}

/// Whether hyper's client reads these responses, the interim ones and the final one of one request.
pub fn of_responses(raw: &[u8], to_head: bool, responses: &[wire::Response]) -> Result<(), String> {
    let wire: Vec<Message> = responses.iter().map(Message::from).collect();
    compare(&wire, &finish(read_responses(raw, to_head, most_fields(&wire)))?)
}

/// Whether hyper's server reads this request.
pub fn of_request(request: &wire::Request) -> Result<(), String> {
    // RFC 3986 has no place for these and hyper refuses them. The gateway passes targets on as they
    // came, which RFC 9112 section 3 leaves to it.
    if request.target.contains(['<', '>', '`']) {
        return Ok(());
    }
    let raw = [&request.head[..], &request.raw_body].concat();
    let wire = [request.into()];
    compare(&wire, &finish(read_requests(&raw, most_fields(&wire)))?)
}

async fn read_responses(
    raw: &[u8],
    to_head: bool,
    most_fields: usize,
) -> Result<Vec<Message>, String> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    let builder = builder.max_headers(most_fields);
    let handshake = builder.handshake(Input::new(raw, true)).await;
    let (mut requests, connection) = handshake.map_err(|error| error.to_string())?;
    let method = if to_head { Method::HEAD } else { Method::GET };
    let mut request = Request::builder().method(method).uri("/").body(Empty::<Bytes>::new());
    let request = request.as_mut().expect("a request");
    let interim = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&interim);
    hyper::ext::on_informational(request, move |head| {
        let mut message = Message::new(status_line(head.version(), head.status()), head.headers());
        message.whole = true;
        told.lock().expect("a lock").push(message);
    });
    let answer = async {
        let response = requests.send_request(std::mem::take(request)).await;
        drop(requests);
        let (head, body) =
            response.map_err(|error| format!("hyper's client: {error:?}"))?.into_parts();
        let mut message = Message::new(status_line(head.version, head.status), &head.headers);
        // Nothing of what follows a handshake is a body.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            message.whole = true;
        } else {
            message.read(body).await;
        }
        Ok::<_, String>(message)
    };
    let (message, ended) = tokio::join!(answer, connection.without_shutdown());
    let message = message?;
    let ended = ended.map_err(|error| format!("hyper's client, after a response: {error:?}"))?;
    let left = ended.read_buf.len() + ended.io.left.len();
    if left > 0 {
        return Err(format!("hyper's client has no use for {left} of {} bytes", raw.len()));
    }
    let mut all = std::mem::take(&mut *interim.lock().expect("a lock"));
    all.push(message);
    Ok(all)
}

async fn read_requests(raw: &[u8], most_fields: usize) -> Result<Vec<Message>, String> {
    let seen = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (head, body) = request.into_parts();
        let line = format!("{} {} {:?}", head.method, head.uri, head.version);
        let mut message = Message::new(line, &head.headers);
        message.read(body).await;
        seen.borrow_mut().push(message);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let connection = builder
        .max_headers(most_fields)
        .half_close(true)
        .serve_connection(Input::new(raw, false), service);
    // A connection may end anywhere: that is for the requests to show.
    if let Err(error) = connection.await
        && error.is_parse()
    {
        return Err(format!("hyper's server: {error:?}"));
    }
    Ok(seen.take())
}

/// Everything is in memory, so what is not ready now is ready at the next poll.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000_000 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("hyper waits for something that is not there");
}

/// Yields what was received and then the end, and accepts everything that hyper writes.
struct Input<'a> {
    left: &'a [u8],
    /// Gives nothing before it is asked, since hyper's client does not expect it.
    held: bool,
}

impl<'a> Input<'a> {
    fn new(raw: &'a [u8], held: bool) -> Input<'a> {
        Input { left: raw, held }
    }
}

impl Read for Input<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held {
            return Poll::Pending;
        }
        let (now, left) = self.left.split_at(self.left.len().min(into.remaining()));
        into.put_slice(now);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl Write for Input<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held = false;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
