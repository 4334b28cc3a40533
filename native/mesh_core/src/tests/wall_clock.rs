//! Sets the calendar clock forward and back during requests. Reported times follow it; timeouts and
//! measurements do not.
//!
//! The system's clock is not touched: `observe::wall_clock` adds an offset.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::observe::{AccessLog, CountedNotice, Format, ObserveConfig, Record, Sink, wall_clock};
use crate::{Config, Gateway, ServiceSpec, UpstreamAddr};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const DAY: i64 = 24 * 60 * 60;
const WAIT: Duration = Duration::from_millis(400);
/// Longer than any step of a test, and much shorter than the clock jumps.
const PATIENCE: Duration = Duration::from_secs(20);

fn jump(off: i64) {
    wall_clock::OFFSET.store(off, Ordering::SeqCst);
}

/// Reports each request, and answers it once released.
struct Endpoint {
    address: SocketAddr,
    came: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

fn endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (comes, came) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let goes = Arc::new(Mutex::new(goes));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (comes, goes) = (comes.clone(), Arc::clone(&goes));
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while stream.read(&mut piece).is_ok_and(|n| n > 0) {
                    let _ = comes.send(());
                    let told = goes.lock().is_ok_and(|goes| goes.recv().is_ok());
                    if !told || stream.write_all(b"HTTP/1.1 204 No\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    Endpoint { address, came, go }
}

struct Mesh {
    gateway: Arc<Gateway>,
    endpoint: Endpoint,
    worker: Option<JoinHandle<()>>,
    _turn: MutexGuard<'static, ()>,
}

impl Mesh {
    fn start(wait: Duration) -> Mesh {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = Config::default();
        config.timeouts.head = Some(wait);
        config.timeouts.idle = Some(wait);
        config.timeouts.response = Some(wait);
        let gateway = Arc::new(Gateway::open(config).unwrap());
        let endpoint = endpoint();
        let upstreams = vec![UpstreamAddr::Tcp(endpoint.address)];
        let spec = ServiceSpec::new("a", upstreams);
        gateway.set_routes(vec![spec], None).unwrap();
        let runs = Arc::clone(&gateway);
        let worker = Some(thread::spawn(move || runs.run_worker(0).unwrap()));
        Mesh { gateway, endpoint, worker, _turn: turn }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.gateway.local_addrs()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        jump(0);
        self.gateway.stop(Some(Duration::ZERO));
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

#[test]
fn timeouts_ignore_the_calendar_clock() {
    let ends = [
        ("", ""),
        ("GET / HTTP/1.1\r\n", "HTTP/1.1 408 "),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", "HTTP/1.1 408 "),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 504 "),
    ];
    for off in [3 * DAY, -3 * DAY] {
        let mesh = Mesh::start(WAIT);
        let began = Instant::now();
        let clients = ends.map(|(sends, _)| {
            let mut client = mesh.connect();
            client.write_all(sends.as_bytes()).unwrap();
            thread::spawn(move || {
                let mut answer = vec![0; 4096];
                // Fails only if the response is long overdue.
                let n = client.read(&mut answer).expect("it waits and waits");
                answer.truncate(n);
                (began.elapsed(), String::from_utf8(answer).unwrap())
            })
        });
        for _ in 0..2 {
            mesh.endpoint.came.recv_timeout(PATIENCE).expect("two requests");
        }
        jump(off);
        for (client, (sent, end)) in clients.into_iter().zip(ends) {
            let (took, answer) = client.join().unwrap();
            assert!(took >= WAIT, "{sent:?}: only {took:?}");
            assert!(answer.starts_with(end) && answer.is_empty() == end.is_empty(), "{answer}");
        }
    }
}

/// Forwards lines and durations to channels.
struct Tell {
    lines: mpsc::Sender<String>,
    durations: mpsc::Sender<Duration>,
}

impl Sink for Tell {
    fn records(&mut self, records: &[&Record]) -> bool {
        let took = |record: &&Record| Duration::from_nanos(record.timings.total);
        records.iter().all(|record| self.durations.send(took(record)).is_ok())
    }

    fn lines(&mut self, lines: &[Vec<u8>]) -> bool {
        let line = |line: &Vec<u8>| String::from_utf8(line.clone()).unwrap();
        lines.iter().all(|l| self.lines.send(line(l)).is_ok())
    }

    fn notices(&mut self, _: Vec<CountedNotice>) {}
}

/// Whether the text contains a time between the two, as `tell` formats it.
fn has_moment(text: &str, from: SystemTime, to: SystemTime, tell: impl Fn(&str) -> String) -> bool {
    let seconds = to.duration_since(from).unwrap().as_secs() + 1;
    (0..=seconds)
        .any(|s| text.contains(&tell(&wall_clock::http_date_of(from + Duration::from_secs(s)))))
}

/// Converts `Sun, 06 Nov 1994 08:49:37 GMT` to the common log format.
fn in_log(date: &str) -> String {
    let parts: Vec<&str> = date.split(' ').collect();
    format!("[{}/{}/{}:{} +0000]", parts[1], parts[2], parts[3], parts[4])
}

#[test]
fn reported_times_follow_the_calendar_clock_and_measurements_do_not() {
    let mesh = Mesh::start(PATIENCE);
    let (tell_line, lines) = mpsc::channel();
    let (tell_duration, durations) = mpsc::channel();
    let sink = Tell { lines: tell_line, durations: tell_duration };
    let log = AccessLog { format: Format::Common, query: false, path: None };
    let observe = ObserveConfig { access_log: Some(log), sample: 1.0, sink: Some(Box::new(sink)) };
    mesh.gateway.observe(observe).unwrap();
    let mut client = mesh.connect();
    for off in [0, 400 * DAY, -400 * DAY, 0] {
        let began = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        mesh.endpoint.came.recv_timeout(PATIENCE).expect("a request");
        let came = Instant::now();
        // During the request.
        jump(off);
        let from = wall_clock::now() - began.elapsed();
        let waited = came.elapsed();
        mesh.endpoint.go.send(()).unwrap();
        let mut answer = vec![0; 4096];
        let n = client.read(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
        let (took, to) = (began.elapsed(), wall_clock::now());
        // The endpoint sends no date, so the gateway adds one.
        let date = |date: &str| format!("\r\nDate: {date}\r\n");
        assert!(has_moment(&answer, from, to, date), "{answer}");
        let recorded = durations.recv_timeout(PATIENCE).expect("a record");
        assert!(waited <= recorded && recorded <= took, "{waited:?} {recorded:?} {took:?}");
        let line = lines.recv_timeout(PATIENCE).expect("a line");
        assert!(has_moment(&line, from, wall_clock::now(), in_log), "{line}");
    }
    mesh.gateway.observe(ObserveConfig::default()).unwrap();
}
