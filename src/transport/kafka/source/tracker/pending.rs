//! Settlements that no confirmed commit covers yet, counted by what became of each.

use crate::failure::Tally;
use crate::transport::Verdict;

/// More groups of settlements than this are merged: they are then proven together.
const GROUPS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Group {
    /// The highest offset in it.
    highest: u64,
    tally: Tally,
}

/// Of one partition.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Told since the last commit was written.
    fresh: Option<Group>,
    /// In the commit that is under way, if that covers them.
    sent: Vec<Group>,
}

impl Pending {
    /// One was told.
    pub(crate) fn add(&mut self, offset: u64, verdict: Verdict) {
        let fresh = self.fresh.get_or_insert(Group { highest: offset, tally: Tally::default() });
        fresh.highest = fresh.highest.max(offset);
        verdict.count(&mut fresh.tally);
    }

    /// A commit is written from what is known now.
    pub(crate) fn send(&mut self) {
        self.sent.extend(self.fresh.take());
        if self.sent.len() > GROUPS {
            let last = self.sent.pop().expect("there are many");
            let before = self.sent.last_mut().expect("there are many");
            before.highest = before.highest.max(last.highest);
            before.tally += last.tally;
        }
    }

    /// That commit is confirmed, and says of everything below `covers` what is finished.
    pub(crate) fn confirmed(&mut self, covers: u64) -> Tally {
        let mut proven = Tally::default();
        self.sent.retain(|group| {
            let covered = group.highest < covers;
            if covered {
                proven += group.tally;
            }
            !covered
        });
        proven
    }

    /// Whether something was told that the last commit did not know.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh.is_some()
    }

    /// Whether a commit was written and has not proven everything.
    pub(crate) fn waits(&self) -> bool {
        !self.sent.is_empty()
    }

    /// All of them.
    pub(crate) fn total(&self) -> Tally {
        let mut all = Tally::default();
        self.fresh.iter().chain(&self.sent).for_each(|group| all += group.tally);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_commit_knew_and_covers_is_proven_by_it() {
        let mut pending = Pending::default();
        pending.add(3, Verdict::Acked);
        pending.add(9, Verdict::Discarded);
        pending.send();
        pending.add(4, Verdict::Acked);
        assert_eq!(pending.confirmed(9).total(), 0, "9 is not below 9");
        pending.send();
        assert_eq!(pending.confirmed(9), Tally { acked: 1, ..Tally::default() });
        assert_eq!(pending.confirmed(u64::MAX), Tally { acked: 1, discarded: 1, ..Tally::default() });
        assert_eq!((pending.total().total(), pending.is_fresh()), (0, false));
    }
}
