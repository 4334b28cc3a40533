//! hyper on both sides of the gateway: its server as an endpoint, its client for HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::UpstreamAddr;
use sha1_smol::Sha1;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// A body that is sent.
pub type Outgoing = BoxBody<Bytes, io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Outgoing {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body without a known length, part by part.
pub fn streamed() -> (Sender<Bytes, io::Error>, Outgoing) {
    let (sender, body) = Channel::new(1);
    (sender, body.boxed())
}

pub struct HyperEndpoint {
    pub address: UpstreamAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<Notify>,
}

impl HyperEndpoint {
    /// Answers in a thread of its own until it is dropped.
    pub fn start<F, R>(answer: F) -> HyperEndpoint
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Outgoing>> + 'static,
    {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        socket.listen(4096).expect("listen");
        socket.set_nonblocking(true).expect("nonblocking");
        let listener: std::net::TcpListener = socket.into();
        let address = UpstreamAddr::Tcp(listener.local_addr().expect("address"));
        let (accepted, stop) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let endpoint = HyperEndpoint { address, accepted: accepted.clone(), stop: stop.clone() };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let serve = async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((socket, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    spawn_local(serve(socket, answer.clone()));
                }
            };
            LocalSet::new().block_on(&runtime.expect("a runtime"), async {
                tokio::select! {
                    () = serve => {}
                    () = stop.notified() => {}
                }
            });
        });
        endpoint
    }

    /// Connections up to now.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for HyperEndpoint {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

async fn serve<F, R>(socket: TcpStream, answer: F)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Outgoing>>,
{
    socket.set_nodelay(true).expect("nodelay");
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let server = hyper::server::conn::http1::Builder::new();
    let connection = server.serve_connection(TokioIo::new(socket), service);
    // How connections end is for the tests to see at the client.
    let _ = connection.with_upgrades().await;
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
pub fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.digest().bytes())
}

/// Answers a WebSocket handshake and goes on with the connection.
pub fn switch<R>(
    mut request: Request<Incoming>,
    goes_on: impl FnOnce(TokioIo<Upgraded>) -> R + 'static,
) -> Response<Outgoing>
where
    R: Future<Output = ()>,
{
    let accept = accept(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    spawn_local(async move { goes_on(TokioIo::new(upgrade.await.expect("an upgrade"))).await });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(full(""))
        .expect("a response")
}

pub enum HyperClient {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

impl HyperClient {
    pub async fn connect(version: Version, address: SocketAddr) -> HyperClient {
        let socket = TcpStream::connect(address).await.expect("cannot connect");
        socket.set_nodelay(true).expect("nodelay");
        let socket = TokioIo::new(socket);
        if version == Version::HTTP_2 {
            let handshake = http2::handshake(TokioExecutor::new(), socket).await;
            let (requests, connection) = handshake.expect("a handshake");
            tokio::spawn(connection);
            HyperClient::Http2(requests)
        } else {
            let (requests, connection) = http1::handshake(socket).await.expect("a handshake");
            tokio::spawn(connection.with_upgrades());
            HyperClient::Http1(requests)
        }
    }

    /// Asks `a.test` for a request whose URI is a path.
    pub async fn ask(
        &mut self,
        mut request: Request<Outgoing>,
    ) -> hyper::Result<Response<Incoming>> {
        match self {
            HyperClient::Http1(requests) => {
                request.headers_mut().insert(HOST, HeaderValue::from_static("a.test"));
                requests.ready().await?;
                requests.send_request(request).await
            }
            HyperClient::Http2(requests) => {
                let uri: Uri = format!("http://a.test{}", request.uri()).parse().expect("a URI");
                *request.uri_mut() = uri;
                requests.ready().await?;
                requests.send_request(request).await
            }
        }
    }

    pub async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.ask(Request::get(path).body(full("")).expect("a request")).await
    }
}
