//! The load: connections driven by one thread, in one of four ways.
//!
//! - `closed`: every connection sends its next request when it has its answer
//! - `open`: requests are due at a fixed rate, and latency counts from when they were due
//! - `tunnels`: WebSockets that send a message when they have the echo of the last
//! - `idle`: connections that are opened, used once, and held; prints memory for each

mod connection;
mod drive;
mod idle;
mod nodes;
mod plan;

use std::io;

use crate::args::Args;
use plan::Plan;

pub fn run(args: &Args) -> io::Result<()> {
    let plan = Plan::new(args)?;
    let result = match args.word(0) {
        "closed" | "open" | "tunnels" => drive::run(&plan)?,
        "idle" => idle::run(&plan)?,
        _ => return Err(io::Error::other("load is closed, open, tunnels or idle")),
    };
    println!("{result}");
    Ok(())
}
