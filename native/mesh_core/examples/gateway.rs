//! The data plane alone, for measuring and for trying things out:
//!
//!     cargo run --release -p mesh_core --example gateway -- 4000 auth.local=127.0.0.1:4001 sock.local=unix:/run/app.sock grpc.local=h2c://127.0.0.1:50051

use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|p| p.parse().ok()).expect("the first argument is a port");
    let services = arguments.map(|argument| service(&argument)).collect();
    let gateway = Gateway::open(Config { port, ..Config::default() }).expect("cannot listen");
    gateway.set_routes(services, None).expect("bad routes");
    println!("listening on {:?}", gateway.local_addrs());
    gateway.run_worker(0).expect("the worker failed");
}

fn service(argument: &str) -> ServiceSpec {
    let (host, upstream) = argument.split_once('=').expect("a service is HOST=UPSTREAM");
    let tcp = |text: &str| UpstreamAddr::Tcp(text.parse().expect("an upstream ends with IP:PORT"));
    let upstream = match (upstream.strip_prefix("unix:"), upstream.strip_prefix("h2c://")) {
        (Some(path), _) => UpstreamAddr::Unix(path.into()),
        (_, Some(address)) => tcp(address).http2(),
        _ => tcp(upstream),
    };
    ServiceSpec::new(host, vec![upstream])
}
