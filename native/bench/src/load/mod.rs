//! The load: connections driven by one thread, in one of five ways.
//!
//! - `closed`: every connection sends its next request when it has its answer
//! - `open`: requests are due at a fixed rate, and latency counts from when they were due
//! - `tunnels`: WebSockets that send a message when they have the echo of the last
//! - `idle`: connections that are opened, used once, and held; prints memory for each
//! - `grpc`: calls of gRPC (`grpc/load.rs`)

mod connection;
mod drive;
mod idle;
mod nodes;
mod plan;

use std::io;

use crate::args::Args;
use crate::grpc;
use plan::Plan;

pub fn run(args: &Args) -> io::Result<()> {
    let plan = Plan::new(args)?;
    let result = match args.word(0) {
        "closed" | "open" | "tunnels" => drive::run(&plan)?,
        "idle" => idle::run(&plan)?,
        "grpc" => grpc::load::run(args)?,
        _ => return Err(io::Error::other("load is closed, open, tunnels, idle or grpc")),
    };
    println!("{result}");
    Ok(())
}
