//! A server of HTTP/2 that answers as a scripted endpoint says: it passes each request to the endpoint in HTTP/1.1,
//! over a socket of its own, and what the endpoint answers back in HTTP/2.
//!
//! What has no form in HTTP/2 (a head that is malformed, chunks that are none, a connection that breaks off) resets the
//! stream. A body that ends short of its length does so here, too: RFC 9113 section 8.1.1 has a name for that.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use mesh_core::UpstreamAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::endpoint::Endpoint;
use super::h2_endpoint::H2Endpoint;
use super::wire::{self, Fields, Length};

pub struct Front {
    endpoint: H2Endpoint,
    running: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
}

/// Nothing more can be said.
struct Over;

impl<E: std::fmt::Debug> From<E> for Over {
    fn from(_: E) -> Over {
        Over
    }
}

impl Front {
    /// Answers as the endpoint says, which must be on TCP.
    pub fn of(endpoint: &Endpoint) -> Front {
        let port = endpoint.port();
        let (running, streams) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, counts) = (Arc::clone(&running), Arc::clone(&streams));
        let endpoint = H2Endpoint::start(move |request, respond| {
            counts.fetch_add(1, Ordering::SeqCst);
            counted.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            async move {
                serve(request, respond, port).await;
                counted.fetch_sub(1, Ordering::SeqCst);
            }
        });
        Front { endpoint, running, streams }
    }

    pub fn address(&self) -> UpstreamAddr {
        self.endpoint.address.clone()
    }

    /// All streams have been answered, or have failed.
    pub fn is_idle(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }

    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }
}

async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, port: u16) {
    let mut stream = None;
    let is_head = request.method() == http::Method::HEAD;
    let answer = async {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (reader, writer) = socket.into_split();
        let mut down = Down { reader, buffer: Vec::new() };
        let upload = upload(request, writer);
        let response = down.pass(&mut respond, &mut stream, is_head);
        let (mut upload, mut response) = (std::pin::pin!(upload), std::pin::pin!(response));
        let mut uploading = true;
        // The response may come first, and what it ends ends the upload, too.
        loop {
            tokio::select! {
                sent = &mut upload, if uploading => {
                    uploading = false;
                    sent?;
                }
                passed = &mut response => return passed,
            }
        }
    };
    if answer.await.is_err() {
        match &mut stream {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// Keeps the writing half until the response has ended: an endpoint takes its end for the client's.
async fn upload(request: Request<RecvStream>, mut socket: OwnedWriteHalf) -> Result<(), Over> {
    let (head, mut frames) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let host = head.uri.authority().map_or("", |host| host.as_str());
    let mut text = format!("{} {target} HTTP/1.1\r\nhost: {host}\r\n", head.method).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let is_chunked = !frames.is_end_stream() && !head.headers.contains_key("content-length");
    if is_chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    text.extend_from_slice(b"\r\n");
    socket.write_all(&text).await?;
    while let Some(data) = frames.data().await {
        let data = data?;
        if is_chunked && !data.is_empty() {
            let size = format!("{:x}\r\n", data.len());
            socket.write_all(&[size.as_bytes(), &data, b"\r\n"].concat()).await?;
        } else {
            socket.write_all(&data).await?;
        }
        frames.flow_control().release_capacity(data.len())?;
    }
    let trailers = frames.trailers().await?;
    if is_chunked {
        let mut end = b"0\r\n".to_vec();
        for (name, value) in trailers.iter().flatten() {
            end.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        end.extend_from_slice(b"\r\n");
        socket.write_all(&end).await?;
    }
    // A stream that is reset later must reach the endpoint, too.
    std::future::pending::<()>().await;
    drop(socket);
    Ok(())
}

struct Down {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Down {
    /// Reads more. `false` at the end, and an error if the stream is reset first.
    async fn fill(
        &mut self,
        mut gone: impl FnMut(&mut std::task::Context<'_>) -> bool,
    ) -> Result<bool, Over> {
        let mut piece = vec![0; 64 * 1024];
        let gone =
            poll_fn(
                |cx| if gone(cx) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending },
            );
        let n = tokio::select! {
            n = self.reader.read(&mut piece) => n?,
            () = gone => return Err(Over),
        };
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n > 0)
    }

    async fn pass(
        &mut self,
        respond: &mut SendResponse<Bytes>,
        stream: &mut Option<SendStream<Bytes>>,
        is_head: bool,
    ) -> Result<(), Over> {
        loop {
            let size = loop {
                if let Some(size) = wire::head_size(&self.buffer) {
                    break size;
                }
                if !self.fill(|cx| respond.poll_reset(cx).is_ready()).await? {
                    return Err(Over);
                }
            };
            let raw: Vec<u8> = self.buffer.drain(..size).collect();
            let (head, length) = wire::response(&raw, is_head)?;
            let response = response(&head)?;
            match head.status {
                // HTTP/2 has no such thing (RFC 9113 section 8.6).
                101 => return Err(Over),
                100..=199 => {
                    respond.send_informational(response)?;
                    continue;
                }
                _ => {}
            }
            let ends = length == Length::Known(0);
            let sending = stream.insert(respond.send_response(response, ends)?);
            return if ends { Ok(()) } else { self.body(sending, length).await };
        }
    }

    async fn body(&mut self, stream: &mut SendStream<Bytes>, length: Length) -> Result<(), Over> {
        let mut sent = 0;
        loop {
            // What is beyond the end belongs to no stream.
            let progress = wire::body(&self.buffer, length)?;
            let part = Bytes::copy_from_slice(&progress.body[sent..]);
            sent += part.len();
            let ends = progress.done && progress.trailers.0.is_empty();
            if ends || !part.is_empty() {
                send(stream, part, ends).await?;
            }
            if progress.done {
                if !ends {
                    stream.send_trailers(fields(&progress.trailers)?)?;
                }
                return Ok(());
            }
            if !self.fill(|cx| stream.poll_reset(cx).is_ready()).await? {
                if length == Length::Chunked {
                    return Err(Over);
                }
                stream.send_data(Bytes::new(), true)?;
                return Ok(());
            }
        }
    }
}

/// As `http2::send`, but a stream that is reset is no failure of the test.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<(), Over> {
    if data.is_empty() {
        return Ok(stream.send_data(data, end)?);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(Over)??;
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, end && data.is_empty())?;
    }
    Ok(())
}

fn response(head: &wire::Response) -> Result<Response<()>, Over> {
    let mut response = Response::builder().status(head.status).body(())?;
    let said = Fields(head.fields.0.clone());
    *response.headers_mut() = fields(&said)?;
    Ok(response)
}

/// Fields as HTTP/2 has them (RFC 9113 section 8.2.2), less what Connection names.
fn fields(said: &Fields) -> Result<HeaderMap, Over> {
    let named = said.all("connection").join(",").to_ascii_lowercase();
    let mut kept = HeaderMap::new();
    for (name, value) in &said.0 {
        let name = name.to_ascii_lowercase();
        let goes =
            ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];
        let is_named = named.split(',').any(|it| it.trim() == name && name != "content-length");
        if !goes.contains(&name.as_str()) && !is_named {
            kept.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value)?);
        }
    }
    Ok(kept)
}
