//! The offsets of one partition under one assignment: which are delivered, which are finished, and from where on an
//! heir has to read.
//!
//! Only what is *unfinished* is kept. Of the offsets below [`Tracker::next`], all others are finished or do not exist:
//! a log has gaps where it was compacted and where a transaction ended. So its size is that of what is in flight, and
//! not of what has been finished behind one slow message.

use std::collections::VecDeque;
use std::ops::Range;

/// So many entries of finished messages may lie between unfinished ones, or as many as those, before they are cleared.
const LEFT_BETWEEN: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Delivered and not settled.
    Open,
    /// Given back, to be delivered again.
    Returned,
    /// Settled; its place is kept until there are many of them.
    Finished,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    state: State,
}

/// What to do with a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Hand it over: it is open now.
    Deliver,
    /// It is in flight or finished.
    Skip,
    /// It lies behind one that was given back and was not seen again: read once more from this offset. Said once; if
    /// the next record lies behind it as well, what was given back is in the log no more.
    Again(u64),
}

/// One partition under one assignment.
#[derive(Debug)]
pub(crate) struct Tracker {
    /// Where reading stands: no record below it is awaited.
    cursor: u64,
    /// Behind everything that was ever delivered or stepped over.
    next: u64,
    /// In order; the first one is never finished.
    entries: VecDeque<Entry>,
    open: usize,
    returned: usize,
    /// Finished by earlier owners, in order, all of it beyond `next`.
    ahead: VecDeque<Range<u64>>,
    /// What was given back and not seen when reading came by was asked for again.
    asked_again: bool,
}

impl Tracker {
    /// Begins at `base`; `finished` are runs beyond it that earlier owners have finished, in order.
    pub(crate) fn new(base: u64, finished: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut this = Self {
            cursor: base,
            next: base,
            entries: VecDeque::new(),
            open: 0,
            returned: 0,
            ahead: finished.into_iter().filter(|run| run.start < run.end).collect(),
            asked_again: false,
        };
        this.absorb();
        this
    }

    /// The next offset to commit: everything below it is finished.
    pub(crate) fn watermark(&self) -> u64 {
        self.entries.front().map_or(self.next, |first| first.offset)
    }

    /// Where reading stands.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Behind everything that was delivered.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many are delivered and not settled.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// How many were given back and are to be delivered again.
    pub(crate) fn returned(&self) -> usize {
        self.returned
    }

    /// Whether what is read next lies among what was delivered or finished before.
    pub(crate) fn lies_behind(&self) -> bool {
        self.returned > 0 || !self.ahead.is_empty()
    }

    /// Finished runs beyond the watermark, in order.
    pub(crate) fn finished(&self) -> impl Iterator<Item = Range<u64>> {
        let unfinished = self.entries.iter().filter(|entry| entry.state != State::Finished).map(|entry| entry.offset);
        let ends = unfinished.clone().skip(1).chain([self.next]);
        let between = unfinished.zip(ends).map(|(offset, end)| offset + 1..end).filter(|run| run.start < run.end);
        between.chain(self.ahead.iter().cloned())
    }

    /// A record was read at that offset.
    pub(crate) fn step(&mut self, offset: u64) -> Step {
        if offset < self.cursor {
            return Step::Skip;
        }
        if self.returned > 0
            && let Some(missed) = self.returned_in(self.cursor..offset)
        {
            if !std::mem::replace(&mut self.asked_again, true) {
                self.cursor = missed;
                return Step::Again(missed);
            }
            self.forget_returned(self.cursor..offset);
        }
        self.asked_again = false;
        self.cursor = offset + 1;
        if offset >= self.next {
            self.next = offset;
            self.absorb();
            if self.next > offset {
                return Step::Skip;
            }
            self.next = offset + 1;
            self.entries.push_back(Entry { offset, state: State::Open });
            self.open += 1;
            self.absorb();
            return Step::Deliver;
        }
        match self.find(offset) {
            Some(at) if self.entries[at].state == State::Returned => {
                self.entries[at].state = State::Open;
                self.returned -= 1;
                self.open += 1;
                Step::Deliver
            }
            _ => Step::Skip,
        }
    }

    /// It is done with. False when it is not in flight.
    pub(crate) fn settle(&mut self, offset: u64) -> bool {
        let Some(at) = self.find(offset).filter(|at| self.entries[*at].state == State::Open) else { return false };
        self.entries[at].state = State::Finished;
        self.open -= 1;
        self.clear();
        true
    }

    /// It is to be delivered again. False when it is not in flight.
    pub(crate) fn give_back(&mut self, offset: u64) -> bool {
        let Some(at) = self.find(offset).filter(|at| self.entries[*at].state == State::Open) else { return false };
        self.entries[at].state = State::Returned;
        self.open -= 1;
        self.returned += 1;
        true
    }

    /// Where reading has to begin anew for the sake of what was given back, if it has passed any of it.
    pub(crate) fn rewind(&mut self) -> Option<u64> {
        if self.returned == 0 {
            return None;
        }
        let first = self.returned_in(0..self.cursor)?;
        self.cursor = first;
        Some(first)
    }

    fn returned_in(&self, range: Range<u64>) -> Option<u64> {
        let from = self.entries.partition_point(|entry| entry.offset < range.start);
        let mut entries = self.entries.range(from..).take_while(|entry| entry.offset < range.end);
        entries.find(|entry| entry.state == State::Returned).map(|entry| entry.offset)
    }

    /// They are in the log no more: nobody can deliver them.
    fn forget_returned(&mut self, range: Range<u64>) {
        for entry in self.entries.iter_mut().filter(|entry| range.contains(&entry.offset)) {
            if entry.state == State::Returned {
                entry.state = State::Finished;
                self.returned -= 1;
            }
        }
        self.clear();
    }

    /// Takes in what earlier owners have finished, as far as reading has come.
    fn absorb(&mut self) {
        while self.ahead.front().is_some_and(|run| run.start <= self.next) {
            let run = self.ahead.pop_front().expect("there is a first run");
            self.next = self.next.max(run.end);
        }
    }

    fn find(&self, offset: u64) -> Option<usize> {
        let first = self.entries.front()?.offset;
        // Right as long as nothing was cleared between and the log has no gaps.
        let guess = usize::try_from(offset.checked_sub(first)?).ok()?;
        if self.entries.get(guess).is_some_and(|entry| entry.offset == offset) {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()
    }

    fn clear(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.state == State::Finished) {
            self.entries.pop_front();
        }
        let unfinished = self.open + self.returned;
        if self.entries.len() > LEFT_BETWEEN.max(2 * unfinished) + unfinished {
            self.entries.retain(|entry| entry.state != State::Finished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_watermark_is_the_first_unfinished_offset_whatever_the_order_of_settling() {
        let mut tracker = Tracker::new(10, []);
        (10..14).for_each(|offset| assert_eq!(tracker.step(offset), Step::Deliver));
        assert!(tracker.settle(12) && tracker.settle(11));
        assert_eq!((tracker.watermark(), tracker.finished().eq(std::iter::once(11..13))), (10, true));
        assert!(tracker.settle(10));
        assert_eq!(tracker.watermark(), 13);
        assert!(tracker.settle(13) && !tracker.settle(13));
        assert_eq!((tracker.watermark(), tracker.finished().count()), (14, 0));
    }

    #[test]
    fn a_gap_in_the_log_holds_nothing_up() {
        let mut tracker = Tracker::new(0, []);
        assert_eq!((tracker.step(5), tracker.step(9)), (Step::Deliver, Step::Deliver));
        assert!(tracker.settle(5));
        assert_eq!(tracker.watermark(), 9);
    }

    #[test]
    fn what_an_earlier_owner_finished_is_stepped_over() {
        let mut tracker = Tracker::new(3, [4..6, 8..9]);
        let delivered: Vec<u64> = (3..11).filter(|offset| tracker.step(*offset) == Step::Deliver).collect();
        assert_eq!(delivered, [3, 6, 7, 9, 10]);
    }

    #[test]
    fn an_unread_part_of_the_map_is_handed_on() {
        let mut tracker = Tracker::new(3, [5..6, 8..9]);
        assert_eq!(tracker.step(3), Step::Deliver);
        assert_eq!(tracker.finished().collect::<Vec<_>>(), [5..6, 8..9]);
        assert!(tracker.settle(3));
        assert_eq!(tracker.watermark(), 4);
    }

    #[test]
    fn what_vanished_from_the_log_is_believed_gone_at_the_second_sight() {
        let mut tracker = Tracker::new(0, []);
        (0..4).for_each(|offset| assert_eq!(tracker.step(offset), Step::Deliver));
        assert!(tracker.give_back(1));
        assert_eq!(tracker.rewind(), Some(1));
        assert_eq!(tracker.step(3), Step::Again(1));
        assert_eq!(tracker.step(3), Step::Skip);
        assert!(tracker.settle(0) && tracker.settle(2));
        assert_eq!(tracker.watermark(), 3);
    }

    #[derive(Debug, Clone)]
    enum Move {
        Read,
        Settle(usize),
        Return(usize),
        Rewind,
        Reread,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            8 => Just(Move::Read),
            6 => (0usize..64).prop_map(Move::Settle),
            2 => (0usize..64).prop_map(Move::Return),
            1 => Just(Move::Rewind),
            1 => Just(Move::Reread),
        ];
        proptest::collection::vec(one, 0..400)
    }

    proptest! {
        /// A log with gaps, read with duplicates; settled and given back in any order. Whenever an heir took over by
        /// the watermark and the finished runs, it would do all that is unfinished, and nothing that is finished.
        #[test]
        fn an_heir_does_what_is_unfinished_and_nothing_else(
            gaps in proptest::collection::vec(1u64..4, 1..200),
            moves in moves(),
        ) {
            let log: Vec<u64> = gaps.iter().scan(7, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut tracker = Tracker::new(7, []);
            let (mut open, mut finished) = (BTreeSet::new(), BTreeSet::new());
            let mut position = 0usize;
            for step in moves {
                match step {
                    Move::Read => {
                        let Some(&offset) = log.get(position) else { continue };
                        position += 1;
                        if tracker.step(offset) == Step::Deliver {
                            prop_assert!(!finished.contains(&offset), "{offset} was finished");
                            prop_assert!(open.insert(offset), "{offset} is in flight twice");
                        }
                    }
                    Move::Settle(n) => {
                        let Some(&offset) = open.iter().nth(n) else { continue };
                        open.remove(&offset);
                        finished.insert(offset);
                        prop_assert!(tracker.settle(offset));
                        prop_assert!(!tracker.settle(offset));
                    }
                    Move::Return(n) => {
                        let Some(&offset) = open.iter().nth(n) else { continue };
                        open.remove(&offset);
                        prop_assert!(tracker.give_back(offset));
                        prop_assert!(!tracker.settle(offset));
                    }
                    Move::Rewind => {
                        if let Some(offset) = tracker.rewind() {
                            position = log.partition_point(|at| *at < offset);
                        }
                    }
                    Move::Reread => position = position.saturating_sub(3),
                }
                prop_assert_eq!(tracker.open(), open.len());
                let (watermark, runs) = (tracker.watermark(), tracker.finished().collect::<Vec<_>>());
                let done = |offset: u64| offset < watermark || runs.iter().any(|run| run.contains(&offset));
                for offset in &log {
                    prop_assert_eq!(done(*offset), finished.contains(offset), "offset {}", offset);
                }
                prop_assert!(runs.windows(2).all(|two| two[0].end < two[1].start), "runs in order: {:?}", runs);
            }
            // All that is left is delivered in the end.
            open.iter().for_each(|offset| { tracker.give_back(*offset); });
            position = tracker.rewind().map_or(position, |offset| log.partition_point(|at| *at < offset));
            position = position.min(log.partition_point(|at| *at < tracker.next()));
            for offset in &log[position..] {
                if tracker.step(*offset) == Step::Deliver {
                    prop_assert!(finished.insert(*offset));
                }
            }
            prop_assert_eq!(finished.len(), log.len());
        }

        #[test]
        fn one_slow_message_costs_no_memory_for_each_fast_one(count in 1u64..20_000) {
            let mut tracker = Tracker::new(0, []);
            tracker.step(0);
            for offset in 1..=count {
                tracker.step(offset);
                tracker.settle(offset);
            }
            prop_assert_eq!(tracker.watermark(), 0);
            prop_assert!(tracker.entries.len() <= LEFT_BETWEEN + 2);
            prop_assert!(tracker.finished().eq(std::iter::once(1..count + 1)));
        }
    }
}
