//! Runs cases against a gateway and an endpoint of their own, an application that the gateway calls, or a server of
//! HTTP/2.

use mesh_core::{Config, UpstreamAddr};

use crate::case::{Bench, Case};
use crate::support::application::Application;
use crate::support::endpoint::Endpoint;
use crate::support::h2_front::Front;
use crate::support::mesh::Mesh;

pub fn run(cases: Vec<Case>) {
    run_with(Config::default(), cases);
}

pub fn run_with(config: Config, cases: Vec<Case>) {
    let endpoint = Endpoint::start();
    judge(config, cases, &endpoint, &endpoint.address, |_| {});
}

/// The same cases, with the same outcome for the client: requests are calls.
pub fn run_called(cases: Vec<Case>) {
    run_called_with(Config::default(), cases);
}

pub fn run_called_with(config: Config, cases: Vec<Case>) {
    let endpoint = Endpoint::start();
    let application = Application::of(&endpoint);
    let cases = cases.into_iter().filter(|case| !case.of_endpoints).collect();
    let upstream = application.address();
    judge(config, cases, &endpoint, &upstream, |bench| bench.called = Some(&application));
    assert!(application.calls() > 0);
}

/// The same cases, with the same outcome: the gateway speaks HTTP/2.
pub fn run_http2(cases: Vec<Case>) {
    run_http2_with(Config::default(), cases);
}

pub fn run_http2_with(config: Config, cases: Vec<Case>) {
    let endpoint = Endpoint::start();
    let front = Front::of(&endpoint);
    let cases = cases.into_iter().filter(has_form_in_http2).collect();
    judge(config, cases, &endpoint, &front.address(), |bench| bench.front = Some(&front));
    assert!(front.streams() > 0);
}

fn judge<'a>(
    config: Config,
    cases: Vec<Case>,
    endpoint: &'a Endpoint,
    upstream: &UpstreamAddr,
    set: impl FnOnce(&mut Bench<'a>),
) {
    let mut mesh = Mesh::to(config, upstream);
    let mut bench = Bench::new(mesh.address(), endpoint, true);
    set(&mut bench);
    let count = cases.len();
    let failures: Vec<String> = cases
        .into_iter()
        .filter_map(|case| {
            let title = format!("{} ({}, {:?})", case.name, case.section, case.level);
            bench.run(case).err().map(|why| format!("{title}: {why}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
    mesh.wait_idle();
    mesh.stop(None);
}

/// Whether the case means something where the endpoint speaks HTTP/2.
fn has_form_in_http2(case: &Case) -> bool {
    !case.of_http1 && !asks_for_tunnel(case.sent()) && has_uri(case.sent())
}

/// WebSockets to endpoints that speak HTTP/2 have tests of their own (`tests/h2up/websocket.rs`).
fn asks_for_tunnel(bytes: &[u8]) -> bool {
    let mut storage = mesh_wire::head::storage();
    let head = mesh_wire::request::parse(bytes, &mut storage, 64);
    matches!(head, Ok(Some(head)) if head.info.websocket)
}

/// A gateway that must write a URI refuses what RFC 3986 excludes, as hyper does.
fn has_uri(bytes: &[u8]) -> bool {
    let target = bytes.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    !target.iter().any(|byte| b"<>`".contains(byte))
}
