//! Runs cases against a gateway and an endpoint of their own.

use mesh_core::Config;

use crate::case::{Bench, Case};
use crate::support::endpoint::Endpoint;
use crate::support::mesh::Mesh;

pub fn run(cases: Vec<Case>) {
    run_with(Config::default(), cases);
}

pub fn run_with(config: Config, cases: Vec<Case>) {
    let endpoint = Endpoint::start();
    let mut mesh = Mesh::to(config, &endpoint.address);
    let bench = Bench::new(mesh.address(), &endpoint, true);
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
