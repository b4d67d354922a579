//! Whole scenarios, published to settled, with the bare library beside each where there is one.
//!
//! `cargo bench --bench scenarios -- [NAME …] [--rounds N]`; without a name, all of them. Memory scenarios want one core:
//! `taskset -c 1 cargo bench --bench scenarios -- memory`. Rounds alternate between a scenario and what it is held
//! against; each line gives minimum, median and maximum, CPU seconds, the largest memory, and allocations a message.

#[path = "scenarios/concurrency.rs"]
mod concurrency;
#[path = "scenarios/local.rs"]
mod local;
#[path = "scenarios/measure.rs"]
mod measure;
#[path = "scenarios/memory.rs"]
mod memory;
#[path = "scenarios/nowhere.rs"]
mod nowhere;

use measure::Scenario;

#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() {
    let mut names = Vec::new();
    let mut rounds = 5;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().and_then(|n| n.parse().ok()).expect("--rounds takes a number"),
            name => names.push(name.to_owned()),
        }
    }
    let all: Vec<Scenario> =
        memory::scenarios().into_iter().chain(local::scenarios()).chain(concurrency::scenarios()).collect();
    for scenario in all {
        if names.is_empty() || names.iter().any(|name| scenario.name.contains(name.as_str())) {
            measure::run(&scenario, rounds);
        }
    }
}
