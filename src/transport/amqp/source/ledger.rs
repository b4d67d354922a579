//! What was delivered on one channel, and which acks are due: pure.
//!
//! Tags of a channel are consecutive, so a window of entries knows each by its place. What is settled at the front is
//! acked by one frame, `multiple`. A slow message at the front must not stall the rest: what is settled behind it is
//! acked singly, after [`ACK_WITHIN`] or once it is a quarter of what the broker lets out.

use crate::failure::Tally;
use crate::transport::Verdict;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// No settlement waits longer for its ack to be sent, as the contract of a source says.
pub(super) const ACK_WITHIN: Duration = Duration::from_millis(10);
/// So many settlements at the front are worth a frame of their own.
const WORTH_A_FRAME: usize = 64;
/// This part of the prefetch may be settled and not acked.
const PART_OF_PREFETCH: usize = 4;
/// Other consumers of a channel are witnesses, each of which is sent one message at most.
const MOST_SKIPPED: u64 = super::witness::MOST as u64;

/// One delivery.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When it was delivered; once it is settled, when that was.
    since: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has settled it.
    Open,
    /// Given back, and the broker does not know yet.
    Returned,
    /// Settled so, and the broker does not know yet.
    Settled(Verdict),
    /// The broker was told.
    Told,
    /// It went to another consumer of the channel, and is never settled here.
    Elsewhere,
}

/// A frame to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// Everything up to this tag.
    UpTo(u64),
    /// This tag alone.
    One(u64),
}

/// Frames to be sent, and what they tell of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    pub(super) frames: Vec<Ack>,
    pub(super) tally: Tally,
}

/// What was delivered on one channel and the broker has not been told of.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Tag of the first entry.
    base: u64,
    entries: VecDeque<Entry>,
    /// Entries at the front that are settled or told, as far as was looked.
    prefix: usize,
    /// Settlements that the broker was not told of, and when the oldest of them came.
    unsent: Tally,
    unsent_since: Option<Instant>,
    /// Entries that are [`State::Open`] or [`State::Returned`].
    open: usize,
    returned: usize,
}

impl Ledger {
    /// Of a channel on which nothing was delivered yet.
    pub(super) fn new() -> Self {
        Self {
            base: 1,
            entries: VecDeque::new(),
            prefix: 0,
            unsent: Tally::default(),
            unsent_since: None,
            open: 0,
            returned: 0,
        }
    }

    /// The next delivery. Tags that it skips went to another consumer of the channel. `false` when it comes before the
    /// last, or skips more than there can be, which no broker does.
    pub(super) fn delivered(&mut self, tag: u64, now: Instant) -> bool {
        if !(self.next_tag()..=self.next_tag() + MOST_SKIPPED).contains(&tag) {
            return false;
        }
        while self.next_tag() < tag {
            self.entries.push_back(Entry { since: now, state: State::Elsewhere });
        }
        self.entries.push_back(Entry { since: now, state: State::Open });
        self.open += 1;
        true
    }

    fn entry(&mut self, tag: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(tag.checked_sub(self.base)?).ok()?)
    }

    /// Settles a delivery; whether it was there to be settled.
    pub(super) fn settle(&mut self, tag: u64, verdict: Verdict, now: Instant) -> bool {
        match self.entry(tag) {
            Some(entry) if entry.state == State::Open => *entry = Entry { since: now, state: State::Settled(verdict) },
            _ => return false,
        }
        self.open -= 1;
        verdict.count(&mut self.unsent);
        self.unsent_since.get_or_insert(now);
        true
    }

    /// Takes a delivery back, for the broker to be told later; whether it was there to be taken.
    pub(super) fn give_back(&mut self, tag: u64) -> bool {
        match self.entry(tag) {
            Some(entry) if entry.state == State::Open => entry.state = State::Returned,
            _ => return false,
        }
        self.open -= 1;
        self.returned += 1;
        true
    }

    /// Deliveries that nobody has settled or given back.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Deliveries that count against the prefetch, as far as is known here.
    pub(super) fn held(&self) -> usize {
        self.entries.len()
    }

    /// The tag of the next delivery.
    pub(super) fn next_tag(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Deliveries from this tag on that the broker was not told of.
    pub(super) fn unacked(&self, from: u64) -> usize {
        let skip = usize::try_from(from.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).filter(|entry| !matches!(entry.state, State::Told | State::Elsewhere)).count()
    }

    /// Settlements that the broker was not told of.
    pub(super) fn unsent(&self) -> Tally {
        self.unsent
    }

    /// Tags that were given back, in order. From now on the broker counts as told of them.
    pub(super) fn take_returned(&mut self) -> Vec<u64> {
        let mut tags = Vec::with_capacity(self.returned);
        for (entry, tag) in self.entries.iter_mut().zip(self.base..) {
            if entry.state == State::Returned {
                entry.state = State::Told;
                tags.push(tag);
            }
        }
        self.returned = 0;
        tags
    }

    /// When the oldest open delivery from this tag on was delivered.
    pub(super) fn oldest_open(&self, from: u64) -> Option<Instant> {
        let skip = usize::try_from(from.saturating_sub(self.base)).ok()?;
        self.entries.iter().skip(skip).find(|entry| entry.state == State::Open).map(|entry| entry.since)
    }

    /// Tags from this one on, below that one, that are open and were delivered at `limit` or before, and when.
    pub(super) fn open_since(&self, from: u64, below: u64, limit: Instant) -> Vec<(u64, Instant)> {
        // In the order of delivery, so that nothing behind the first younger one is older.
        (self.base..below)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.state == State::Open)
            .take_while(|(_, entry)| entry.since <= limit)
            .filter(|(tag, _)| *tag >= from)
            .map(|(tag, entry)| (tag, entry.since))
            .collect()
    }

    /// Whether anything is open behind the one tag and up to the other.
    pub(super) fn open_up_to(&self, behind: u64, to: u64) -> bool {
        (self.base..=to).zip(&self.entries).any(|(tag, entry)| tag > behind && entry.state == State::Open)
    }

    fn look_at_prefix(&mut self) -> usize {
        let done = |entry: &&Entry| matches!(entry.state, State::Settled(_) | State::Told);
        self.prefix += self.entries.iter().skip(self.prefix).take_while(done).count();
        self.prefix
    }

    /// How many settlements may wait, of so many that the broker lets out.
    fn quarter(prefetch: usize) -> usize {
        (prefetch / PART_OF_PREFETCH).max(1)
    }

    /// The frames that are due. `all`: as if every time were over.
    pub(super) fn due(&mut self, prefetch: u16, now: Instant, all: bool) -> Option<Acks> {
        let waiting = self.unsent.total() as usize;
        if waiting == 0 {
            self.forget_told();
            return None;
        }
        let quarter = Self::quarter(usize::from(prefetch));
        let late = self.unsent_since.is_some_and(|since| now >= since + ACK_WITHIN);
        let prefix = self.look_at_prefix();
        if !all && !late && waiting < quarter && prefix < WORTH_A_FRAME.min(quarter) {
            return None;
        }
        let mut acks = Acks::default();
        let mut last = None;
        for (entry, tag) in self.entries.drain(..prefix).zip(self.base..) {
            if let State::Settled(verdict) = entry.state {
                verdict.count(&mut acks.tally);
                last = Some(tag);
            }
        }
        self.base += prefix as u64;
        self.prefix = 0;
        acks.frames.extend(last.map(Ack::UpTo));
        // The one at the front may be about to be settled: a frame of its own costs each of those behind it as much as
        // a whole prefix costs.
        let mut behind = waiting - acks.tally.total() as usize;
        let each = all || behind >= quarter;
        self.unsent_since = None;
        for (entry, tag) in self.entries.iter_mut().zip(self.base..) {
            if behind == 0 {
                break;
            }
            let State::Settled(verdict) = entry.state else { continue };
            behind -= 1;
            if each || now >= entry.since + ACK_WITHIN {
                entry.state = State::Told;
                verdict.count(&mut acks.tally);
                acks.frames.push(Ack::One(tag));
            } else {
                self.unsent_since = Some(self.unsent_since.map_or(entry.since, |oldest| oldest.min(entry.since)));
            }
        }
        self.unsent -= acks.tally;
        (!acks.frames.is_empty()).then_some(acks)
    }

    /// What was told singly need not be kept once everything before it is told too.
    fn forget_told(&mut self) {
        let told = self.look_at_prefix();
        self.entries.drain(..told);
        self.base += told as u64;
        self.prefix = 0;
    }

    /// When [`Ledger::due`] is worth asking again, if nothing happens before.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.unsent_since.map(|since| since + ACK_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn delivered(count: u64, now: Instant) -> Ledger {
        let mut ledger = Ledger::new();
        (1..=count).for_each(|tag| assert!(ledger.delivered(tag, now)));
        ledger
    }

    fn settle(ledger: &mut Ledger, tags: impl IntoIterator<Item = u64>, now: Instant) {
        tags.into_iter().for_each(|tag| assert!(ledger.settle(tag, Verdict::Acked, now)));
    }

    #[test]
    fn what_is_settled_in_order_goes_in_one_frame_once_it_is_worth_it() {
        let now = Instant::now();
        let mut ledger = delivered(1_000, now);
        settle(&mut ledger, 1..=63, now);
        assert_eq!(ledger.due(1_000, now, false), None);
        settle(&mut ledger, [64], now);
        let acks = ledger.due(1_000, now, false).unwrap();
        assert_eq!((acks.frames, acks.tally.acked), (vec![Ack::UpTo(64)], 64));
    }

    #[test]
    fn a_lone_settlement_waits_ten_milliseconds() {
        let now = Instant::now();
        let mut ledger = delivered(1_000, now);
        settle(&mut ledger, [1], now);
        assert_eq!(ledger.due(1_000, now, false), None);
        assert_eq!(ledger.due_at(), Some(now + ACK_WITHIN));
        assert_eq!(ledger.due(1_000, now + ACK_WITHIN, false).unwrap().frames, [Ack::UpTo(1)]);
        assert_eq!(ledger.due_at(), None);
    }

    #[test]
    fn each_settlement_waits_its_own_ten_milliseconds_for_the_one_before_it() {
        let now = Instant::now();
        let later = |millis| now + Duration::from_millis(millis);
        let mut ledger = delivered(1_000, now);
        settle(&mut ledger, (1..=64).chain(66..=100), now);
        assert_eq!(ledger.due(1_000, now, false).unwrap().frames, [Ack::UpTo(64)]);
        settle(&mut ledger, [102], later(8));
        settle(&mut ledger, [65], later(9));
        assert_eq!(ledger.due_at(), Some(now + ACK_WITHIN));
        assert_eq!(ledger.due(1_000, later(10), false).unwrap().frames, [Ack::UpTo(100)]);
        assert_eq!(ledger.due_at(), Some(later(8) + ACK_WITHIN));
        settle(&mut ledger, [104], later(17));
        assert_eq!(ledger.due(1_000, later(18), false).unwrap().frames, [Ack::One(102)]);
        assert_eq!(ledger.due_at(), Some(later(17) + ACK_WITHIN));
    }

    #[test]
    fn a_slow_head_does_not_stall_what_is_behind_it() {
        let now = Instant::now();
        let mut ledger = delivered(100, now);
        settle(&mut ledger, 2..=25, now);
        assert_eq!(ledger.due(100, now, false), None);
        settle(&mut ledger, [26], now);
        let acks = ledger.due(100, now, false).unwrap();
        assert_eq!(acks.frames, (2..=26).map(Ack::One).collect::<Vec<_>>());
        // The head comes last, and takes only itself along.
        settle(&mut ledger, [1], now);
        assert_eq!(ledger.due(100, now, true).unwrap().frames, [Ack::UpTo(1)]);
        assert_eq!(ledger.due(100, now, true), None);
        assert_eq!(ledger.held(), 74);
    }

    #[test]
    fn what_counts_against_the_prefetch_of_a_consumer_is_what_it_was_sent_and_the_broker_was_not_told_of() {
        let now = Instant::now();
        let mut ledger = delivered(8, now);
        assert_eq!((ledger.next_tag(), ledger.unacked(1), ledger.unacked(6), ledger.unacked(9)), (9, 8, 3, 0));
        settle(&mut ledger, [1, 2, 7], now);
        assert_eq!(ledger.unacked(1), 8, "settled, and not told");
        assert_eq!(ledger.due(100, now, true).unwrap().frames, [Ack::UpTo(2), Ack::One(7)]);
        assert_eq!((ledger.unacked(1), ledger.unacked(6)), (5, 2));
    }

    #[test]
    fn a_settlement_counts_once_and_never_after_a_return() {
        let now = Instant::now();
        let mut ledger = delivered(3, now);
        assert!(ledger.settle(2, Verdict::Acked, now));
        assert!(!ledger.settle(2, Verdict::Acked, now));
        assert!(ledger.give_back(1));
        assert!(!ledger.settle(1, Verdict::Acked, now));
        assert!(!ledger.give_back(2));
        assert!(!ledger.settle(0, Verdict::Acked, now));
        assert!(!ledger.settle(4, Verdict::Acked, now));
        assert_eq!(ledger.take_returned(), [1]);
        assert_eq!(ledger.due(100, now, true).unwrap().frames, [Ack::UpTo(2)]);
        assert_eq!((ledger.open(), ledger.held()), (1, 1));
    }

    #[test]
    fn what_was_given_back_is_never_acked_by_a_multiple() {
        let now = Instant::now();
        let mut ledger = delivered(4, now);
        ledger.give_back(2);
        settle(&mut ledger, [1, 3, 4], now);
        assert_eq!(ledger.due(100, now, true).unwrap().frames, [Ack::UpTo(1), Ack::One(3), Ack::One(4)]);
        assert_eq!(ledger.take_returned(), [2]);
    }

    #[test]
    fn no_ack_takes_along_what_went_to_another_consumer_of_the_channel() {
        let now = Instant::now();
        let mut ledger = delivered(3, now);
        assert!(ledger.delivered(5, now));
        assert!(!ledger.delivered(5, now) && !ledger.delivered(5 + 2 + MOST_SKIPPED, now));
        assert!(!ledger.settle(4, Verdict::Acked, now) && !ledger.give_back(4));
        assert_eq!((ledger.open(), ledger.unacked(1)), (4, 4));
        settle(&mut ledger, [1, 2, 3, 5], now);
        assert_eq!(ledger.due(100, now, true).unwrap().frames, [Ack::UpTo(3), Ack::One(5)]);
        assert_eq!((ledger.due(100, now, true), ledger.open()), (None, 0));
    }

    #[test]
    fn ages_count_from_the_delivery_and_for_open_ones_alone() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut ledger = delivered(3, now);
        ledger.delivered(4, later);
        settle(&mut ledger, [2], now);
        let open = |from, below, limit| ledger.open_since(from, below, limit).iter().map(|(tag, _)| *tag).collect();
        let open: &dyn Fn(u64, u64, Instant) -> Vec<u64> = &open;
        assert_eq!(open(1, 5, now), [1, 3]);
        assert_eq!(open(1, 5, later), [1, 3, 4]);
        assert_eq!(open(3, 5, now), [3]);
        assert_eq!(open(1, 3, now), [1]);
        assert!(ledger.open_up_to(0, 1) && ledger.open_up_to(1, 3) && !ledger.open_up_to(1, 2));
        assert_eq!(ledger.oldest_open(4), Some(later));
        assert_eq!(ledger.oldest_open(5), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Deliver,
        Settle(u64),
        Return(u64),
        Due { all: bool, later: u64 },
        TakeReturned,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Deliver),
            4 => (0..40_u64).prop_map(Step::Settle),
            1 => (0..40_u64).prop_map(Step::Return),
            3 => (any::<bool>(), 0..15_u64).prop_map(|(all, later)| Step::Due { all, later }),
            1 => Just(Step::TakeReturned),
        ]
    }

    proptest! {
        /// Against a broker that keeps a set of unacked tags: each ack frees what was settled and nothing else, nothing
        /// twice, and after the last one nothing is left that was settled.
        #[test]
        fn a_broker_frees_exactly_what_was_settled(
            steps in proptest::collection::vec(step(), 0..120), prefetch in 1_u16..50
        ) {
            let mut now = Instant::now();
            let mut ledger = Ledger::new();
            let (mut next, mut unacked) = (1, BTreeSet::new());
            let (mut settled, mut returned) = (BTreeSet::new(), BTreeSet::new());
            let mut told = Tally::default();
            let mut sum = 0;
            let steps = steps.into_iter().chain([Step::Due { all: true, later: 0 }]);
            for step in steps {
                match step {
                    Step::Deliver => {
                        prop_assert!(ledger.delivered(next, now));
                        unacked.insert(next);
                        next += 1;
                    }
                    Step::Settle(tag) => {
                        let can = tag > 0 && tag < next && !settled.contains(&tag) && !returned.contains(&tag);
                        prop_assert_eq!(ledger.settle(tag, Verdict::Acked, now), can);
                        if can {
                            settled.insert(tag);
                            sum += 1;
                        }
                    }
                    Step::Return(tag) => {
                        let can = tag > 0 && tag < next && !settled.contains(&tag) && !returned.contains(&tag);
                        prop_assert_eq!(ledger.give_back(tag), can);
                        if can {
                            returned.insert(tag);
                        }
                    }
                    Step::TakeReturned => {
                        for tag in ledger.take_returned() {
                            prop_assert!(returned.contains(&tag));
                            prop_assert!(unacked.remove(&tag), "{} was nacked twice", tag);
                        }
                    }
                    Step::Due { all, later } => {
                        now += Duration::from_millis(later);
                        if let Some(acks) = ledger.due(prefetch, now, all) {
                            told += acks.tally;
                            for frame in acks.frames {
                                let freed: Vec<u64> = match frame {
                                    Ack::UpTo(tag) => unacked.range(..=tag).copied().collect(),
                                    Ack::One(tag) => vec![tag],
                                };
                                prop_assert!(!freed.is_empty(), "{:?} frees nothing", frame);
                                for tag in freed {
                                    prop_assert!(settled.contains(&tag), "{} was acked and not settled", tag);
                                    prop_assert!(unacked.remove(&tag), "{} was acked twice", tag);
                                }
                            }
                        }
                        let quarter = (usize::from(prefetch) / 4).max(1) as u64;
                        prop_assert!(ledger.unsent().total() < quarter);
                        prop_assert!(ledger.due_at().is_none_or(|at| at > now));
                        prop_assert_eq!(ledger.due_at().is_some(), ledger.unsent().total() > 0);
                    }
                }
                prop_assert_eq!(ledger.open(), next as usize - 1 - settled.len() - returned.len());
            }
            prop_assert_eq!(told.total(), sum);
            prop_assert!(settled.iter().all(|tag| !unacked.contains(tag)));
        }
    }
}
