//! The gRPC endpoint behind every proxy. `--streams N` is how many it accepts at once on a connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use h2::server::SendResponse;
use h2::{RecvStream, server};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::messages::message;
use super::{ECHO, SERVICE, WINDOW};
use crate::args::Args;

/// What a path asks for, made once.
#[derive(Clone)]
enum Method {
    Echo,
    Answer { count: usize, message: Bytes },
}

#[derive(Default)]
struct Methods(RefCell<HashMap<String, Method>>);

pub fn run(args: &Args) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(format!("127.0.0.1:{}", args.word(0))).await?;
        let methods = Rc::new(Methods::default());
        let streams = args.number("streams", u32::MAX);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            // Proxies going away is how every connection ends.
            spawn_local(serve(socket, streams, Rc::clone(&methods)));
        }
    })
}

async fn serve(socket: TcpStream, streams: u32, methods: Rc<Methods>) -> Result<(), h2::Error> {
    let mut connection = server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(streams)
        .handshake(socket)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let method = methods.of(request.uri().path());
        spawn_local(answer(request, respond, method));
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    method: Option<Method>,
) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let Some(method) = method else {
        head.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
        respond.send_response(head, true)?;
        return Ok(());
    };
    let mut body = request.into_body();
    match method {
        Method::Echo => {
            let mut stream = respond.send_response(head, false)?;
            while let Some(bytes) = body.data().await {
                let bytes = bytes?;
                body.flow_control().release_capacity(bytes.len())?;
                stream.send_data(bytes, false)?;
            }
            stream.send_trailers(trailers)
        }
        Method::Answer { count, message } => {
            while let Some(bytes) = body.data().await {
                body.flow_control().release_capacity(bytes?.len())?;
            }
            let mut stream = respond.send_response(head, false)?;
            // All at once: they are one message in memory, and leave as the windows allow.
            for _ in 0..count {
                stream.send_data(message.clone(), false)?;
            }
            stream.send_trailers(trailers)
        }
    }
}

impl Methods {
    fn of(&self, path: &str) -> Option<Method> {
        if let Some(method) = self.0.borrow().get(path) {
            return Some(method.clone());
        }
        let method = Method::read(path.strip_prefix(SERVICE)?)?;
        self.0.borrow_mut().insert(path.to_string(), method.clone());
        Some(method)
    }
}

impl Method {
    fn read(name: &str) -> Option<Method> {
        if name == ECHO {
            return Some(Method::Echo);
        }
        let (count, size) = name.split_once('x')?;
        Some(Method::Answer { count: count.parse().ok()?, message: message(size.parse().ok()?) })
    }
}
