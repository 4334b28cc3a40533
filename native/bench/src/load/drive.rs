//! Drives all connections through a warm-up and a measured time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::connection::Connection;
use super::nodes;
use super::plan::Plan;
use crate::histogram::Histogram;
use crate::process;

const TIMER: Token = Token(usize::MAX);
/// More failures than this and there is nothing to measure.
const MOST_ERRORS: u64 = 1000;

struct Run<'p> {
    plan: &'p Plan,
    poll: Poll,
    connections: Vec<Connection>,
    /// Opened so far, for the choice of a source address.
    opened: usize,
    free: VecDeque<usize>,
    buffer: Vec<u8>,
    latencies: Histogram,
    measuring: bool,
    done: u64,
    errors: u64,
    last_error: String,
}

pub fn run(plan: &Plan) -> io::Result<serde_json::Value> {
    let mut run = Run {
        plan,
        poll: Poll::new()?,
        connections: Vec::new(),
        opened: 0,
        free: VecDeque::new(),
        buffer: vec![0; 256 * 1024],
        latencies: Histogram::new(),
        measuring: false,
        done: 0,
        errors: 0,
        last_error: String::new(),
    };
    for token in 0..plan.connections {
        let mut connection = Connection::open(plan.address, run.opened)?;
        run.opened += 1;
        connection.register(run.poll.registry(), token)?;
        run.connections.push(connection);
        run.free.push_back(token);
    }
    run.serve(plan.warmup)?;
    run.measuring = true;
    let nodes_before = nodes::counters(&plan.stats)?;
    let before = process::usage(&plan.pids);
    let began = Instant::now();
    run.serve(plan.measure)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = process::usage(&plan.pids);
    let nodes = nodes::between(&nodes_before, &nodes::counters(&plan.stats)?);
    let each = |after: u64, before: u64| (after - before) as f64 / 1000.0 / run.done.max(1) as f64;
    let (resident, anonymous) = process::memory(&plan.pids);
    Ok(serde_json::json!({
        "requests": run.done,
        "rate": run.done as f64 / seconds,
        "cpu_us": each(after.cpu, before.cpu),
        "user_us": each(after.user, before.user),
        "system_us": each(after.system, before.system),
        "busy": (after.cpu - before.cpu) as f64 / 1e9 / seconds,
        "p50_us": run.latencies.percentile(50.0),
        "p99_us": run.latencies.percentile(99.0),
        "p999_us": run.latencies.percentile(99.9),
        "errors": run.errors,
        "last_error": run.last_error,
        "resident": resident,
        "anonymous": anonymous,
        "nodes": nodes,
    }))
}

impl Run<'_> {
    fn serve(&mut self, time: Duration) -> io::Result<()> {
        match self.plan.rate {
            Some(rate) => self.serve_open(time, rate),
            None => self.serve_closed(time),
        }
    }

    fn serve_closed(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        // In the measured time they go on from the warm-up.
        while let Some(token) = self.free.pop_front() {
            self.begin(token, Instant::now());
        }
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            if now >= end || self.done >= self.plan.requests {
                return Ok(());
            }
            self.poll.poll(&mut events, Some(end - now))?;
            for event in &events {
                let token = event.token().0;
                if self.drive(token) {
                    self.begin(token, Instant::now());
                }
            }
            self.check()?;
        }
    }

    fn serve_open(&mut self, time: Duration, rate: f64) -> io::Result<()> {
        // The timer of `poll` counts in milliseconds, which is longer than a request takes.
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let fd = timer.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        let began = Instant::now();
        let due = |number: u64| began + Duration::from_secs_f64(number as f64 / rate);
        let mut next = 0;
        let mut waiting = VecDeque::new();
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            if now >= began + time {
                break;
            }
            while due(next) <= now {
                waiting.push_back(due(next));
                next += 1;
            }
            while !self.free.is_empty()
                && let Some(due) = waiting.pop_front()
            {
                if let Some(token) = self.free.pop_front() {
                    self.begin(token, due);
                }
            }
            let pause = due(next).saturating_duration_since(Instant::now());
            let pause = pause.max(Duration::from_nanos(1));
            let value = Timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as _ };
            let once =
                Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
            self.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                if event.token() != TIMER && self.drive(event.token().0) {
                    self.free.push_back(event.token().0);
                }
            }
            self.check()?;
        }
        self.poll.registry().deregister(&mut SourceFd(&fd))
    }

    fn check(&self) -> io::Result<()> {
        if self.errors > MOST_ERRORS {
            return Err(io::Error::other(format!("too many errors: {}", self.last_error)));
        }
        Ok(())
    }

    fn begin(&mut self, token: usize, due: Instant) {
        self.connections[token].begin(due, self.plan.message.len());
        // Before the connection stands this does nothing, and its event comes later.
        self.drive(token);
    }

    /// `true`: this connection is free for its next request.
    fn drive(&mut self, token: usize) -> bool {
        let connection = &mut self.connections[token];
        let out = if connection.tunnel { &self.plan.message } else { &self.plan.request };
        let due = connection.due;
        match connection.drive(out, &mut self.buffer) {
            Ok(false) => return false,
            Ok(true) => {
                if self.measuring
                    && let Some(due) = due
                {
                    self.done += 1;
                    self.latencies.add(due.elapsed().as_nanos() as u64);
                }
                if !self.plan.reconnect {
                    return true;
                }
            }
            Err(error) => {
                self.errors += 1;
                self.last_error = error.to_string();
            }
        }
        self.reopen(token);
        true
    }

    fn reopen(&mut self, token: usize) {
        self.opened += 1;
        let opened = Connection::open(self.plan.address, self.opened).and_then(|mut connection| {
            connection.register(self.poll.registry(), token)?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => self.connections[token] = connection,
            Err(error) => {
                self.errors += 1;
                self.last_error = error.to_string();
            }
        }
    }
}
