//! The same forwarding on hyper's server and client: one thread as a worker, kept upstream
//! connections, bodies passed on as they come, WebSockets tunnelled. Like `least` it has one route
//! and no limits, deadlines, counters or checks of its own: what it costs beyond `least` is what
//! hyper's HTTP/1.1 costs, to be held against the gateway's own.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE};
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{LocalSet, spawn_local};

use crate::args::Args;

type Failure = Box<dyn Error + Send + Sync>;

static FORWARDED: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
];
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

struct Shared {
    upstream: String,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

pub fn run(args: &Args) -> io::Result<()> {
    let address: SocketAddr =
        format!("127.0.0.1:{}", args.word(0)).parse().map_err(io::Error::other)?;
    let shared = Rc::new(Shared { upstream: args.word(1).to_string(), idle: RefCell::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (client, peer) = listener.accept().await?;
            client.set_nodelay(true)?;
            let shared = Rc::clone(&shared);
            spawn_local(async move {
                let peer = HeaderValue::try_from(peer.ip().to_string())?;
                let service = service_fn(|request| forward(request, &peer, &shared));
                let server = hyper::server::conn::http1::Builder::new();
                // Clients going away is how every connection ends.
                let _ =
                    server.serve_connection(TokioIo::new(client), service).with_upgrades().await;
                Ok::<_, Failure>(())
            });
        }
    })
}

async fn forward(
    mut request: Request<Incoming>,
    peer: &HeaderValue,
    shared: &Rc<Shared>,
) -> Result<Response<Kept>, Failure> {
    let protocol = request.headers().get(UPGRADE).cloned();
    let client = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    let fields = request.headers_mut();
    remove_hop_by_hop(fields);
    let host = fields.get(HOST).cloned().ok_or("no Host")?;
    let said =
        [peer.clone(), HeaderValue::from_static("http"), host, HeaderValue::from_static("80")];
    for (name, value) in FORWARDED.iter().zip(said) {
        fields.insert(name, value);
    }
    put_upgrade(fields, protocol.clone());
    let mut upstream = shared.checkout().await?;
    let mut response = upstream.send_request(request).await?;
    remove_hop_by_hop(response.headers_mut());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        spawn_local(tunnel(client, hyper::upgrade::on(&mut response)));
        put_upgrade(response.headers_mut(), protocol);
    }
    Ok(response.map(|body| Kept {
        body,
        ended: false,
        upstream: Some(upstream),
        shared: Rc::clone(shared),
    }))
}

fn remove_hop_by_hop(fields: &mut HeaderMap) {
    if let Some(named) = fields.remove(CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',') {
            fields.remove(name.trim());
        }
    }
    for name in [&KEEP_ALIVE, &TE, &UPGRADE] {
        fields.remove(name);
    }
}

fn put_upgrade(fields: &mut HeaderMap, protocol: Option<HeaderValue>) {
    if let Some(protocol) = protocol {
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(UPGRADE, protocol);
    }
}

async fn tunnel(client: OnUpgrade, upstream: OnUpgrade) -> Result<(), Failure> {
    let mut client = TokioIo::new(client.await?);
    let mut upstream = TokioIo::new(upstream.await?);
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

impl Shared {
    async fn checkout(&self) -> Result<SendRequest<Incoming>, Failure> {
        loop {
            let Some(mut kept) = self.idle.borrow_mut().pop() else { break };
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        if let Some(path) = self.upstream.strip_prefix("unix:") {
            return open(UnixStream::connect(path).await?).await;
        }
        let socket = TcpStream::connect(&self.upstream).await?;
        socket.set_nodelay(true)?;
        open(socket).await
    }
}

async fn open<S>(socket: S) -> Result<SendRequest<Incoming>, Failure>
where
    TokioIo<S>: Read + Write + Unpin + Send + 'static,
{
    let (requests, connection) = handshake(TokioIo::new(socket)).await?;
    spawn_local(connection.with_upgrades());
    Ok(requests)
}

/// A response's body. With its end the connection that it came on is idle.
struct Kept {
    body: Incoming,
    ended: bool,
    upstream: Option<SendRequest<Incoming>>,
    shared: Rc<Shared>,
}

impl Body for Kept {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let Some(upstream) = self.upstream.take()
        {
            self.shared.idle.borrow_mut().push(upstream);
        }
    }
}
