//! An endpoint that speaks HTTP/2 and sends the frames that an input tells it to; and clients that find out what became
//! of their requests. The gateway, its worker and all sockets are real.
//!
//! Two requests share the endpoint's connection, streams 1 and 3. The input says what the endpoint sends, on both of
//! them or on none. Then the endpoint behaves: it answers what it has not answered, and a third request. What was sent
//! is written down, and whether a gateway must take it: `is_odd` is all that this model does not judge.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};

use crate::client::{Client, PATIENCE};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, MAX_FRAME, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, put,
};
use crate::gateway::DEFAULT_HOST;
use crate::input::Input;
use crate::model::{self, Framing};
use crate::reader::{ResponseHead, is_tchar};

/// What one stream may get before the endpoint has confirmed the gateway's settings.
const MOST_DATA: usize = 65_535;
/// What one input sends at the most.
const MOST_SENT: usize = 512 * 1024;
/// Heads that a stream may have: interim responses, the response and trailers.
const MOST_HEADS: usize = 30;
/// The body of a good response of the endpoint to a request that it was not told about.
const GOOD: &[u8] = b"good";
/// The end of a response that the input has not ended.
const REST: &[u8] = b" and the rest";
/// The status 200 (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];

/// A gateway and an endpoint.
pub struct H2Stage {
    gateway: Arc<Gateway>,
    scripted: Receiver<TcpStream>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The next connection does what the input says.
    wanted: AtomicBool,
    /// Those that behave.
    good: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

struct Request {
    bytes: &'static [u8],
    is_head: bool,
    minor: u8,
}

const REQUESTS: [Request; 5] = [
    Request { bytes: b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", is_head: false, minor: 1 },
    Request {
        bytes: b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        is_head: false,
        minor: 1,
    },
    Request { bytes: b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n", is_head: true, minor: 1 },
    Request { bytes: b"GET /1 HTTP/1.0\r\nHost: a\r\n\r\n", is_head: false, minor: 0 },
    Request {
        bytes: b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        is_head: false,
        minor: 1,
    },
];

const SECOND: Request =
    Request { bytes: b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n", is_head: false, minor: 1 };
const THIRD: Request =
    Request { bytes: b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", is_head: false, minor: 1 };

/// What an endpoint says first: all of it leaves room for two streams.
const FIRST_SETTINGS: [&[u8]; 6] = [
    b"",
    // One more stream needs another connection.
    &[0, 3, 0, 0, 0, 2],
    // Bodies must wait.
    &[0, 4, 0, 0, 0, 0],
    &[0, 4, 0, 0, 0, 1],
    &[0, 1, 0, 0, 0, 0],
    &[0, 5, 0, 0xff, 0xff, 0xff, 0, 6, 0, 0, 1, 0],
];

/// What was sent on one stream.
#[derive(Default)]
struct Sent {
    /// HEADERS frames of any kind.
    heads: usize,
    interim: Vec<u16>,
    status: Option<u16>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// Flow-controlled bytes.
    taken: usize,
    ended: bool,
    reset: bool,
    /// The endpoint says that it has not begun with it.
    refused: bool,
    /// Something that this model does not judge.
    is_odd: bool,
}

/// What was sent on the connection.
#[derive(Default)]
struct Told {
    streams: [Sent; 2],
    /// The next field block has fields that HTTP/2 forbids.
    is_malformed: bool,
    is_odd: bool,
    empty: usize,
    goes_away: bool,
    closed: bool,
    out: Vec<u8>,
}

impl H2Stage {
    pub fn new() -> H2Stage {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = UpstreamAddr::Tcp(listener.local_addr().expect("an address")).http2();
        let (sender, scripted) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        // It ends with the process.
        thread::spawn(move || accept(&listener, &sender, &accepting));
        let gateway = Arc::new(Gateway::open(Config::default()).expect("a gateway"));
        let service = ServiceSpec::new(DEFAULT_HOST, vec![address]);
        gateway.set_routes(vec![service], Some(DEFAULT_HOST)).expect("a table");
        let worker = Arc::clone(&gateway);
        thread::spawn(move || worker.run_worker(0).expect("a worker"));
        H2Stage { gateway, scripted, shared }
    }

    pub fn play(&mut self, data: &[u8]) {
        let mut input = Input(data);
        let (Some(first), Some(settings)) = (input.byte(), input.byte()) else { return };
        let request = &REQUESTS[usize::from(first) % REQUESTS.len()];
        self.shared.wanted.store(true, Ordering::SeqCst);
        let port = self.gateway.local_addrs()[0].port();
        let mut one = Client::connect(port);
        one.send(request.bytes);
        let mut socket = self.scripted.recv_timeout(PATIENCE).expect("a connection");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut preface = [0; PREFACE.len()];
        socket.read_exact(&mut preface).expect("the preface");
        let mut begin = Vec::new();
        let settings = FIRST_SETTINGS[usize::from(settings) % FIRST_SETTINGS.len()];
        frame(SETTINGS, 0, 0, settings, &mut begin);
        socket.write_all(&begin).expect("a connection");
        wait_for_head(&mut socket, 1);
        let mut two = Client::connect(port);
        two.send(SECOND.bytes);
        wait_for_head(&mut socket, 3);

        let mut told = Told::default();
        told.say(&mut input);
        told.close_well();
        // Fails if the gateway has had enough.
        let _ = socket.write_all(&told.out);
        let ends = socket.try_clone().expect("a socket");
        if told.closed {
            let _ = ends.shutdown(Shutdown::Write);
        }
        let good = thread::spawn(move || answer(socket));

        let mut three = Client::connect(port);
        three.send(THIRD.bytes);
        let answer = three.response(false).map(|(head, body)| (head.status, body));
        if !told.is_odd {
            assert_eq!(answer, Some((200, GOOD.to_vec())), "the connection is in order");
        }
        let _ = ends.shutdown(Shutdown::Write);
        good.join().expect("no panic");
        for (client, request, sent) in
            [(&mut one, request, &told.streams[0]), (&mut two, &SECOND, &told.streams[1])]
        {
            check(client, request, sent, &told);
        }
        self.clean_up();
    }

    /// Nothing of this input is left: a connection whose end the gateway has answered gets no more requests.
    fn clean_up(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            for (socket, thread) in self.shared.good().drain(..) {
                let _ = socket.shutdown(Shutdown::Write);
                thread.join().expect("no panic");
            }
            let stats = self.gateway.stats();
            assert_eq!(stats.gateway.panics, 0);
            let of = &stats.services[DEFAULT_HOST];
            if of.in_flight == 0 {
                return;
            }
            assert!(Instant::now() < until, "something is left: {of:?}");
            thread::yield_now();
        }
    }
}

impl Shared {
    fn good(&self) -> MutexGuard<'_, Vec<(TcpStream, JoinHandle<()>)>> {
        self.good.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn accept(listener: &TcpListener, scripted: &Sender<TcpStream>, shared: &Shared) {
    for socket in listener.incoming() {
        let mut socket = socket.expect("a connection");
        if shared.wanted.swap(false, Ordering::SeqCst) {
            // Fails only at the end.
            let _ = scripted.send(socket);
            continue;
        }
        let _ = socket.set_nodelay(true);
        let mut good = shared.good();
        let clone = socket.try_clone().expect("a socket");
        let thread = thread::spawn(move || {
            let mut begin = Vec::new();
            frame(SETTINGS, 0, 0, b"", &mut begin);
            if socket.read_exact(&mut [0; PREFACE.len()]).is_ok()
                && socket.write_all(&begin).is_ok()
            {
                answer(socket);
            }
        });
        good.push((clone, thread));
    }
}

fn read_frame(socket: &mut TcpStream) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    socket.read_exact(&mut vec![0; length]).ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream))
}

fn wait_for_head(socket: &mut TcpStream, stream: u32) {
    loop {
        let (kind, _, on) = read_frame(socket).expect("a request");
        if kind == HEADERS {
            assert_eq!(on, stream);
            return;
        }
    }
}

/// Answers each request well, until the connection ends.
fn answer(mut socket: TcpStream) {
    while let Some((kind, flags, stream)) = read_frame(&mut socket) {
        let mut out = Vec::new();
        match kind {
            HEADERS => {
                frame(HEADERS, END_HEADERS, stream, OK, &mut out);
                frame(DATA, END_STREAM, stream, GOOD, &mut out);
            }
            SETTINGS if flags & 1 == 0 => frame(SETTINGS, 1, 0, b"", &mut out),
            _ => continue,
        }
        // Fails if the gateway has closed it; then the next read ends, too.
        let _ = socket.write_all(&out);
    }
}

impl Told {
    /// Says what the input tells, until its end.
    fn say(&mut self, input: &mut Input<'_>) {
        while let Some(step) = input.byte() {
            if self.closed || self.out.len() > MOST_SENT {
                return;
            }
            let on = usize::from(step >> 4) % 2;
            match step % 16 {
                0 => self.head(on, input, false),
                1 => self.head(on, input, true),
                2 => {
                    let flags = input.byte().unwrap_or_default();
                    let data = input.bytes().unwrap_or_default().to_vec();
                    self.data(on, flags, &data);
                }
                3 => {
                    let n = 256 * usize::from(input.byte().unwrap_or_default());
                    self.data(on, 0, &vec![step; n.min(MAX_FRAME)]);
                }
                4 => self.trailers(on, input),
                5 => self.reset(on, input.byte().unwrap_or_default()),
                6 => self.go_away(input),
                7 => self.settings(input),
                8 => {
                    let flags = input.byte().unwrap_or_default() & 1;
                    self.put(PING, flags, 0, b"12345678");
                }
                9 => self.window(input),
                10 => {
                    let of = input.byte().unwrap_or_default();
                    let stream = [1, 3, 5, 0][usize::from(of) % 4];
                    self.is_odd |= of.is_multiple_of(8) || stream == 0;
                    self.put(PRIORITY, 0, stream, &[0, 0, 0, of % 8, 16]);
                }
                // Extensions, which are ignored (RFC 9113 section 4.1).
                11 => {
                    let kind = input.byte().unwrap_or_default().max(CONTINUATION + 1);
                    let flags = input.byte().unwrap_or_default();
                    let payload = input.bytes().unwrap_or_default();
                    self.put(kind, flags, [1, 3, 0, 7][usize::from(flags) % 4], payload);
                }
                12 => self.raw(input),
                13 => self.raw_block(on, input),
                14 => {
                    self.is_odd = true;
                    let promised = input.byte().unwrap_or_default().into();
                    let block = [&u32::to_be_bytes(promised)[..], &request_block()].concat();
                    self.put(PUSH_PROMISE, END_HEADERS, stream(on), &block);
                }
                _ => self.end(input.byte().unwrap_or_default()),
            }
        }
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame(kind, flags, stream, payload, &mut self.out);
    }

    /// Sends a field block, in as many frames as the input says.
    fn block(&mut self, on: usize, ends: bool, block: &[u8], first: u8) {
        let flags = if ends { END_STREAM } else { 0 };
        let heads = &mut self.streams[on].heads;
        *heads += 1;
        self.is_odd |= *heads > MOST_HEADS;
        let first =
            if first.is_multiple_of(4) { usize::from(first).min(block.len()) } else { block.len() };
        let (now, later) = block.split_at(first.min(MAX_FRAME));
        // An error of the stream; h2 then takes the rest of the block for one of the connection.
        self.is_odd |= std::mem::take(&mut self.is_malformed) && !later.is_empty();
        let whole = if later.is_empty() { END_HEADERS } else { 0 };
        self.put(HEADERS, flags | whole, stream(on), now);
        let mut parts = later.chunks(MAX_FRAME).peekable();
        while let Some(part) = parts.next() {
            let whole = if parts.peek().is_none() { END_HEADERS } else { 0 };
            self.put(CONTINUATION, whole, stream(on), part);
        }
    }

    fn head(&mut self, on: usize, input: &mut Input<'_>, is_interim: bool) {
        const STATUSES: [u16; 8] = [200, 204, 304, 404, 500, 503, 206, 299];
        let flags = input.byte().unwrap_or_default();
        let status = input.byte().unwrap_or_default();
        let status = match status {
            _ if is_interim => 100 + u16::from(status % 4),
            0..200 => STATUSES[usize::from(status) % STATUSES.len()],
            _ => 10 * u16::from(status - 200),
        };
        let (fields, is_odd) = self.fields(input);
        let ends = flags & 1 > 0;
        let mut block = Vec::new();
        put(&mut block, b":status", format!("{status:03}").as_bytes());
        for (name, value) in &fields {
            put(&mut block, name.as_bytes(), value);
        }
        self.block(on, ends, &block, flags >> 1);
        let known = matches!(status, 100 | 102 | 103) || (200..600).contains(&status);
        // Of the stream alone, as above.
        self.is_odd |= status < 100;
        let sent = &mut self.streams[on];
        sent.is_odd |= is_odd || !known || sent.is_over();
        if sent.is_over() {
            return sent.beyond(&mut self.is_odd);
        }
        if (100..200).contains(&status) {
            sent.interim.push(status);
            sent.ended = ends;
            sent.is_odd |= sent.status.is_some() || ends;
        } else if sent.status.is_some() {
            // It is taken for trailers.
            sent.is_odd = true;
            sent.ended |= ends;
        } else {
            sent.status = Some(status);
            sent.fields = fields;
            sent.ended = ends;
            sent.is_odd |= ends && sent.length().is_some_and(|length| length > 0);
        }
    }

    /// Fields, and whether a gateway may refuse them.
    fn fields(&mut self, input: &mut Input<'_>) -> (Vec<(String, Vec<u8>)>, bool) {
        const NAMES: [&str; 12] = [
            "x-a",
            "content-length",
            "set-cookie",
            "content-type",
            "trailer",
            "server",
            "grpc-status",
            "connection",
            "transfer-encoding",
            "te",
            "x-a",
            "",
        ];
        let count = input.byte().unwrap_or_default() % 8;
        let mut is_odd = false;
        let all = (0..count).map(|_| {
            let name = usize::from(input.byte().unwrap_or_default()) % NAMES.len();
            let raw = input.bytes().unwrap_or_default();
            let (name, value) = match NAMES[name] {
                "" => {
                    let half = raw.len() / 2;
                    is_odd = true;
                    (String::from_utf8_lossy(&raw[..half]).into_owned(), &raw[half..])
                }
                name => (name.to_string(), raw),
            };
            let is_forbidden = matches!(name.as_str(), "connection" | "transfer-encoding" | "te");
            self.is_malformed |= is_forbidden;
            is_odd |= is_forbidden;
            is_odd |= !value.iter().all(u8::is_ascii_graphic);
            // Of the stream alone (RFC 9113 section 8.2.1), but h2 ends the connection.
            self.is_odd |= value.iter().any(u8::is_ascii_control) || !is_name(&name);
            if name == "content-length" {
                let good = (1..10).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
                is_odd |= !good;
            }
            (name, value.to_vec())
        });
        let all: Vec<_> = all.collect();
        is_odd |= all.iter().filter(|(name, _)| name == "content-length").count() > 1;
        (all, is_odd)
    }

    fn trailers(&mut self, on: usize, input: &mut Input<'_>) {
        let flags = input.byte().unwrap_or_default();
        let (fields, is_odd) = self.fields(input);
        let mut block = Vec::new();
        for (name, value) in &fields {
            put(&mut block, name.as_bytes(), value);
        }
        let ends = flags & 1 == 0;
        self.block(on, ends, &block, flags >> 1);
        let sent = &mut self.streams[on];
        if sent.is_over() {
            return sent.beyond(&mut self.is_odd);
        }
        let lengths = fields.iter().any(|(name, _)| name == "content-length");
        sent.is_odd |= is_odd || lengths || !ends || sent.status.is_none();
        sent.ended |= ends;
    }

    fn data(&mut self, on: usize, flags: u8, data: &[u8]) {
        let padding = if flags & PADDED > 0 { usize::from(flags >> 4) } else { 0 };
        let mut payload = Vec::new();
        if flags & PADDED > 0 {
            payload.push(padding as u8);
        }
        payload.extend_from_slice(data);
        payload.resize(payload.len() + padding, 0);
        self.put(DATA, flags & (END_STREAM | PADDED), stream(on), &payload);
        self.empty += usize::from(data.is_empty());
        self.is_odd |= self.empty > 90;
        let sent = &mut self.streams[on];
        if sent.is_over() {
            return sent.beyond(&mut self.is_odd);
        }
        sent.taken += payload.len();
        self.is_odd |= sent.taken > MOST_DATA;
        // As above.
        self.is_odd |= sent.status.is_none();
        sent.is_odd |= sent.status.is_none() || sent.has_no_body(false);
        sent.body.extend_from_slice(data);
        sent.ended = flags & END_STREAM > 0;
    }

    fn reset(&mut self, on: usize, code: u8) {
        self.put(RST_STREAM, 0, stream(on), &u32::to_be_bytes(code.into()));
        let sent = &mut self.streams[on];
        let was_over = sent.is_over();
        if sent.ended && code != 0 {
            sent.is_odd = true;
        }
        sent.reset = true;
        sent.refused |= code == 7 && sent.status.is_none() && !was_over;
    }

    fn go_away(&mut self, input: &mut Input<'_>) {
        let last = u32::from(input.byte().unwrap_or_default() % 8);
        let code = u32::from(input.byte().unwrap_or_default() % 16);
        self.put(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
        self.is_odd |= std::mem::replace(&mut self.goes_away, true) || code != 0;
        for (sent, stream) in self.streams.iter_mut().zip([1, 3]) {
            if stream > last {
                sent.is_odd |= sent.status.is_some();
                sent.refused |= !sent.is_over();
            }
        }
    }

    fn settings(&mut self, input: &mut Input<'_>) {
        const VALUES: [u32; 8] = [0, 1, 2, 16_384, 65_535, 1 << 24, (1 << 31) - 1, u32::MAX];
        let id = input.byte().unwrap_or_default();
        let value = input.byte().unwrap_or_default();
        let value = if value < 64 { VALUES[usize::from(value) % 8] } else { value.into() };
        self.is_odd |= match id {
            2 => value > 0,
            // With a later increment it exceeds what there may be.
            4 => value > 1 << 30,
            5 => !(16_384..1 << 24).contains(&value),
            8 => value > 1,
            _ => false,
        };
        self.put(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    }

    fn window(&mut self, input: &mut Input<'_>) {
        let on = [0, 1, 3, 5_u32][usize::from(input.byte().unwrap_or_default()) % 4];
        let more = input.byte().unwrap_or_default();
        let more = if more < 250 { u32::from(more) } else { (1 << 31) - 1 };
        // An increment of zero is an error of the stream, and h2 ends the connection, as it may (RFC 9113 section 5.4.1).
        self.is_odd |= on == 5 || more == 0 || (on == 0 && more > 250);
        if let Some(sent) = match on {
            1 => Some(&mut self.streams[0]),
            3 => Some(&mut self.streams[1]),
            _ => None,
        } {
            sent.is_odd |= more == 0 || more > 250;
        }
        self.put(WINDOW_UPDATE, 0, on, &more.to_be_bytes());
    }

    /// Any frame.
    fn raw(&mut self, input: &mut Input<'_>) {
        let kind = input.byte().unwrap_or_default();
        let flags = input.byte().unwrap_or_default();
        let stream = u32::from(input.byte().unwrap_or_default());
        let payload = input.bytes().unwrap_or_default().to_vec();
        self.is_odd = true;
        self.put(kind % 12, flags, stream, &payload);
        let on = match stream {
            1 => 0,
            3 => 1,
            _ => return,
        };
        let sent = &mut self.streams[on];
        sent.is_odd = true;
        match kind % 12 {
            DATA if !sent.ended => {
                let padding = if flags & PADDED > 0 { payload.first().copied() } else { None };
                let from = usize::from(padding.is_some());
                let to = payload.len().saturating_sub(padding.unwrap_or(0).into());
                sent.body.extend_from_slice(payload.get(from..to).unwrap_or_default());
                sent.ended |= flags & END_STREAM > 0;
            }
            HEADERS => sent.ended |= flags & END_STREAM > 0,
            _ => {}
        }
    }

    /// Any field block.
    fn raw_block(&mut self, on: usize, input: &mut Input<'_>) {
        let flags = input.byte().unwrap_or_default();
        let block = input.bytes().unwrap_or_default().to_vec();
        self.is_odd = true;
        self.block(on, flags & 1 > 0, &block, flags >> 1);
        let sent = &mut self.streams[on];
        sent.is_odd = true;
        sent.ended |= flags & 1 > 0;
    }

    /// The connection ends, in the middle of a frame maybe.
    fn end(&mut self, how: u8) {
        self.closed = true;
        self.is_odd |= !how.is_multiple_of(2);
        if !how.is_multiple_of(2) {
            self.out.extend_from_slice(&[0, 0, 100, DATA, END_STREAM, 0, 0, 0, 1, b'x']);
            self.streams[0].is_odd = true;
        }
    }

    /// Ends the second response, and the first one if it has begun.
    fn close_well(&mut self) {
        for on in 0..2 {
            let sent = &self.streams[on];
            if self.closed || sent.is_over() || sent.refused || (on == 0 && sent.status.is_none()) {
                continue;
            }
            let (no_body, begun) = (sent.has_no_body(false), sent.status.is_some());
            if !begun {
                self.put(HEADERS, END_HEADERS, stream(on), OK);
                self.streams[on].status = Some(200);
            }
            let rest = if no_body { b"" } else { REST };
            let odd = std::mem::replace(&mut self.is_odd, false);
            self.data(on, END_STREAM, rest);
            self.is_odd |= odd;
        }
    }
}

fn stream(on: usize) -> u32 {
    [1, 3][on]
}

fn request_block() -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
    {
        put(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| is_tchar(byte) && !byte.is_ascii_uppercase())
}

impl Sent {
    /// Nothing can follow.
    fn is_over(&self) -> bool {
        self.ended || self.reset || self.refused
    }

    /// Something came when nothing could follow. After a reset the gateway may ignore it.
    fn beyond(&mut self, is_odd: &mut bool) {
        *is_odd = true;
        self.is_odd = true;
    }

    fn length(&self) -> Option<usize> {
        let (_, value) = self.fields.iter().find(|(name, _)| name == "content-length")?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    fn has_no_body(&self, to_head: bool) -> bool {
        to_head || matches!(self.status, Some(204 | 304))
    }

    /// The response is whole, and a gateway must pass it on.
    fn is_good(&self, to_head: bool) -> bool {
        let fits = self.has_no_body(to_head) && self.body.is_empty()
            || self.length().is_none_or(|length| length == self.body.len())
                && !self.has_no_body(to_head);
        !self.is_odd && self.status.is_some() && self.ended && !self.refused && fits
    }
}

/// What a client got is what the endpoint sent, whole exactly if that was.
fn check(client: &mut Client, request: &Request, sent: &Sent, told: &Told) {
    let must = !told.is_odd && sent.is_good(request.is_head);
    let mut interim = sent.interim.iter();
    let head = loop {
        let Some(head) = client.head() else {
            assert!(client.received.is_empty(), "half a head");
            return assert!(!must, "there should be a response");
        };
        if head.status >= 200 {
            break head;
        }
        assert!(request.minor > 0, "HTTP/1.0 knows no interim responses");
        assert!(sent.is_odd || interim.any(|said| *said == head.status), "an interim response");
    };
    let response = model::response(head, request.is_head).expect("a good head");
    let (framing, head) = (response.framing, response.head);
    let (body, whole) = client.body(framing);
    let said = sent.status == Some(head.status) && same(&head, sent);
    if must {
        let text = format!("{:.80}", body.escape_ascii());
        assert!(whole && said, "a good response became {} \"{text}\", whole: {whole}", head.status);
        assert!(request.is_head || body == sent.body, "another body");
        return;
    }
    if !whole {
        return assert!(sent.is_odd || sent.body.starts_with(&body), "another body");
    }
    // The gateway says that the endpoint has failed.
    if matches!(head.status, 502..=504) && (request.is_head || body != sent.body) {
        return;
    }
    let was_begun = sent.status.is_some() && !sent.is_odd && !told.is_odd;
    if head.status == 200 && body == GOOD || request.is_head && sent.status.is_none() {
        return assert!(!was_begun || sent.refused, "its response had begun, and it ran again");
    }
    assert!(said || sent.is_odd, "the endpoint did not say {head:?}");
    if framing == Framing::None {
        return;
    }
    let by_length = matches!(framing, Framing::Length(length) if length == body.len() as u64);
    assert!(sent.body.starts_with(&body), "another body: \"{}\"", body.escape_ascii());
    if by_length {
        return;
    }
    assert!(sent.ended && !sent.refused, "a part looks whole");
    assert!(
        body.len() == sent.body.len(),
        "{} of {} bytes look whole",
        body.len(),
        sent.body.len()
    );
}

/// The fields have arrived.
fn same(head: &ResponseHead, sent: &Sent) -> bool {
    let skipped = ["content-length", "connection", "te", "transfer-encoding", "trailer"];
    sent.fields.iter().filter(|(name, _)| !skipped.contains(&name.as_str())).all(|(name, value)| {
        head.fields.iter().any(|field| field.is(name) && field.value == *value)
    })
}
