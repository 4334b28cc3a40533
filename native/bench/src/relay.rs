//! Copies bytes between a client and an upstream of its own and understands nothing: what the
//! kernel and the event loop cost when a proxy costs nothing. One thread, as a worker.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{LocalSet, spawn_local};

use crate::args::Args;

pub fn run(args: &Args) -> io::Result<()> {
    let address: SocketAddr =
        format!("127.0.0.1:{}", args.word(0)).parse().map_err(io::Error::other)?;
    let upstream = args.word(1).to_string();
    // A body moves in pieces of this size: what a relay can choose.
    let size = args.number("buffer", 16 * 1024);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (client, _) = listener.accept().await?;
            let upstream = upstream.clone();
            spawn_local(async move {
                // Either side going away is how every connection ends.
                let _ = relay(client, &upstream, size).await;
            });
        }
    })
}

async fn relay(mut client: TcpStream, upstream: &str, size: usize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    if let Some(path) = upstream.strip_prefix("unix:") {
        let mut upstream = UnixStream::connect(path).await?;
        let (from, to) = upstream.split();
        both(copy(from_client, to, size), copy(from, to_client, size)).await
    } else {
        let mut upstream = TcpStream::connect(upstream).await?;
        upstream.set_nodelay(true)?;
        let (from, to) = upstream.split();
        both(copy(from_client, to, size), copy(from, to_client, size)).await
    }
}

async fn both(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    let (mut up_done, mut down_done) = (false, false);
    std::future::poll_fn(|cx| {
        if !up_done && let std::task::Poll::Ready(result) = up.as_mut().poll(cx) {
            result?;
            up_done = true;
        }
        if !down_done && let std::task::Poll::Ready(result) = down.as_mut().poll(cx) {
            result?;
            down_done = true;
        }
        if up_done && down_done { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
    })
    .await
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    size: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; size];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}
