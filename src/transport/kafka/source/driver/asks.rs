//! What the engine tells: most of it is done at once, in the books.

use super::{Driver, committing, leaving};
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Event, Settlement};
use std::collections::HashSet;
use std::time::Instant;

impl Driver {
    pub(super) fn told(&mut self, ask: Ask) {
        match ask {
            Ask::Settle(these) => self.settle(&these),
            Ask::Return(these) => {
                for at in &these {
                    self.give_back(*at);
                }
                self.desk.out_of_hand(these.len() as u64);
                let touched: HashSet<u32> = these.iter().map(|at| at.partition).collect();
                self.read_again(&touched);
                self.desk.go_on();
            }
            Ask::Mark(at) => {
                let part = self.parts.get_mut(&at.partition).filter(|part| part.is_of(at));
                if let Some(work) = part.and_then(|part| part.work.as_mut()) {
                    work.begin_run(at.position);
                    self.marks.push(at);
                }
            }
            Ask::Flush { by } => self.flushes.push(committing::Flushing { by, round: None }),
            Ask::StopIntake => {
                self.intake_stopped = true;
                self.take_back(|_| true);
            }
            Ask::Pause(Some(partitions)) => {
                let these: HashSet<u32> = partitions.iter().copied().collect();
                for part in self.parts.values_mut().filter(|part| these.contains(&part.number)) {
                    part.paused = true;
                }
                self.read_again(&these);
                self.paused.extend(these);
                self.desk.go_on();
            }
            Ask::Resume(partitions) => {
                let resumed: Vec<u32> = match partitions {
                    Some(these) => these.into_vec(),
                    None => self.paused.iter().copied().collect(),
                };
                for number in resumed {
                    self.paused.remove(&number);
                    self.parts.entry(number).and_modify(|part| part.paused = false);
                    self.list(number);
                }
            }
            Ask::Released(ownership) => self.released(&ownership),
            Ask::Measure => self.measuring = true,
            Ask::Close { by } => {
                self.take_back(|_| true);
                self.closing = Some(leaving::Closing::new(by));
            }
            _ => {}
        }
    }

    fn settle(&mut self, these: &[Settlement]) {
        let (mut stale, mut settled) = (Tally::default(), 0);
        // Settlements of a partition come in a row: it is looked up once for each.
        for row in these.chunk_by(|one, next| one.at.partition == next.at.partition) {
            let mut part = self.parts.get_mut(&row[0].at.partition);
            for Settlement { at, verdict } in row {
                let ours = part.as_mut().filter(|part| part.is_of(*at)).and_then(|part| part.work.as_mut());
                let Some(work) = ours else {
                    verdict.count(&mut stale);
                    continue;
                };
                if !work.tracker.settle(at.position) {
                    verdict.count(&mut stale);
                    continue;
                }
                work.pending.add(at.position, *verdict);
                work.end_run(at.position, true);
                settled += 1;
            }
        }
        if settled > 0 {
            self.desk.out_of_hand(settled);
            self.commits.worth(Instant::now());
        }
        if stale.total() > 0 {
            self.say_settled(Tally::default(), stale, Tally::default());
        }
    }

    pub(super) fn say_settled(&self, proven: Tally, stale: Tally, unknown: Tally) {
        if proven.total() + stale.total() + unknown.total() > 0 {
            self.desk.say(Event::Settled { proven, stale, unknown });
        }
    }

    fn give_back(&mut self, at: At) {
        let part = self.parts.get_mut(&at.partition).filter(|part| part.is_of(at));
        let Some(work) = part.and_then(|part| part.work.as_mut()) else { return };
        if work.tracker.give_back(at.position) {
            work.end_run(at.position, false);
        }
    }

    /// Takes back what was read of these and not handed over.
    pub(super) fn take_back(&mut self, which: impl Fn(u32) -> bool) {
        for slab in self.desk.take_ready(which) {
            for head in slab.heads() {
                self.give_back(head.at);
            }
        }
    }

    /// Takes back what was read of these and not handed over, and goes back to the first one that was given back.
    fn read_again(&mut self, these: &HashSet<u32>) {
        self.take_back(|number| these.contains(&number));
        if self.intake_stopped {
            return;
        }
        for number in these {
            self.rewind(*number);
        }
    }
}
