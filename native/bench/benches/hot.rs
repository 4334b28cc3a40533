//! What every request runs through, function by function:
//!
//!     cargo bench --manifest-path native/bench/Cargo.toml

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mesh_core::config::Limits;
use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};
use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::client_addr::ClientAddr;
use mesh_wire::ids::RequestId;
use mesh_wire::method::Method;
use mesh_wire::request::{self, Forwarding};
use mesh_wire::{head, response};

const REQUEST: &[u8] = b"GET /users/42?tab=orders HTTP/1.1\r\nHost: bench.local\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Cookie: _app_key=SFMyNTY.g3QAAAABbQAAAAtfY3NyZl90b2tlbm0AAAAY.tZWXb0sRlPVtAxP1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    content-length: 1024\r\ncontent-type: text/plain; charset=utf-8\r\n\
    cache-control: max-age=0, private, must-revalidate\r\nx-request-id: GFc1xQ2Jq0lXnLkAAAZB\r\n\r\n";

fn requests(c: &mut Criterion) {
    let most = Limits::default().header_count;
    let address: SocketAddr = "127.0.0.1:50000".parse().unwrap();
    let client = ClientAddr::new(address, &[]);
    let forwarding = Forwarding {
        client: &client,
        listener_port: 4000,
        default_host: "",
        request_id: &RequestId::None,
        traceparent: None,
    };
    let mut out = Vec::with_capacity(4096);
    let mut group = c.benchmark_group("request head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| {
            let mut storage = head::storage();
            let head = request::parse(black_box(REQUEST), &mut storage, most).unwrap().unwrap();
            black_box(head.info.keep_alive)
        });
    });
    group.bench_function("parse and write", |b| {
        b.iter(|| {
            let mut storage = head::storage();
            let head = request::parse(black_box(REQUEST), &mut storage, most).unwrap().unwrap();
            out.clear();
            head.write(&forwarding, &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

fn responses(c: &mut Criterion) {
    let to = response::ResponseOptions {
        minor: 1,
        keep_alive: true,
        chunked: false,
        timing: None,
        date: String::new,
    };
    let mut out = Vec::with_capacity(4096);
    let mut group = c.benchmark_group("response head");
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("parse and write", |b| {
        b.iter(|| {
            let mut storage = head::storage();
            let head = response::parse(black_box(RESPONSE), &mut storage, 256, Method::Get);
            let head = head.unwrap().unwrap();
            out.clear();
            head.write(to, &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

fn hosts(c: &mut Criterion) {
    let mut group = c.benchmark_group("host lookup");
    for routes in [10, 100_000] {
        let gateway = Gateway::open(Config::default()).unwrap();
        let upstream: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let upstreams = vec![UpstreamAddr::Tcp(upstream)];
        let host = |i| format!("service-{i}.example.org");
        let services = (0..routes).map(|i| ServiceSpec::new(&host(i), upstreams.clone()));
        gateway.set_routes(services.collect(), None).unwrap();
        // Four hosts in turn: that one entry is in the cache says nothing about the table.
        let exact: Vec<_> =
            (0..4).map(|i| format!("service-{}.example.org", i * routes / 4)).collect();
        let tenants: Vec<_> = exact.iter().map(|host| format!("tenant1.{host}")).collect();
        for (kind, hosts) in [("exact", &exact), ("tenant", &tenants)] {
            group.bench_function(format!("{kind}, {routes} routes"), |b| {
                let mut turn = hosts.iter().cycle();
                b.iter(|| black_box(gateway.resolve(turn.next().unwrap())).is_some());
            });
        }
    }
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk decode");
    for size in [64, 4096] {
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        let body = chunk.repeat(16 * 1024 / size).into_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("chunks of {size} bytes"), |b| {
            b.iter_batched_ref(
                || (Decoder::new(Output::Chunked, 64 * 1024), body.clone()),
                |(decoder, body)| decoder.decode(black_box(body)).unwrap().written,
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, requests, responses, hosts, chunks);
criterion_main!(benches);
