//! The data plane without a BEAM, as one process that can be pinned and looked into.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::observe::{AccessLog, CountedNotice, Format, ObserveConfig, Record, Sink};
use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};

use crate::args::Args;

pub fn run(args: &Args) -> io::Result<()> {
    let port = args.word(0).parse().map_err(io::Error::other)?;
    let upstream = upstream(args.word(1))?;
    let routes = args.number("routes", 1);
    let all = args.has("observe");
    let workers = args.number("workers", 1);
    let config = Config {
        port,
        workers,
        request_id: !args.has("nameless"),
        start_trace: all,
        server_timing: all,
        ..Config::default()
    };
    let gateway = Arc::new(Gateway::open(config).map_err(io::Error::other)?);
    gateway.observe(observe(args)).map_err(io::Error::other)?;
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
    for index in 1..workers {
        let gateway = Arc::clone(&gateway);
        std::thread::spawn(move || gateway.run_worker(index));
    }
    // On the only thread where it can be: as nginx and the relay, which lock nothing either.
    gateway.run_worker(0).map_err(io::Error::other)
}

/// `127.0.0.1:4001` or `unix:PATH`, and `h2c://` before an address for HTTP/2.
pub fn upstream(word: &str) -> io::Result<UpstreamAddr> {
    if let Some(address) = word.strip_prefix("h2c://") {
        return upstream(address).map(|address| UpstreamAddr::Http2(Box::new(address)));
    }
    match word.strip_prefix("unix:") {
        Some(path) => Ok(UpstreamAddr::Unix(path.into())),
        None => word.parse().map(UpstreamAddr::Tcp).map_err(io::Error::other),
    }
}

/// `--sample SHARE` records requests for a sink that takes them and does nothing; `--log PATH` keeps
/// an access log.
fn observe(args: &Args) -> ObserveConfig {
    let path = args.text("log", "");
    let log = AccessLog { format: Format::Combined, query: false, path: Some(path.into()) };
    ObserveConfig {
        access_log: (!path.is_empty()).then_some(log),
        sample: args.number("sample", 0.0),
        sink: args.has("observe").then(|| Box::new(Nowhere) as Box<dyn Sink>),
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn records(&mut self, _: &[&Record]) -> bool {
        true
    }

    fn lines(&mut self, _: &[Vec<u8>]) -> bool {
        true
    }

    fn notices(&mut self, _: Vec<CountedNotice>) {}
}

/// `bench.local` among as many others as are asked for.
fn services(upstream: &UpstreamAddr, routes: usize) -> Vec<ServiceSpec> {
    let service = |host: String| ServiceSpec::new(&host, vec![upstream.clone()]);
    let others = (1..routes).map(|i| service(format!("service-{i}.example.org")));
    others.chain([service("bench.local".to_string())]).collect()
}
