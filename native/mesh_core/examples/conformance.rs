//! The conformance cases against any proxy, for comparing:
//!
//!     cargo run --release -p mesh_core --example conformance -- 127.0.0.1:8080 --upstream-port 9000
//!
//! The proxy at that address must forward everything to 127.0.0.1:9000, where the cases' endpoint
//! listens. Without an address the gateway itself is judged, by the same rules as others. Cases that
//! are about this gateway's own contract are left out; `--verbose` names every failure.

#[path = "../tests/conformance/case.rs"]
mod case;
#[path = "../tests/conformance/cases/mod.rs"]
mod cases;
#[path = "../tests/conformance/check.rs"]
mod check;
#[path = "../tests/conformance/prelude.rs"]
mod prelude;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use case::{Bench, Case, Level};
use mesh_core::Config;
use support::endpoint::Endpoint;
use support::mesh::Mesh;

/// Failed and all, for one level.
#[derive(Clone, Copy, Default)]
struct Tally {
    failed: usize,
    all: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| arguments.iter().skip_while(|a| *a != name).nth(1);
    let upstream = after("--upstream-port").map_or(0, |p| p.parse().expect("a port"));
    let verbose = arguments.iter().any(|a| a == "--verbose");
    let endpoint = Endpoint::on(SocketAddr::from(([127, 0, 0, 1], upstream)));
    let own = Mesh::to(Config::default(), &endpoint.address);
    let proxy = arguments.iter().find(|a| a.contains(':'));
    let proxy = proxy.map_or(own.address(), |a| a.parse().expect("an address"));
    let bench = Bench::new(proxy, &endpoint, false);
    // Failures are results here, not accidents.
    std::panic::set_hook(Box::new(|_| {}));

    println!("| topic | MUST failed | SHOULD failed | lenient where that has done harm |");
    println!("| --- | --- | --- | --- |");
    let mut totals = [Tally::default(); 3];
    for (topic, cases) in cases::all() {
        let mut tallies = [Tally::default(); 3];
        for case in cases.into_iter().filter(|case| !case.ours) {
            let slot = &mut tallies[slot(case.level)];
            slot.all += 1;
            let title = format!("{:?} {topic}: {} ({})", case.level, case.name, case.section);
            if let Err(why) = judge(&bench, case) {
                slot.failed += 1;
                if verbose {
                    println!("<!-- {title}: {} -->", why.chars().take(600).collect::<String>());
                }
            }
        }
        row(topic, &tallies);
        for (total, tally) in totals.iter_mut().zip(tallies) {
            total.failed += tally.failed;
            total.all += tally.all;
        }
    }
    row("all", &totals);
    // What another proxy sent is judged by the cases alone.
    endpoint.forget();
}

fn slot(level: Level) -> usize {
    match level {
        Level::Must => 0,
        Level::Should => 1,
        Level::Strict => 2,
    }
}

fn row(name: &str, [must, should, strict]: &[Tally; 3]) {
    let of = |tally: &Tally| match tally.all {
        0 => "-".to_string(),
        all => format!("{} of {all}", tally.failed),
    };
    println!("| {name} | {} | {} | {} |", of(must), of(should), of(strict));
}

fn judge(bench: &Bench<'_>, case: Case) -> Result<(), String> {
    let judged = std::panic::catch_unwind(AssertUnwindSafe(|| bench.run(case)));
    judged.unwrap_or_else(|_| Err("it never came to an end".into()))
}
