//! An application that is called and says what an input tells it to, in any order; and a client that finds out what
//! became of it. The gateway, its worker and the client's socket are real.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use mesh_core::calls::{Call, Dispatch, Framing as Said, Notice, Taken, Write};
use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};

use crate::client::{Client, PATIENCE};
use crate::gateway::DEFAULT_HOST;
use crate::input::Input;
use crate::model::{self, Framing};
use crate::reader::{Field, ResponseHead};

/// What one application says at the most: several times what a call queues.
const MOST_SAID: usize = 1024 * 1024;

/// A gateway whose service is called, and one of its clients.
pub struct CallStage {
    gateway: Arc<Gateway>,
    calls: Receiver<Arc<Call>>,
    client: Option<Client>,
}

struct Dispatcher(Mutex<Sender<Arc<Call>>>);

impl Dispatch for Dispatcher {
    fn ids(&self) -> &[u64] {
        &[1]
    }

    fn send(&self, calls: &[Arc<Call>]) -> bool {
        let sender = self.0.lock().expect("no panic");
        calls.iter().all(|call| sender.send(Arc::clone(call)).is_ok())
    }
}

/// Nothing waits for it: what waits here looks again.
struct Ignored;

impl Notice for Ignored {
    fn process(&self) -> u64 {
        1
    }

    fn send(self: Box<Self>) {}
}

struct Request {
    bytes: &'static [u8],
    is_head: bool,
    minor: u8,
}

const REQUESTS: [Request; 6] = [
    Request { bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", is_head: false, minor: 1 },
    Request { bytes: b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", is_head: true, minor: 1 },
    Request {
        bytes: b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        is_head: false,
        minor: 0,
    },
    Request {
        bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        is_head: false,
        minor: 1,
    },
    Request {
        bytes: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        is_head: false,
        minor: 1,
    },
    Request { bytes: b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", is_head: false, minor: 0 },
];

/// What the application has said, as far as the call has accepted it.
#[derive(Default)]
struct Told {
    interim: Vec<ResponseHead>,
    /// The final head as the gateway reads it, and what the call was told about the body.
    head: Option<(ResponseHead, Said)>,
    body: Vec<u8>,
    finished: bool,
    /// The client has left.
    gone: bool,
}

impl CallStage {
    pub fn new() -> CallStage {
        let (sender, calls) = mpsc::channel();
        let gateway = Arc::new(Gateway::open(Config::default()).expect("a gateway"));
        // Nothing listens there.
        let nowhere = UpstreamAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let upstream = nowhere.in_vm(Box::new(Dispatcher(Mutex::new(sender))));
        let service = ServiceSpec::new(DEFAULT_HOST, vec![upstream]);
        gateway.set_routes(vec![service], Some(DEFAULT_HOST)).expect("a table");
        let worker = Arc::clone(&gateway);
        // It ends with the process.
        thread::spawn(move || worker.run_worker(0).expect("a worker"));
        CallStage { gateway, calls, client: None }
    }

    /// One request, answered as `data` says, and then another one, answered well.
    pub fn play(&mut self, data: &[u8]) {
        let mut input = Input(data);
        let Some(first) = input.byte() else { return };
        let request = &REQUESTS[usize::from(first) % REQUESTS.len()];
        let mut client = self.client.take().unwrap_or_else(|| self.connect());
        client.send(request.bytes);
        let call = self.next_call();
        assert!(matches!(call.take(|_| ()), Taken::Head(())), "the client waits");
        let told = say(&call, &mut client, &mut input);
        // As the last reference of a process does.
        call.fail();
        drop(call);
        if !told.gone && client.check(request, &told) {
            client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
            let call = self.next_call();
            assert!(matches!(call.take(|head| assert_eq!(head.target, b"/next")), Taken::Head(())));
            let fields = [(&b"content-length"[..], &b"4"[..])];
            assert_eq!(call.head(200, fields.into_iter(), Said::Length), Ok(true));
            assert_eq!(call.write(b"next", || Box::new(Ignored)), Write::Accepted(4));
            let (head, body) = client.response(false).expect("the next response");
            assert_eq!((head.status, body.as_slice()), (200, &b"next"[..]));
            assert!(client.received.is_empty(), "something comes behind it");
            self.client = Some(client);
        }
        assert_eq!(self.gateway.stats().gateway.panics, 0);
    }

    fn connect(&self) -> Client {
        Client::connect(self.gateway.local_addrs()[0].port())
    }

    fn next_call(&self) -> Arc<Call> {
        self.calls.recv_timeout(PATIENCE).expect("a call")
    }
}

/// Says what the input tells, until its end.
fn say(call: &Call, client: &mut Client, input: &mut Input<'_>) -> Told {
    let mut told = Told::default();
    let mut said = 0;
    while let Some(step) = input.byte() {
        match step % 8 {
            0 => say_head(call, input, &mut told),
            1 => {
                let data = input.bytes().unwrap_or_default();
                say_data(call, client, data, &mut told);
            }
            2 => {
                let n = 2048 * usize::from(input.byte().unwrap_or_default());
                if said + n <= MOST_SAID {
                    said += n;
                    say_data(call, client, &vec![step; n], &mut told);
                }
            }
            3 => call.flush(),
            4 => {
                let finished = call.finish();
                let has_failed = told.head.is_none();
                if finished && !has_failed {
                    told.finished = true;
                }
                if has_failed {
                    // It was a failure, and nothing can follow.
                    return told;
                }
            }
            5 => {
                call.fail();
                return told;
            }
            6 => {
                let most = input.byte().unwrap_or_default().into();
                let _ = call.read(most, <[u8]>::len, || Box::new(Ignored));
            }
            _ => {
                // Fails if it has been done.
                let _ = client.socket.shutdown(std::net::Shutdown::Both);
                told.gone = true;
            }
        }
    }
    told
}

fn say_head(call: &Call, input: &mut Input<'_>, told: &mut Told) {
    let framings = [Said::Length, Said::Chunked, Said::None, Said::Interim];
    let framing = framings[usize::from(input.byte().unwrap_or_default()) % 4];
    let status = i64::from(input.byte().unwrap_or_default()) * 10;
    let status = status + i64::from(input.byte().unwrap_or_default());
    let count = input.byte().unwrap_or_default() % 8;
    let fields: Vec<(&[u8], &[u8])> = (0..count)
        .map(|_| (input.bytes().unwrap_or_default(), input.bytes().unwrap_or_default()))
        .collect();
    let Ok(true) = call.head(status, fields.iter().copied(), framing) else { return };
    // As it is written: the framing is not the application's to say.
    let is_framing = |name: &[u8]| name.eq_ignore_ascii_case(b"transfer-encoding");
    let mut written: Vec<(&[u8], &[u8])> =
        fields.into_iter().filter(|(name, _)| !is_framing(name)).collect();
    if framing == Said::Chunked {
        written.push((b"transfer-encoding", b"chunked"));
    }
    if framing != Said::Interim {
        written.push((b"connection", b"close"));
    }
    let field = |(name, value): (&[u8], &[u8])| Field {
        name: String::from_utf8(name.to_vec()).expect("a token"),
        value: value.trim_ascii().to_vec(),
        line: Vec::new(),
    };
    let head = ResponseHead {
        minor: 1,
        status: u16::try_from(status).expect("a status"),
        reason: Vec::new(),
        fields: written.into_iter().map(field).collect(),
        size: 0,
    };
    match framing {
        Said::Interim => told.interim.push(head),
        _ => told.head = Some((head, framing)),
    }
}

fn say_data(call: &Call, client: &mut Client, mut data: &[u8], told: &mut Told) {
    let until = Instant::now() + PATIENCE;
    while !data.is_empty() {
        assert!(Instant::now() < until, "there is never room");
        let n = match call.write(data, || Box::new(Ignored)) {
            Write::Accepted(n) | Write::Again(n) => n,
            Write::NoHead => return assert!(told.head.is_none()),
            Write::Closed => return,
        };
        // What follows the end is accepted and dropped.
        if !told.finished {
            told.body.extend_from_slice(&data[..n]);
        }
        data = &data[n..];
        if !data.is_empty() {
            client.listen_now();
        }
    }
}

impl Told {
    /// The call has a whole response, whatever of it the client is to get.
    fn is_complete(&self) -> bool {
        match &self.head {
            None => false,
            Some((_, Said::None)) => true,
            Some((head, Said::Length)) => {
                self.body.len() >= length(head).unwrap_or(usize::MAX)
                    || (self.finished && length(head).is_none())
            }
            Some(_) => self.finished,
        }
    }
}

/// The length that the head announces.
fn length(head: &ResponseHead) -> Option<usize> {
    let field = head.fields.iter().find(|field| field.is("content-length"))?;
    let first = field.value.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(first).ok()?.trim().parse().ok()
}

impl Client {
    /// The client got what was told and nothing else. `true` if its connection can be used again.
    fn check(&mut self, request: &Request, told: &Told) -> bool {
        let expected = Expected::of(told, request.is_head);
        let mut interim = told.interim.iter();
        let head = loop {
            let Some(head) = self.head() else {
                assert!(!expected.is_whole(), "there should be a response");
                assert!(self.received.is_empty(), "half a head");
                return false;
            };
            if head.status >= 200 {
                break head;
            }
            assert!(request.minor > 0, "HTTP/1.0 knows no interim responses");
            let said = interim.next().expect("an interim response that was said");
            assert_eq!(head.status, said.status);
        };
        assert_eq!(head.minor, 1);
        let response = model::response(head, request.is_head).expect("a good head");
        let (body, whole) = self.body(response.framing);
        let status = response.head.status;
        match &expected {
            // The gateway's own page.
            Expected::Refused if status == 502 => assert!(whole),
            // The worker had not taken the head when the process failed.
            _ if !told.is_complete() && status == 500 && body.is_empty() && whole => {}
            Expected::Whole(head, said) => {
                assert!(whole, "it was whole");
                assert_same(&response.head, head);
                assert!(body == *said, "another body");
                let left = interim.len();
                assert!(request.minor == 0 || left == 0, "{left} interim responses were lost");
            }
            Expected::Torn(head, said) => {
                assert!(!whole, "it looks whole");
                assert_same(&response.head, head);
                assert!(said.starts_with(&body), "another body");
                return false;
            }
            other => panic!("{other:?}, but the client got a {status}"),
        }
        assert!(self.received.is_empty(), "more: \"{}\"", self.received.escape_ascii());
        let goes_on = whole && response.keep_alive;
        if !goes_on {
            assert!(!self.more(), "the response was the last one");
        }
        goes_on
    }
}

fn assert_same(got: &ResponseHead, said: &model::Response) {
    assert_eq!(got.status, said.head.status);
    let kept = said.kept();
    let pair = |field: &Field| (field.name.clone(), field.value.clone());
    let got: Vec<_> = got.fields.iter().map(pair).collect();
    let kept: Vec<_> = kept.iter().map(pair).collect();
    assert!(got.starts_with(&kept), "{kept:?} became {got:?}");
    for (name, _) in &got[kept.len()..] {
        let known = ["date", "content-length", "transfer-encoding", "connection"];
        assert!(known.contains(&name.to_ascii_lowercase().as_str()), "not said: {name}");
    }
}

/// What a client must find.
#[derive(Debug)]
enum Expected<'t> {
    Whole(Box<model::Response>, &'t [u8]),
    /// At most this, and it shows that something is missing.
    Torn(Box<model::Response>, &'t [u8]),
    /// The process failed without a head.
    Failed,
    /// The gateway does not take it from any endpoint.
    Refused,
}

impl Expected<'_> {
    fn of(told: &Told, to_head: bool) -> Expected<'_> {
        if told.interim.iter().any(|head| model::response(head.clone(), false).is_err()) {
            return Expected::Refused;
        }
        let Some((head, said)) = &told.head else { return Expected::Failed };
        let Ok(response) = model::response(head.clone(), to_head) else {
            return Expected::Refused;
        };
        let body = match said {
            Said::None => &[][..],
            Said::Length if response.framing != Framing::Chunked => {
                &told.body[..told.body.len().min(length(head).unwrap_or(usize::MAX))]
            }
            _ => &told.body[..],
        };
        let whole = match response.framing {
            Framing::None => return Expected::Whole(response.into(), &[]),
            Framing::Length(length) => body.len() as u64 == length,
            Framing::Chunked => told.finished,
            Framing::Close => told.finished || *said == Said::None,
        };
        if whole {
            Expected::Whole(response.into(), body)
        } else {
            Expected::Torn(response.into(), body)
        }
    }

    fn is_whole(&self) -> bool {
        !matches!(self, Expected::Torn(..))
    }
}
