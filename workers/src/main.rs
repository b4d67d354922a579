//! `longshore`: bridges, producers, consumers and dead letters without code.
//!
//! One file for each command, on the public API of `longshore` alone. Standard output carries messages and answers;
//! logs, progress, report and errors go to standard error, whose last line is the counts.

mod bridge;
mod check;
mod cli;
mod consume;
mod dead_letters;
mod ending;
mod flow;
mod inspect;
mod place;
mod produce;
mod progress;
mod shell;
mod task;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(cli) => cli.command.run().print(),
        Err(refused) => cli::refuse(&refused),
    }
}
