//! The ledger: runs of Longshore under faults, with books that are kept by somebody else.
//!
//! ```text
//! produce ──▶ queue ──▶ work ──▶ effects ──▶ collector ──▶ file      ids, confirmed or not ──▶ file
//!    │                   ▲ SIGTERM, SIGKILL                                                     │
//!    └── intents ──▶ file│           the broker: killed, frozen, full, …          verify ◀── all files
//! ```
//!
//! `run` starts all of them as processes of their own, does something to them at random points of their progress, and
//! compares what was meant, confirmed and done. The handler reports *before* its message is acked, and the collector
//! outlives it: what is acked and not on record is lost.

mod audit;
mod broker;
mod child;
mod clock;
mod collector;
mod effects;
mod exits;
mod faults;
mod ids;
mod intents;
mod plant;
mod produce;
mod progress;
mod queue;
mod report;
mod run;
mod scenario;
mod seen;
mod setup;
mod shapes;
mod tail;
mod verify;
mod worker;
mod world;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps the books over runs of Longshore under faults.
#[derive(Parser)]
#[command(name = "longshore-ledger", version)]
struct Line {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Runs scenarios and says what held.
    Run(run::Run),
    /// Lists the scenarios.
    List,
    /// Compares the files of a run that was kept.
    Verify {
        /// The folder of the run.
        folder: PathBuf,
    },
    /// Writes down what workers report.
    Collector {
        /// A socket's path.
        #[arg(long)]
        listen: PathBuf,
        /// Where it is written down.
        #[arg(long)]
        file: PathBuf,
    },
    /// Publishes, and logs what it means to.
    Produce(produce::Produce),
    /// The worker under test.
    Work(worker::Work),
    /// The bridge under test.
    Bridge(worker::Carry),
}

fn main() -> ExitCode {
    match Line::parse().role {
        Role::Run(run) => run.run(),
        Role::List => {
            for scenario in scenario::ALL {
                println!("{:<24} {:>7} messages, {:>2} times", scenario.name, scenario.messages, scenario.times);
            }
            ExitCode::SUCCESS
        }
        Role::Verify { folder } => ended(verify::folder(&folder)),
        Role::Collector { listen, file } => ended(collector::run(&listen, &file)),
        Role::Produce(produce) => produce.run(),
        Role::Work(work) => work.run(),
        Role::Bridge(carry) => carry.run(),
    }
}

fn ended(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
