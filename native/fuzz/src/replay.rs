//! The short run, for every `cargo test`: each committed input once, then mutations of them.
//!
//! `FUZZ_RUNS` is how many for each target, `FUZZ_SEED` what the random numbers begin with. The
//! same two give the same inputs, so that a finding is found again.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use crate::mutate::{Random, dictionary, mutate};
use crate::sockets::Stage;

const RUNS: u64 = 4_000;
const SEED: u64 = 1;

macro_rules! replay {
    ($($target:ident),+) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), crate::$target);
            }
        )+

        /// A target without a file for cargo-fuzz, or the other way around, is one forgotten.
        #[test]
        fn every_target_is_here() {
            let mut files: Vec<_> = entries(&root().join("fuzz_targets"))
                .iter()
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
                .collect();
            let mut targets = vec![$(stringify!($target).to_string()),+];
            files.sort();
            targets.sort();
            assert_eq!(files, targets);
        }
    };
}

replay!(
    request_head,
    chunked,
    host,
    forwarded,
    response_head,
    proxy_protocol,
    differential,
    call,
    http2
);

/// The inputs of `differential` through a real gateway.
#[test]
fn sockets() {
    let stage = Stage::new();
    let runs = from_env("FUZZ_RUNS", RUNS) / 20;
    run_from("differential", runs, |data| crate::over_sockets(data, &stage));
}

/// And as requests of HTTP/2.
#[test]
fn downgrade() {
    let stage = Stage::new();
    let runs = from_env("FUZZ_RUNS", RUNS) / 20;
    run_from("differential", runs, |data| crate::downgraded(data, &stage));
    run_from("request_head", runs, |data| crate::downgraded(data, &stage));
}

fn run(name: &str, target: fn(&[u8])) {
    // Each run of it opens several connections.
    let less = if name == "http2" { 10 } else { 1 };
    run_from(name, from_env("FUZZ_RUNS", RUNS) / less, target);
}

fn run_from(name: &str, runs: u64, target: impl Fn(&[u8])) {
    let root = root();
    let mut paths = entries(&root.join("seeds").join(name));
    paths.extend(entries(&root.join("corpus").join(name)));
    assert!(!paths.is_empty(), "no inputs for {name}");
    let mut inputs = Vec::new();
    for path in &paths {
        let input = fs::read(path).unwrap();
        check(&target, &input, &format!("{name}: {}", path.display()));
        inputs.push(input);
    }

    let words = fs::read_to_string(root.join("http.dict")).unwrap();
    let words = dictionary(&words);
    let seed = from_env("FUZZ_SEED", SEED);
    let mut random = Random::new(seed);
    for run in 1..=runs {
        let input = mutate(&inputs, &words, &mut random);
        check(&target, &input, &format!("{name}: FUZZ_SEED={seed} FUZZ_RUNS={run}"));
    }
    println!("{name}: {} inputs, {runs} mutations", inputs.len());
}

fn check(target: &impl Fn(&[u8]), input: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("{what} found a fault with this input:\n\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The files of a directory in an order that is the same everywhere.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
