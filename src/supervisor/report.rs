//! The shutdown report: what became of every delivery, how long each phase took, and what is stuck where.
//!
//! Plain data with two renderings: a table for a person, one JSON value for a machine. Both end in the same counts.

use super::drain::{Cause, Kind};
use super::phases::Phase;
use crate::duration;
use crate::failure::Tally;
use crate::process::board::{Cells, Running};
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How the deliveries of a worker ended; each ended as exactly one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Delivered; a redelivery is received anew.
    pub received: u64,
    /// Handled.
    pub acked: u64,
    /// Handed to a durable retry.
    pub retried: u64,
    /// Stored as a dead letter.
    pub dead_lettered: u64,
    /// Dropped on the handler's word.
    pub discarded: u64,
    /// Given back, or its ownership was lost.
    pub returned: u64,
    /// Unfinished, and its source cannot take back.
    pub abandoned: u64,
    /// Settled, and the broker never confirmed it.
    pub unknown: u64,
}

impl Counts {
    /// The counts as they stand on the board now.
    pub fn read(cells: &Cells) -> Self {
        let of = |cell: &AtomicU64| cell.load(Relaxed);
        Self {
            received: of(&cells.received),
            acked: of(&cells.acked),
            retried: of(&cells.retried),
            dead_lettered: of(&cells.dead_lettered),
            discarded: of(&cells.discarded),
            returned: of(&cells.returned),
            abandoned: of(&cells.abandoned),
            unknown: of(&cells.unknown),
        }
    }

    /// What the counts do not explain: 0, or a bug. Negative when more was settled than received.
    pub fn unaccounted(&self) -> i64 {
        let settled =
            [self.acked, self.retried, self.dead_lettered, self.discarded, self.returned, self.abandoned, self.unknown];
        settled.into_iter().fold(self.received as i64, |rest, count| rest.wrapping_sub(count as i64))
    }

    /// The names and numbers in the order in which they are printed everywhere.
    pub fn named(&self) -> [(&'static str, i64); 9] {
        [
            ("received", self.received as i64),
            ("acked", self.acked as i64),
            ("retried", self.retried as i64),
            ("dead_lettered", self.dead_lettered as i64),
            ("discarded", self.discarded as i64),
            ("returned", self.returned as i64),
            ("abandoned", self.abandoned as i64),
            ("unknown", self.unknown as i64),
            ("unaccounted", self.unaccounted()),
        ]
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.acked += other.acked;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.discarded += other.discarded;
        self.returned += other.returned;
        self.abandoned += other.abandoned;
        self.unknown += other.unknown;
    }
}

impl std::ops::AddAssign<Tally> for Counts {
    fn add_assign(&mut self, settled: Tally) {
        self.acked += settled.acked;
        self.retried += settled.retried;
        self.dead_lettered += settled.dead_lettered;
        self.discarded += settled.discarded;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

/// `counts received=N acked=N … unaccounted=N`: the last line of every command.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counts")?;
        self.named().iter().try_for_each(|(name, count)| write!(f, " {name}={count}"))
    }
}

impl Serialize for Counts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.named())
    }
}

/// How the stop of an actor went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// Well.
    Properly,
    /// Well, and it took longer than a resource should.
    Slowly,
    /// With an error or a panic.
    Failed,
    /// Not within its bound: it was abandoned.
    Hung,
    /// It had not been started.
    NotStarted,
}

impl Stopped {
    fn name(self) -> &'static str {
        match self {
            Stopped::Properly => "stopped",
            Stopped::Slowly => "slow",
            Stopped::Failed => "failed",
            Stopped::Hung => "hung",
            Stopped::NotStarted => "not started",
        }
    }
}

/// How long an actor spent in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PhaseTime {
    /// Which phase.
    pub phase: Phase,
    /// How long, in milliseconds.
    pub ms: u64,
}

/// One actor of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How its stop went.
    pub stopped: Stopped,
    /// Why, where it did not go well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time in each phase in which it had something to do.
    pub phases: Vec<PhaseTime>,
    /// What became of its deliveries; only workers have some.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub counts: Option<Counts>,
}

/// A message that a worker held to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// Name of the worker.
    pub worker: String,
    /// Where the message lies in its source.
    pub position: u64,
    /// Its partition.
    pub partition: u32,
    /// Which attempt was running.
    pub attempt: u32,
    /// How long it had been running, in milliseconds.
    pub age_ms: u64,
}

impl Stuck {
    /// A message that is still on the board, at this time of the board.
    pub fn of(worker: &str, running: Running, now_ms: u64) -> Self {
        Self {
            worker: worker.into(),
            position: running.position,
            partition: running.partition,
            attempt: running.attempt,
            age_ms: now_ms.saturating_sub(running.started_ms),
        }
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the app.
    pub app: String,
    /// Why it stopped.
    pub cause: Cause,
    /// The exit code.
    pub exit_code: u8,
    /// From the first request to the report.
    pub elapsed: Duration,
    /// How long each phase took.
    pub phases: Vec<PhaseTime>,
    /// In start order.
    pub actors: Vec<ActorReport>,
    /// What was running to the end.
    pub stuck: Vec<Stuck>,
}

#[derive(Serialize)]
struct Json<'a> {
    event: &'static str,
    app: &'a str,
    cause: &'static str,
    exit_code: u8,
    elapsed_ms: u128,
    phases: &'a [PhaseTime],
    workers: Vec<&'a ActorReport>,
    others: Vec<&'a ActorReport>,
    stuck: &'a [Stuck],
    total: Counts,
}

impl Report {
    /// The sum over all workers.
    pub fn total(&self) -> Counts {
        self.actors.iter().filter_map(|actor| actor.counts).sum()
    }

    /// One JSON value: `event` is `shutdown_report`; each of `workers` and `total` has the keys of the counts.
    pub fn json(&self) -> serde_json::Value {
        let (workers, others) = self.actors.iter().partition(|actor| actor.counts.is_some());
        let json = Json {
            event: "shutdown_report",
            app: &self.app,
            cause: self.cause.name(),
            exit_code: self.exit_code,
            elapsed_ms: self.elapsed.as_millis(),
            phases: &self.phases,
            workers,
            others,
            stuck: &self.stuck,
            total: self.total(),
        };
        serde_json::to_value(json).expect("names and numbers are JSON")
    }

    /// A table for a terminal, ending in a line feed. Columns of counts that are 0 everywhere are left out.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} stopped by {} in {}, exit {}\n",
            self.app,
            self.cause,
            duration::short(self.elapsed),
            self.exit_code
        );
        self.write_phases(&mut text);
        self.write_workers(&mut text);
        for actor in &self.actors {
            if !matches!(actor.stopped, Stopped::Properly | Stopped::NotStarted) {
                let _ = write!(text, "  {} {}: {}", actor.kind.name(), plain(&actor.name), actor.stopped.name());
                if let Some(error) = &actor.error {
                    let _ = write!(text, ": {}", plain(error));
                }
                text.push('\n');
            }
        }
        for stuck in &self.stuck {
            let age = duration::short(Duration::from_millis(stuck.age_ms));
            let _ = writeln!(
                text,
                "  stuck in {}: message at {} of partition {}, attempt {}, for {age}",
                plain(&stuck.worker),
                stuck.position,
                stuck.partition,
                stuck.attempt
            );
        }
        text
    }

    fn write_phases(&self, text: &mut String) {
        let worth_a_word = |time: &&PhaseTime| time.ms > 0;
        let phases: Vec<_> = (self.phases.iter().filter(worth_a_word))
            .map(|time| format!("{} {}", time.phase, duration::short(Duration::from_millis(time.ms))))
            .collect();
        if !phases.is_empty() {
            let _ = writeln!(text, "  {}", phases.join(", "));
        }
    }

    fn write_workers(&self, text: &mut String) {
        let mut rows: Vec<(String, Counts)> =
            self.actors.iter().filter_map(|actor| Some((plain(&actor.name), actor.counts?))).collect();
        if rows.is_empty() {
            return;
        }
        rows.push(("total".into(), self.total()));
        let named: Vec<_> = rows.iter().map(|(_, counts)| counts.named()).collect();
        // Received and acked are always of interest, the rest only where it happened.
        let columns: Vec<usize> = (0..9).filter(|&at| at < 2 || named.iter().any(|row| row[at].1 != 0)).collect();
        let widest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let width = |at: usize| {
            let digits = named.iter().map(|row| row[at].1.to_string().len()).max().unwrap_or(0);
            digits.max(named[0][at].0.len())
        };
        let _ = write!(text, "  {:widest$}", "");
        for &at in &columns {
            let _ = write!(text, "  {:>1$}", named[0][at].0, width(at));
        }
        text.push('\n');
        for ((name, _), row) in rows.iter().zip(&named) {
            let _ = write!(text, "  {name:widest$}");
            for &at in &columns {
                let _ = write!(text, "  {:>1$}", row[at].1, width(at));
            }
            text.push('\n');
        }
    }
}

/// Without control characters, which could play with a terminal.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let counts = Counts { received: 1_000, acked: 990, returned: 9, ..Counts::default() };
        let actor = |name: &str, kind, stopped, counts| ActorReport {
            name: name.into(),
            kind,
            stopped,
            error: None,
            phases: vec![PhaseTime { phase: Phase::Stopping, ms: 3 }],
            counts,
        };
        Report {
            app: "orders".into(),
            cause: Cause::Sigterm,
            exit_code: 75,
            elapsed: Duration::from_millis(2_400),
            phases: vec![PhaseTime { phase: Phase::NotReady, ms: 0 }, PhaseTime { phase: Phase::Draining, ms: 2_000 }],
            actors: vec![
                actor("db", Kind::Resource, Stopped::Hung, None),
                actor("ship", Kind::Consumer, Stopped::Properly, Some(counts)),
                actor("archive", Kind::Bridge, Stopped::Properly, Some(Counts { received: 5, acked: 5, ..counts })),
            ],
            stuck: vec![Stuck { worker: "ship".into(), position: 41, partition: 0, attempt: 2, age_ms: 30_000 }],
        }
    }

    #[test]
    fn what_the_counts_do_not_explain_is_unaccounted() {
        let line = "counts received=1000 acked=990 retried=0 dead_lettered=0 discarded=0 returned=9 abandoned=0 \
                    unknown=0 unaccounted=1";
        assert_eq!(report().actors[1].counts.unwrap().to_string(), line);
        assert_eq!(Counts { acked: 1, ..Counts::default() }.unaccounted(), -1);
    }

    #[test]
    fn the_json_report_has_the_counts_for_each_worker_and_in_total() {
        let json = report().json();
        assert_eq!(json["event"], "shutdown_report");
        assert_eq!((&json["exit_code"], &json["cause"]), (&75.into(), &"sigterm".into()));
        let ship = &json["workers"][0];
        assert_eq!((&ship["name"], &ship["received"], &ship["unaccounted"]), (&"ship".into(), &1000.into(), &1.into()));
        let total = json["total"].as_object().unwrap();
        assert_eq!(total.len(), 9);
        assert_eq!((&total["received"], &total["acked"]), (&1005.into(), &995.into()));
        assert_eq!((&json["others"][0]["name"], &json["others"][0]["stopped"]), (&"db".into(), &"hung".into()));
        assert_eq!(json["stuck"][0]["position"], 41);
    }

    #[test]
    fn the_table_names_who_hung_and_what_is_stuck_and_leaves_out_what_did_not_happen() {
        let table = report().table();
        for wanted in [
            "orders stopped by sigterm in 2.4s, exit 75\n",
            "  draining 2s\n",
            "           received  acked  returned  unaccounted\n",
            "  ship         1000    990         9            1\n",
            "  archive         5      5         9           -9\n",
            "  resource db: hung\n",
            "  stuck in ship: message at 41 of partition 0, attempt 2, for 30s\n",
        ] {
            assert!(table.contains(wanted), "{wanted:?} is missing in\n{table}");
        }
        assert!(!table.contains("discarded"), "{table}");
    }

    #[test]
    fn a_name_cannot_play_with_the_terminal() {
        let mut report = report();
        report.actors[0].error = Some("\u{1b}[2J".into());
        assert!(!report.table().contains('\u{1b}'));
    }
}
