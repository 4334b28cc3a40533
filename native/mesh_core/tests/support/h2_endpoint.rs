//! Endpoints that speak HTTP/2: one that is h2's server, and one that sends whatever frames a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use mesh_core::UpstreamAddr;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::PATIENCE;
use super::frames::{Frame, PREFACE, SETTINGS, frame};

pub struct H2Endpoint {
    pub address: UpstreamAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    go_away: Notify,
    close: Notify,
    stop: Notify,
}

impl H2Endpoint {
    pub fn start<F, R>(answer: F) -> H2Endpoint
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + 'static,
    {
        H2Endpoint::with(Builder::new(), answer)
    }

    /// Answers in a thread of its own until it is dropped.
    pub fn with<F, R>(settings: Builder, answer: F) -> H2Endpoint
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + 'static,
    {
        let listener = StdListener::bind(("127.0.0.1", 0)).expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = UpstreamAddr::Tcp(listener.local_addr().expect("address")).http2();
        let shared = Arc::<Shared>::default();
        let endpoint = H2Endpoint { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let stopped = Arc::clone(&shared);
            LocalSet::new().block_on(&runtime.expect("a runtime"), async {
                let serve = async move {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    while let Ok((socket, _)) = listener.accept().await {
                        shared.accepted.fetch_add(1, Ordering::Relaxed);
                        let (settings, answer) = (settings.clone(), answer.clone());
                        spawn_local(connection(socket, settings, answer, Arc::clone(&shared)));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    () = stopped.stop.notified() => {}
                }
            });
        });
        endpoint
    }

    /// Connections up to now.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Lets all connections finish their streams, but accept no more.
    pub fn go_away(&self) {
        self.shared.go_away.notify_waiters();
    }

    /// Closes all connections without a word.
    pub fn close(&self) {
        self.shared.close.notify_waiters();
    }
}

impl Drop for H2Endpoint {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
    }
}

async fn connection<F, R>(
    socket: tokio::net::TcpStream,
    settings: Builder,
    answer: F,
    shared: Arc<Shared>,
) where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    socket.set_nodelay(true).expect("nodelay");
    shared.open.fetch_add(1, Ordering::Relaxed);
    let serve = async {
        // How connections end is for the tests to see at the client.
        let Ok(mut connection) = settings.handshake::<_, Bytes>(socket).await else { return };
        let mut go_away = std::pin::pin!(shared.go_away.notified());
        let mut is_going = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => drop(spawn_local(answer(request, respond))),
                    _ => return,
                },
                () = go_away.as_mut(), if !is_going => {
                    is_going = true;
                    connection.graceful_shutdown();
                }
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = shared.close.notified() => {}
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

/// Reads a request's body to its end.
pub async fn body(stream: &mut RecvStream) -> Option<(Vec<u8>, HeaderMap)> {
    super::http2::read(stream).await.ok()
}

pub fn response(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut builder = Response::builder().status(status);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("a response")
}

pub fn trailers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (http::HeaderName::from_static(name), value.parse().expect("a value"))
    };
    fields.iter().map(field).collect()
}

/// Sends a response as gRPC does: a head, a message, trailers.
pub fn grpc(mut respond: SendResponse<Bytes>, message: impl Into<Bytes>) {
    let head = response(200, &[("content-type", "application/grpc")]);
    // Fails only if the client is gone.
    let send = |stream: Result<SendStream<Bytes>, h2::Error>| {
        let mut stream = stream?;
        stream.send_data(message.into(), false)?;
        stream.send_trailers(trailers(&[("grpc-status", "0"), ("grpc-message", "fine")]))
    };
    let _ = send(respond.send_response(head, false));
}

/// Echoes method, path and body, as gRPC sends it.
pub async fn echo(request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, mut frames) = request.into_parts();
    let Some((body, _)) = body(&mut frames).await else { return };
    let start = format!("{} {}\n", head.method, head.uri.path());
    grpc(respond, [start.as_bytes(), &body].concat());
}

/// A connection that sends and reads frames.
pub struct RawConnection(pub StdStream);

impl RawConnection {
    /// Reads the preface, and sends settings.
    pub fn begin(&mut self, settings: &[u8]) {
        let mut preface = [0; PREFACE.len()];
        self.0.read_exact(&mut preface).expect("a preface");
        assert_eq!(preface, PREFACE);
        self.send(SETTINGS, 0, 0, settings);
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.write_all(&frame(kind, flags, stream, payload)).expect("send");
    }

    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; size as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], stream, payload })
    }

    pub fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().expect("no such frame");
            if frame.kind == kind {
                return frame;
            }
        }
    }
}

/// An endpoint whose connections do one after another what `serve` says; it gets their number.
pub struct RawEndpoint {
    pub address: UpstreamAddr,
    at: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RawEndpoint {
    pub fn start(mut serve: impl FnMut(usize, RawConnection) + Send + 'static) -> RawEndpoint {
        let listener = StdListener::bind(("127.0.0.1", 0)).expect("bind");
        let at = listener.local_addr().expect("address");
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                let (stream, _) = listener.accept().expect("accept");
                stream.set_nodelay(true).expect("nodelay");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                // The test's end connects and says so.
                let mut byte = [0];
                if stream.peek(&mut byte).is_ok_and(|n| n == 1 && byte[0] == b'.') {
                    return;
                }
                serve(number, RawConnection(stream));
            }
        });
        RawEndpoint { address: UpstreamAddr::Tcp(at).http2(), at, thread: Some(thread) }
    }
}

impl Drop for RawEndpoint {
    fn drop(&mut self) {
        if let Ok(mut end) = StdStream::connect_timeout(&self.at, Duration::from_secs(1)) {
            let _ = end.write_all(b".");
        }
        let joined = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            joined.expect("once").expect("the endpoint panicked");
        }
    }
}
