//! The least that a gateway can cost: reads both heads with httparse, tells the endpoint who the
//! client was, keeps its upstream connections, and does nothing else. It checks nothing, waits for
//! nobody, counts nothing, has one route, and gives up on whatever does not come in one piece. What
//! the data plane costs beyond this is what it does beyond this.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use httparse::{EMPTY_HEADER, Request, Response, Status};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::args::Args;

struct Shared {
    upstream: SocketAddr,
    idle: RefCell<Vec<TcpStream>>,
    input: RefCell<Vec<u8>>,
    output: RefCell<Vec<u8>>,
}

pub fn run(args: &Args) -> io::Result<()> {
    let address: SocketAddr =
        format!("127.0.0.1:{}", args.word(0)).parse().map_err(io::Error::other)?;
    let shared = Rc::new(Shared {
        upstream: args.word(1).parse().map_err(io::Error::other)?,
        idle: RefCell::default(),
        input: RefCell::new(vec![0; 16 * 1024]),
        output: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (client, peer) = listener.accept().await?;
            let shared = Rc::clone(&shared);
            spawn_local(async move {
                // Clients going away is how every connection ends.
                let _ = serve(client, peer, &shared).await;
            });
        }
    })
}

async fn serve(mut client: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let for_whom = format!("X-Forwarded-For: {}\r\nX-Forwarded-Proto: http\r\n", peer.ip());
    loop {
        receive(&mut client, shared, |bytes, out| request(bytes, &for_whom, out)).await?;
        let kept = shared.idle.borrow_mut().pop();
        let mut upstream = match kept {
            Some(kept) => kept,
            None => {
                let new = TcpStream::connect(shared.upstream).await?;
                new.set_nodelay(true)?;
                new
            }
        };
        send(&upstream, &shared.output.borrow())?;
        receive(&mut upstream, shared, response).await?;
        send(&client, &shared.output.borrow())?;
        shared.idle.borrow_mut().push(upstream);
    }
}

/// Reads what there is and lets `take` make of it what is to be sent.
async fn receive(
    from: &mut TcpStream,
    shared: &Shared,
    take: impl Fn(&[u8], &mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    poll_fn(|cx| {
        let mut input = shared.input.borrow_mut();
        let mut buffer = ReadBuf::new(&mut input);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
        let mut output = shared.output.borrow_mut();
        output.clear();
        Poll::Ready(take(buffer.filled(), &mut output))
    })
    .await
}

fn send(to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let sent = to.try_write(bytes)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn request(bytes: &[u8], for_whom: &str, out: &mut Vec<u8>) -> io::Result<()> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut request = Request::new(&mut headers);
    let end = whole(request.parse(bytes))?;
    let host = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    out.extend_from_slice(&bytes[..end - 2]);
    out.extend_from_slice(for_whom.as_bytes());
    out.extend_from_slice(b"X-Forwarded-Host: ");
    out.extend_from_slice(host.map_or(b"", |header| header.value));
    out.extend_from_slice(b"\r\nX-Forwarded-Port: 80\r\n\r\n");
    Ok(())
}

fn response(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut headers = [EMPTY_HEADER; 64];
    whole(Response::new(&mut headers).parse(bytes))?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn whole(parsed: httparse::Result<usize>) -> io::Result<usize> {
    match parsed {
        Ok(Status::Complete(size)) => Ok(size),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
