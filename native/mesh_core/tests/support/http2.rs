//! A client of HTTP/2 that behaves.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub struct Peer {
    pub requests: SendRequest<Bytes>,
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).await.expect("cannot connect");
        Peer::over(socket).await
    }

    pub async fn over(socket: TcpStream) -> Peer {
        let (requests, connection) = h2::client::handshake(socket).await.expect("no handshake");
        let connection = tokio::spawn(connection);
        Peer { requests: requests.ready().await.expect("not ready"), connection }
    }

    /// Begins a request, whose body is to follow unless `end`.
    pub async fn begin(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        poll_fn(|cx| self.requests.poll_ready(cx)).await.expect("not ready");
        self.requests.send_request(request, end).expect("cannot send")
    }

    pub async fn ask(&mut self, request: Request<()>) -> Answer {
        let (response, _) = self.begin(request, true).await;
        answer(response).await.expect("no answer")
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask(get("a.test", path)).await
    }

    /// Waits for the end of the connection.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.requests);
        self.connection.await.expect("the connection panicked")
    }
}

pub fn get(authority: &str, path: &str) -> Request<()> {
    request(Method::GET, authority, path, &[])
}

pub fn request(
    method: Method,
    authority: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Request<()> {
    let mut builder = Request::builder().method(method).uri(format!("http://{authority}{path}"));
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("a request")
}

pub async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let (bytes, trailers) = read(&mut body).await?;
    Ok(Answer { status: head.status, headers: head.headers, body: bytes, trailers })
}

/// Reads a body to its end.
pub async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((bytes, trailers))
}

/// Sends all of `data`, no faster than it is taken.
pub async fn send(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => panic!("the stream is closed"),
        };
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, end && data.is_empty())?;
    }
    Ok(())
}
