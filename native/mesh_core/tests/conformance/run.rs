//! Runs cases against a gateway and an endpoint of their own, or an application that the gateway calls.

use mesh_core::{Config, UpstreamAddr};

use crate::case::{Bench, Case};
use crate::support::application::Application;
use crate::support::endpoint::Endpoint;
use crate::support::mesh::Mesh;

pub fn run(cases: Vec<Case>) {
    run_with(Config::default(), cases);
}

pub fn run_with(config: Config, cases: Vec<Case>) {
    let endpoint = Endpoint::start();
    judge(config, cases, &endpoint, &endpoint.address, None);
}

/// The same cases, with the same outcome for the client: requests are calls.
pub fn run_called(cases: Vec<Case>) {
    run_called_with(Config::default(), cases);
}

pub fn run_called_with(config: Config, cases: Vec<Case>) {
    let endpoint = Endpoint::start();
    let application = Application::of(&endpoint);
    let cases = cases.into_iter().filter(|case| !case.of_endpoints).collect();
    judge(config, cases, &endpoint, &application.address(), Some(&application));
    assert!(application.calls() > 0);
}

fn judge(
    config: Config,
    cases: Vec<Case>,
    endpoint: &Endpoint,
    upstream: &UpstreamAddr,
    called: Option<&Application>,
) {
    let mut mesh = Mesh::to(config, upstream);
    let mut bench = Bench::new(mesh.address(), endpoint, true);
    bench.called = called;
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
