//! Holds connections on which nothing happens, and tells what each costs the process in front.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::connection::Connection;
use super::plan::Plan;
use crate::process;

/// As many at a time as a listener's queue takes.
const AT_ONCE: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);

pub fn run(plan: &Plan) -> io::Result<serde_json::Value> {
    let mut poll = Poll::new()?;
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Connection> = Vec::new();
    let (resident_before, anonymous_before) = process::memory(&plan.pids);
    let end = Instant::now() + PATIENCE;
    while connections.len() < plan.connections {
        let first = connections.len();
        let last = (first + AT_ONCE).min(plan.connections);
        for number in first..last {
            let mut connection = Connection::open(plan.address, number)?;
            connection.register(poll.registry(), number)?;
            connection.begin(Instant::now(), plan.message.len());
            connections.push(connection);
        }
        let mut missing = last - first;
        while missing > 0 {
            if Instant::now() > end {
                return Err(io::Error::other("not all connections could be opened in time"));
            }
            poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                if connections[event.token().0].drive(&plan.request, &mut buffer)? {
                    missing -= 1;
                }
            }
        }
    }
    std::thread::sleep(plan.measure);
    let (resident, anonymous) = process::memory(&plan.pids);
    let each =
        |after: u64, before: u64| (after as f64 - before as f64) / plan.connections.max(1) as f64;
    Ok(serde_json::json!({
        "connections": connections.len(),
        "tunnels": connections.iter().filter(|connection| connection.tunnel).count(),
        "resident_each": each(resident, resident_before),
        "anonymous_each": each(anonymous, anonymous_before),
        "resident": resident,
    }))
}
