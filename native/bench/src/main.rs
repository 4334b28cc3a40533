//! What `make bench` measures with, one program with a part for each word it is started with:
//!
//!     mesh_bench backend PORT UNIX_PATH       answers, discards uploads, echoes WebSockets
//!     mesh_bench grpc PORT                    answers gRPC calls
//!     mesh_bench relay PORT UPSTREAM          copies bytes: the least that a proxy can cost
//!     mesh_bench least PORT UPSTREAM          the least that a gateway can cost
//!     mesh_bench hyper PORT UPSTREAM          the same forwarding on hyper's server and client
//!     mesh_bench gateway PORT UPSTREAM [..]   the data plane without a BEAM
//!     mesh_bench mesh PORT UPSTREAM..         the same, and by the mesh a data plane for each upstream
//!     mesh_bench load closed|open|tunnels|idle|grpc [..]   makes requests, prints one line of JSON

mod args;
mod backend;
mod gateway;
mod grpc;
mod histogram;
mod hyper_proxy;
mod least;
mod load;
mod mesh;
mod process;
mod relay;

fn main() {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_default();
    let arguments = args::Args::new(words);
    let result = match part.as_str() {
        "backend" => backend::run(&arguments),
        "grpc" => grpc::endpoint::run(&arguments),
        "hyper" => hyper_proxy::run(&arguments),
        "least" => least::run(&arguments),
        "relay" => relay::run(&arguments),
        "gateway" => gateway::run(&arguments),
        "mesh" => mesh::run(&arguments),
        // Started by `mesh`.
        "node" => mesh::run_node(&arguments),
        "load" => load::run(&arguments),
        _ => Err(std::io::Error::other(
            "the first word is backend, grpc, relay, least, hyper, gateway, mesh or load",
        )),
    };
    if let Err(error) = result {
        eprintln!("mesh_bench {part}: {error}");
        std::process::exit(1);
    }
}
