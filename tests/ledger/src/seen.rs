//! What was seen of a run: its faults, how its processes ended, and when messages flowed again.

use crate::child::Ended;
use crate::exits::{self, Exit};
use crate::setup::DEADLINE;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a process may take beyond its deadline.
pub const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// Messages flow again within this after a fault is over.
pub const RESUME: Duration = Duration::from_secs(30);

/// What was seen of stops and faults.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    /// Faults that were done.
    pub faults: u32,
    /// What was done so shortly before the broker was killed that a classic queue may not have written down its ack.
    pub unwritten: u32,
    /// How processes ended that were asked to: exit code, and how often.
    pub exits: BTreeMap<String, u32>,
    /// The slowest of these ends, in milliseconds from SIGTERM.
    pub slowest_exit_ms: u64,
    /// The slowest time until messages flowed again, in milliseconds from the end of a fault.
    pub slowest_resume_ms: u64,
    /// What stopped processes did not know the end of.
    pub unknown: i64,
    /// What was promised and did not hold.
    pub broken: Vec<String>,
}

impl Seen {
    /// Notes what was promised and did not hold.
    pub fn broke(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    /// Notes how long a process took to end.
    pub fn exit_took(&mut self, name: &str, took: Duration) {
        self.slowest_exit_ms = self.slowest_exit_ms.max(took.as_millis() as u64);
        if took > DEADLINE + DEADLINE_SLACK {
            self.broke(format!("{name}: took {took:?} to end, deadline {DEADLINE:?}"));
        }
    }

    /// Looks at how a process ended.
    pub fn judge(&mut self, ended: &Ended, exit: Exit) {
        let said = ended.code.map_or("signal".to_owned(), |code| code.to_string());
        *self.exits.entry(said).or_default() += 1;
        self.unknown += ended.count("unknown");
        self.broken.extend(exits::wrong(ended, exit));
    }

    /// Notes how long messages took to flow again.
    pub fn resume_took(&mut self, took_ms: u64) {
        self.slowest_resume_ms = self.slowest_resume_ms.max(took_ms);
        if u128::from(took_ms) > RESUME.as_millis() {
            self.broke(format!("fault {}: messages flowed again after {took_ms} ms", self.faults));
        }
    }
}
