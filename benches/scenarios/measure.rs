//! Rounds, and what is printed of them.

use stats_alloc::StatsAlloc;
use std::alloc::System;
use std::time::Instant;

/// Something to be timed. `run` sets up, calls `timed` around what counts, and says how many messages it was.
pub struct Scenario {
    pub name: &'static str,
    /// What it shall reach, in words.
    pub goal: &'static str,
    pub run: Box<dyn Fn() -> Lap>,
    /// The bare library doing the same.
    pub bare: Option<Box<dyn Fn() -> Lap>>,
}

/// One timed run.
pub struct Lap {
    pub messages: u64,
    pub seconds: f64,
    pub cpu: f64,
    pub allocations: u64,
}

/// The start of what counts.
pub struct Stopwatch {
    began: Instant,
    cpu: f64,
    allocations: u64,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { allocations: allocated(), cpu: cpu_seconds(), began: Instant::now() }
    }

    pub fn stop(self, messages: u64) -> Lap {
        let seconds = self.began.elapsed().as_secs_f64();
        Lap { messages, seconds, cpu: cpu_seconds() - self.cpu, allocations: allocated() - self.allocations }
    }
}

fn allocated() -> u64 {
    let allocator: &StatsAlloc<System> = crate::ALLOCATOR;
    allocator.stats().allocations as u64
}

/// User and system time of this process, in steps of the kernel's tick of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after_name.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // utime and stime are fields 14 and 15; the state, which is no number, and the two before it are not in the list.
    (fields.get(10).unwrap_or(&0.0) + fields.get(11).unwrap_or(&0.0)) / 100.0
}

/// The largest resident memory since it was last reset, in MB.
pub fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Resident memory now, in MB.
pub fn now_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

pub fn reset_peak() {
    // Not everywhere allowed; the peak is then that of the whole run.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

struct Spread(Vec<f64>);

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, median, max) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        let digits = if max >= 1_000.0 { 0 } else { 2 };
        write!(f, "{min:.digits$} / {median:.digits$} / {max:.digits$}")
    }
}

/// Runs a scenario in alternating rounds and prints what came out, one line each.
pub fn run(scenario: &Scenario, rounds: usize) {
    assert!(rounds > 0, "at least one round");
    println!("\n{} (goal: {})", scenario.name, scenario.goal);
    reset_peak();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // One lap first that does not count: caches, pools, files.
    (scenario.run)();
    for _ in 0..rounds {
        ours.push((scenario.run)());
        theirs.extend(scenario.bare.as_ref().map(|bare| bare()));
    }
    let print = |who: &str, laps: &[Lap]| {
        let of = |value: fn(&Lap) -> f64| Spread(laps.iter().map(value).collect());
        println!(
            "  {who:9} kmsg/s {}   CPU s/M {}   allocations/msg {}",
            of(|lap| lap.messages as f64 / lap.seconds / 1e3),
            of(|lap| lap.cpu / lap.messages as f64 * 1e6),
            of(|lap| lap.allocations as f64 / lap.messages as f64),
        );
    };
    print("longshore", &ours);
    if !theirs.is_empty() {
        print("bare", &theirs);
        let rate = |lap: &Lap| lap.messages as f64 / lap.seconds;
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| rate(ours) / rate(theirs)).collect();
        println!("  ratio     {} (min / median / max, round by round)", Spread(ratios));
    }
    println!("  peak RSS  {:.0} MB", peak_mb());
}
