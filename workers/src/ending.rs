//! How a command ends: its exit code, and its counts as the last line on stderr.

use longshore::{Counts, Error};
use std::io::Write;
use std::process::ExitCode;

/// The command line was not taken.
pub const WRONG_COMMAND_LINE: u8 = 64;
/// Bad input that has no other place to go to.
pub const BAD_INPUT: u8 = 65;

/// How a command has ended.
#[derive(Debug)]
#[must_use]
pub struct Ending {
    code: u8,
    counts: String,
}

impl Ending {
    /// With these counts.
    pub fn new(code: u8, counts: impl ToString) -> Self {
        Self { code, counts: counts.to_string() }
    }

    /// Nothing was received.
    pub fn empty(code: u8) -> Self {
        Self::new(code, Counts::default())
    }

    /// By this error, which is told: a line for each thing that is wrong.
    pub fn failed(error: &Error, counts: Counts) -> Self {
        for line in error.to_string().lines() {
            say(format_args!("error: {line}"));
        }
        Self::new(error.exit_code(), counts)
    }

    /// Prints the counts; the exit code.
    pub fn print(self) -> ExitCode {
        longshore::logs::clear_status();
        say(format_args!("{}", self.counts));
        ExitCode::from(self.code)
    }
}

/// A line for the person at the terminal; nobody may be reading any more.
pub fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
