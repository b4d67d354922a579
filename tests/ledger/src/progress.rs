//! How far a run has come: which messages have been done, and when each was done first.

use crate::effects::stamped;
use crate::ids::Id;
use crate::tail::Tail;
use std::collections::HashSet;
use std::io;
use std::path::Path;

/// What the collector's file says so far.
pub struct Progress {
    effects: Tail,
    seen: HashSet<Id>,
    at_ms: Vec<u64>,
}

impl Progress {
    /// As the collector's file tells it, which may not be there yet.
    pub fn of(effects: &Path) -> Self {
        Self { effects: Tail::new(effects), seen: HashSet::new(), at_ms: Vec::new() }
    }

    /// Reads on.
    pub fn look(&mut self) -> io::Result<()> {
        let mut wrong = None;
        self.effects.each(|line| match stamped(line) {
            Ok((at_ms, effect)) if self.seen.insert(effect.id) => self.at_ms.push(at_ms),
            Ok(_) => {}
            Err(error) => wrong = Some(error),
        })?;
        wrong.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }

    /// Messages that have been done.
    pub fn done(&self) -> usize {
        self.at_ms.len()
    }

    /// How many of them had been done before this time.
    pub fn before(&self, at_ms: u64) -> usize {
        self.at_ms.partition_point(|at| *at < at_ms)
    }

    /// When there were so many, from 1.
    pub fn at_ms(&self, done: usize) -> u64 {
        self.at_ms[done - 1]
    }
}
