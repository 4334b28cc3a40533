//! HTTP conformance over raw sockets: what the client sent, what the endpoint saw byte for byte, and
//! what the client got. The cases are tables, one file per topic; `examples/conformance.rs` runs the
//! same tables against any other proxy.

#[path = "../support/mod.rs"]
mod support;

mod case;
mod cases;
mod check;
mod trusted;

use case::{Bench, Case};
use mesh_core::Config;
use support::endpoint::Endpoint;
use support::mesh::Mesh;

/// Runs a topic against a gateway and an endpoint of its own.
fn run(cases: Vec<Case>) {
    run_with(Config::default(), cases);
}

fn run_with(config: Config, cases: Vec<Case>) {
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

macro_rules! topics {
    ($($topic:ident),* $(,)?) => {
        $(
            #[test]
            fn $topic() {
                run(cases::$topic::cases());
            }
        )*
    };
}

topics!(
    request_line,
    host,
    framing,
    smuggling,
    hop_by_hop,
    forwarded,
    upgrade,
    responses,
    interim,
    persistence,
    streaming
);

#[test]
fn case_names_are_unique() {
    let mut names = std::collections::HashSet::new();
    for (topic, cases) in cases::all() {
        for case in cases {
            assert!(names.insert((topic, case.name.clone())), "twice in {topic}: {}", case.name);
        }
    }
}
