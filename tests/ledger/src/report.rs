//! The outcome of a run: a line of a table, a line of JSON, and what was promised and did not hold.

use crate::queue::Counts;
use crate::scenario::{Scenario, Shape};
use crate::seen::Seen;
use crate::verify::{Findings, Ids};
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a run came to.
pub struct Outcome {
    scenario: Scenario,
    /// What it goes by: `local`, `quorum` or `classic`.
    pub by: &'static str,
    /// The seed of what was left to chance.
    pub seed: u64,
    folder: PathBuf,
    /// What was seen on the way.
    pub seen: Seen,
    /// How long it took.
    pub seconds: f64,
    findings: Option<Findings>,
    /// What each fault may make come twice at most.
    window: u32,
}

impl Outcome {
    /// The head of the table.
    pub const HEADER: &str = "scenario                 queue    messages  faults  lost  duplicated (bound)  gaps  \
                              unexpected  unknown  recovered  exits            slowest exit  slowest resume  seconds";

    /// Of a run that has not begun.
    pub fn new(scenario: &Scenario, by: &'static str, seed: u64, folder: &Path, window: u32) -> Self {
        Self {
            scenario: *scenario,
            by,
            seed,
            folder: folder.to_owned(),
            seen: Seen::default(),
            seconds: 0.0,
            findings: None,
            window,
        }
    }

    /// Duplicates that are allowed: by redelivery, and by being published again.
    fn bounds(&self) -> (usize, usize) {
        let Shape::Traffic(fault) = self.scenario.shape else { return (0, 0) };
        let window = self.seen.faults as usize * self.window as usize;
        // The producer and the bridge may each have a window of sends that nobody has confirmed.
        let publishers = 1 + usize::from(fault.is_of_broker() && fault.needs_bridge());
        let republished = if fault.republishes() { window * publishers } else { 0 };
        // Nobody is told when a classic queue writes an ack down; a quorum queue gives nothing for what it has not.
        let unwritten = if self.by == "classic" { self.seen.unwritten as usize } else { 0 };
        (if fault.redelivers() { window + unwritten } else { 0 }, republished)
    }

    /// Takes in what the books say, and what the queues still have.
    pub fn found(&mut self, found: Findings, counts: Counts) {
        let (by_redelivery, by_publishing) = self.bounds();
        let mut broken = Vec::new();
        let mut none = |what: &str, ids: &Ids| {
            if ids.count > 0 {
                broken.push(format!("{what} {}: {}", ids.count, ids.some.join(" ")));
            }
        };
        none("lost", &found.lost);
        none("unexpected", &found.unexpected);
        none("out of order", &found.gaps);
        none("damaged", &found.damaged);
        if by_redelivery == 0 {
            none("attempted before", &found.attempted_before);
        }
        let redelivered = found.duplicated - found.published_again;
        for (how, times, bound) in
            [("redelivered", redelivered, by_redelivery), ("published again", found.published_again, by_publishing)]
        {
            if times > bound {
                broken.push(format!("{how} {times}, at most {bound}: {}", found.done_again.some.join(" ")));
            }
        }
        if counts.unsettled > 0 {
            broken.push(format!("not worked off: {}", counts.unsettled));
        }
        if counts.dead > 0 {
            broken.push(format!("dead letters {}, though no handler fails", counts.dead));
        }
        if self.seen.faults < self.scenario.times {
            broken.push(format!("only {} of {} faults were done", self.seen.faults, self.scenario.times));
        }
        if found.ok == 0 {
            broken.push("nothing was confirmed: there is nothing to hold".to_owned());
        }
        self.seen.broken.append(&mut broken);
        self.findings = Some(found);
    }

    /// Whether everything that is promised held.
    pub fn holds(&self) -> bool {
        self.seen.broken.is_empty() && self.findings.is_some()
    }

    /// Everything, for a machine.
    pub fn json(&self) -> Value {
        json!({
            "scenario": self.scenario.name,
            "queue": self.by,
            "seed": self.seed,
            "messages": self.scenario.messages,
            "window": self.window,
            "bound": { "redelivered": self.bounds().0, "published_again": self.bounds().1 },
            "seconds": self.seconds,
            "holds": self.holds(),
            "seen": self.seen,
            "found": self.findings,
            "folder": (!self.holds()).then(|| self.folder.display().to_string()),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, by, seen, .. } = self;
        let found = self.findings.clone().unwrap_or_default();
        let exits: Vec<_> = seen.exits.iter().map(|(code, times)| format!("{times}×{code}")).collect();
        write!(
            f,
            "{:<23}  {by:<7}  {:>8}  {:>6}  {:>4}  {:>10} ({:>5})  {:>4}  {:>10}  {:>7}  {:>9}  {:<15}  {:>9} ms  \
             {:>11} ms  {:>7.1}",
            scenario.name,
            found.intents,
            seen.faults,
            found.lost.count,
            found.duplicated,
            self.bounds().0 + self.bounds().1,
            found.gaps.count,
            found.unexpected.count,
            found.unknown,
            found.recovered,
            exits.join(" "),
            seen.slowest_exit_ms,
            seen.slowest_resume_ms,
            self.seconds,
        )?;
        for broken in &seen.broken {
            write!(f, "\n  BROKEN {broken}")?;
        }
        if !self.holds() {
            write!(f, "\n  seed {}, files in {}", self.seed, self.folder.display())?;
        }
        Ok(())
    }
}
