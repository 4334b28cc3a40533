//! The data plane without a BEAM, as one process that can be pinned and looked into.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};

use crate::args::Args;

pub fn run(args: &Args) -> io::Result<()> {
    let port = args.word(0).parse().map_err(io::Error::other)?;
    let upstream = match args.word(1).strip_prefix("unix:") {
        Some(path) => UpstreamAddr::Unix(path.into()),
        None => UpstreamAddr::Tcp(args.word(1).parse().map_err(io::Error::other)?),
    };
    let routes = args.number("routes", 1);
    let gateway = Gateway::open(Config { port, ..Config::default() }).map_err(io::Error::other)?;
    let gateway = Arc::new(gateway);
    let set = move |gateway: &Gateway| gateway.set_routes(services(&upstream, routes), None);
    set(&gateway).map_err(io::Error::other)?;
    let swaps: f64 = args.number("swaps", 0.0);
    if swaps > 0.0 {
        let gateway = Arc::clone(&gateway);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs_f64(1.0 / swaps));
                if let Err(error) = set(&gateway) {
                    eprintln!("{error}");
                }
            }
        });
    }
    // On the only thread where it can be: as nginx and the relay, which lock nothing either.
    gateway.run_worker(0).map_err(io::Error::other)
}

/// `bench.local` among as many others as are asked for.
fn services(upstream: &UpstreamAddr, routes: usize) -> Vec<ServiceSpec> {
    let service = |host: String| ServiceSpec {
        name: host.clone(),
        hosts: vec![host],
        upstreams: vec![upstream.clone()],
    };
    let others = (1..routes).map(|i| service(format!("service-{i}.example.org")));
    others.chain([service("bench.local".to_string())]).collect()
}
