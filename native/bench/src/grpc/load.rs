//! The load of gRPC scenarios: calls that follow one another on every stream of every connection.
//!
//!     --connections 8 --streams 8             on each connection as many calls at a time
//!     --messages 1 --message 1024             what a call sends
//!     --answers 1 --answer 1024               what it has to be answered with
//!     --echo                                  one call a stream: a message is sent when its echo is there
//!     --requests N                            as many calls, however long they take
//!
//! What is counted is messages: of the answer, of the request if only it has many, and of the echo.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use h2::client::{self, SendRequest};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::messages::{Messages, message};
use super::{ECHO, SERVICE, WINDOW};
use crate::args::Args;
use crate::histogram::Histogram;
use crate::process;

/// More failures than this and there is nothing to measure.
const MOST_ERRORS: u64 = 1000;
/// For a number of calls.
const PATIENCE: Duration = Duration::from_secs(300);

struct Run {
    request: Request<()>,
    message: Bytes,
    messages: u64,
    answers: u64,
    answer: usize,
    echo: bool,
    /// Calls that may still begin.
    left: Cell<u64>,
    open: Cell<u64>,
    measuring: Cell<bool>,
    done: Cell<u64>,
    latencies: RefCell<Histogram>,
    errors: Cell<u64>,
    last_error: RefCell<String>,
    over: Notify,
}

pub fn run(args: &Args) -> io::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(args))
}

async fn measure(args: &Args) -> io::Result<Value> {
    let run = Rc::new(Run::new(args)?);
    let address: SocketAddr =
        format!("127.0.0.1:{}", args.word(1)).parse().map_err(io::Error::other)?;
    let seconds = |name, default| Duration::from_secs_f64(args.number(name, default));
    let (warmup, mut time) = (seconds("warmup", 0.5), seconds("seconds", 2.0));
    if args.has("requests") {
        time = PATIENCE;
    }
    let pids = args.pids();
    let mut connections = Vec::new();
    for _ in 0..args.number("connections", 1usize) {
        connections.push(connect(address).await?);
    }
    // Before the first call, or those that are counted have begun without being measured.
    let mut before = process::usage(&pids);
    let mut began = Instant::now();
    run.measuring.set(warmup.is_zero());
    for connection in connections {
        for _ in 0..args.number("streams", 64usize) {
            spawn_local(Rc::clone(&run).calls(connection.clone()));
        }
    }
    if !warmup.is_zero() {
        let _ = timeout(warmup, run.over.notified()).await;
        run.measuring.set(true);
        before = process::usage(&pids);
        began = Instant::now();
    }
    let in_time = timeout(time, run.over.notified()).await.is_ok();
    let after = process::usage(&pids);
    let elapsed = began.elapsed().as_secs_f64();
    if run.errors.get() > MOST_ERRORS {
        return Err(io::Error::other(format!("too many errors: {}", run.last_error.borrow())));
    }
    if !in_time && args.has("requests") {
        return Err(io::Error::other("the calls did not end"));
    }
    run.measuring.set(false);
    let done = run.done.get();
    let each = |after: u64, before: u64| (after - before) as f64 / 1000.0 / done.max(1) as f64;
    let (resident, anonymous) = process::memory(&pids);
    let latencies = run.latencies.borrow();
    Ok(json!({
        "requests": done,
        "rate": done as f64 / elapsed,
        "cpu_us": each(after.cpu, before.cpu),
        "user_us": each(after.user, before.user),
        "system_us": each(after.system, before.system),
        "busy": (after.cpu - before.cpu) as f64 / 1e9 / elapsed,
        "p50_us": latencies.percentile(50.0),
        "p99_us": latencies.percentile(99.0),
        "p999_us": latencies.percentile(99.9),
        "errors": run.errors.get(),
        "last_error": *run.last_error.borrow(),
        "resident": resident,
        "anonymous": anonymous,
        "peak": process::peak(&pids),
    }))
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (requests, connection) = client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(socket)
        .await
        .map_err(io::Error::other)?;
    spawn_local(connection);
    Ok(requests)
}

impl Run {
    fn new(args: &Args) -> io::Result<Run> {
        let echo = args.has("echo");
        let answers = args.number("answers", 1);
        let size = args.number("message", 1024);
        let answer = if echo { size } else { args.number("answer", 1024) };
        let method = if echo { ECHO.to_string() } else { format!("{answers}x{answer}") };
        Ok(Run {
            request: request(args, &method)?,
            message: message(size),
            messages: args.number("messages", 1),
            answers,
            answer,
            echo,
            left: Cell::new(args.number("requests", u64::MAX)),
            open: Cell::new(0),
            measuring: Cell::new(false),
            done: Cell::new(0),
            latencies: RefCell::new(Histogram::new()),
            errors: Cell::new(0),
            last_error: RefCell::default(),
            over: Notify::new(),
        })
    }

    async fn calls(self: Rc<Run>, mut connection: SendRequest<Bytes>) {
        while self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            self.open.set(self.open.get() + 1);
            let result = if self.echo {
                self.echo(&mut connection).await
            } else {
                self.call(&mut connection).await
            };
            if let Err(error) = result {
                self.errors.set(self.errors.get() + 1);
                *self.last_error.borrow_mut() = error.to_string();
                if self.errors.get() > MOST_ERRORS {
                    self.over.notify_one();
                    return;
                }
                // A connection that is lost fails at once, again and again.
                sleep(Duration::from_millis(1)).await;
            }
            self.open.set(self.open.get() - 1);
            if self.left.get() == 0 && self.open.get() == 0 {
                self.over.notify_one();
            }
        }
    }

    async fn call(&self, connection: &mut SendRequest<Bytes>) -> io::Result<()> {
        let began = Instant::now();
        let mut ready = connection.clone().ready().await.map_err(io::Error::other)?;
        let (response, mut stream) =
            ready.send_request(self.request.clone(), false).map_err(io::Error::other)?;
        for number in 1..=self.messages {
            // They are one message in memory, and leave as the windows allow.
            let last = number == self.messages;
            stream.send_data(self.message.clone(), last).map_err(io::Error::other)?;
        }
        let response = response.await.map_err(io::Error::other)?;
        let (head, mut body) = response.into_parts();
        check_head(&Response::from_parts(head, ()))?;
        let mut messages = Messages::new(self.answer);
        let mut come = 0;
        while let Some(bytes) = body.data().await {
            let bytes = bytes.map_err(io::Error::other)?;
            body.flow_control().release_capacity(bytes.len()).map_err(io::Error::other)?;
            let ended = messages.take(&bytes)?;
            come += ended;
            if self.answers > 1 {
                self.count(ended);
            }
        }
        let trailers = body.trailers().await.map_err(io::Error::other)?;
        check_status(&trailers.unwrap_or_default())?;
        if come != self.answers || !messages.is_between() {
            return Err(io::Error::other(format!("{come} messages in place of {}", self.answers)));
        }
        if self.answers == 1 {
            self.count(self.messages);
        }
        self.took(began);
        Ok(())
    }

    /// As long as the load lasts.
    async fn echo(&self, connection: &mut SendRequest<Bytes>) -> io::Result<()> {
        let mut ready = connection.clone().ready().await.map_err(io::Error::other)?;
        let (response, mut stream) =
            ready.send_request(self.request.clone(), false).map_err(io::Error::other)?;
        let mut began = Instant::now();
        // A server may wait for the first message with its head.
        stream.send_data(self.message.clone(), false).map_err(io::Error::other)?;
        let (head, mut body) = response.await.map_err(io::Error::other)?.into_parts();
        check_head(&Response::from_parts(head, ()))?;
        let mut messages = Messages::new(self.answer);
        while let Some(bytes) = body.data().await {
            let bytes = bytes.map_err(io::Error::other)?;
            body.flow_control().release_capacity(bytes.len()).map_err(io::Error::other)?;
            if messages.take(&bytes)? > 0 {
                self.count(1);
                self.took(began);
                began = Instant::now();
                stream.send_data(self.message.clone(), false).map_err(io::Error::other)?;
            }
        }
        Err(io::Error::other("the echo ended"))
    }

    fn count(&self, messages: u64) {
        if self.measuring.get() {
            self.done.set(self.done.get() + messages);
        }
    }

    fn took(&self, began: Instant) {
        if self.measuring.get() {
            self.latencies.borrow_mut().add(began.elapsed().as_nanos() as u64);
        }
    }
}

/// The fields of a client in Go, and a token.
fn request(args: &Args, method: &str) -> io::Result<Request<()>> {
    let host = args.text("host", "bench.local");
    let mut request = Request::post(format!("http://{host}{SERVICE}{method}"))
        .body(())
        .map_err(io::Error::other)?;
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(USER_AGENT, HeaderValue::from_static("grpc-go/1.65.0"));
    fields.insert(TE, HeaderValue::from_static("trailers"));
    fields.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
    fields.insert(
        "authorization",
        HeaderValue::from_static(
            "Bearer SFMyNTY.g3QAAAABbQAAAAtfY3NyZl90b2tlbm0AAAAYtZWXb0sRlPVtAxP1",
        ),
    );
    Ok(request)
}

fn check_head(head: &Response<()>) -> io::Result<()> {
    if head.status() != 200 {
        return Err(io::Error::other(format!("HTTP status {}", head.status())));
    }
    // A response without a body has its status in the head.
    if head.headers().contains_key("grpc-status") {
        return check_status(head.headers());
    }
    Ok(())
}

fn check_status(fields: &HeaderMap) -> io::Result<()> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        status => {
            let message = text("grpc-message").unwrap_or_default();
            Err(io::Error::other(format!("grpc-status {}: {message}", status.unwrap_or("missing"))))
        }
    }
}
