//! What the measured processes have used, read from `/proc`.

use std::fs;

#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Nanoseconds on a core, user and system.
    pub cpu: u64,
    /// Nanoseconds of it, by the coarser clock ticks.
    pub user: u64,
    pub system: u64,
}

pub fn usage(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for pid in pids {
        sum.cpu += scheduled(*pid);
        let (user, system) = ticks(*pid);
        sum.user += user;
        sum.system += system;
    }
    sum
}

/// The scheduler's own account is exact; clock ticks are a hundredth of a second.
fn scheduled(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

fn ticks(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may have spaces in it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    let field = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0) * tick;
    (field(11), field(12))
}

/// Resident memory in bytes: all of it, and what is anonymous (heap and stacks).
pub fn memory(pids: &[u32]) -> (u64, u64) {
    let mut sum = (0, 0);
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.0 += kilobytes(&text, "VmRSS:") * 1024;
        sum.1 += kilobytes(&text, "RssAnon:") * 1024;
    }
    sum
}

/// The most resident memory that each has had, in bytes.
pub fn peak(pids: &[u32]) -> u64 {
    let most = |pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pids.iter().map(|pid| kilobytes(&most(pid), "VmHWM:") * 1024).sum()
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}
