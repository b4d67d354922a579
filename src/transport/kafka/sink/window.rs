//! What is handed to a producer and not answered for, in the order in which it was sent.
//!
//! Every message has a number, which is all that librdkafka carries for us: its delivery report marks the number in a
//! ring, without a lock and without a search. The thread looks at the marks between two turns and tells ranges: at once
//! from the front, and what lies behind one that is still open once it has lain there for a moment, because partitions
//! answer in waves, and a range for each message would cost more than the message.

use super::Told;
use crate::failure::Failure;
use crate::message::{MessageRef, Slab};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Slots of the ring, a power of two: twice what the demand lets be open.
const SLOTS: usize = 2 * super::book::WINDOW.0 as usize;
/// How long an answer waits for those before it: a batch of another partition is answered within it, unless that
/// partition is in trouble.
const HOLD: Duration = Duration::from_millis(10);

/// Not answered.
const OPEN: u8 = 0;
/// Stored.
const STORED: u8 = 1;
/// Not stored; the reason is in the list of failures.
const FAILED: u8 = 2;
/// Told to the engine.
const TOLD: u8 = 3;

/// What the delivery reports of one producer say. Marked and read by the thread that polls it; the producer's end marks
/// from wherever it is dropped, and nobody reads that.
pub(super) struct Marks {
    slots: Box<[AtomicU8]>,
    /// Marked since the last look.
    fresh: AtomicU32,
    failed: Mutex<Vec<(usize, Failure)>>,
}

impl Marks {
    fn new() -> Self {
        let slots = std::iter::repeat_with(|| AtomicU8::new(OPEN)).take(SLOTS).collect();
        Self { slots, fresh: AtomicU32::new(0), failed: Mutex::default() }
    }

    fn slot(&self, number: usize) -> &AtomicU8 {
        &self.slots[number % SLOTS]
    }

    /// The message of this number is stored.
    #[inline]
    pub(super) fn stored(&self, number: usize) {
        self.slot(number).store(STORED, Ordering::Relaxed);
        // By load and store: only one thread marks what is read.
        self.fresh.store(self.fresh.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The message of this number is not stored, and why.
    pub(super) fn failed(&self, number: usize, failure: Failure) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, failure));
        self.slot(number).store(FAILED, Ordering::Relaxed);
        self.fresh.store(self.fresh.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

struct Batch {
    batch: u64,
    slab: Arc<Slab>,
    /// Number of its first message.
    first: usize,
}

impl Batch {
    fn end(&self) -> usize {
        self.first + self.slab.len()
    }
}

pub(super) struct Window {
    batches: VecDeque<Batch>,
    marks: Arc<Marks>,
    /// Every number below is told.
    front: usize,
    /// The next number to be handed to the producer …
    handed: usize,
    /// … and the batch that it is in, as an index; behind the last where nothing waits.
    at: usize,
    /// The next number to be given to a message.
    next: usize,
    /// Since when something lies behind one that is open.
    held: Option<Instant>,
    /// When the front last moved, or began to wait.
    moved: Instant,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        let (batches, marks) = (VecDeque::new(), Arc::new(Marks::new()));
        Self { batches, marks, front: 0, handed: 0, at: 0, next: 0, held: None, moved: now }
    }

    /// What delivery reports of the producer mark.
    pub(super) fn marks(&self) -> Arc<Marks> {
        self.marks.clone()
    }

    /// Whether another slab of so many messages fits; the demand sees to it, unless whoever sends does not keep to it.
    pub(super) fn has_room(&self, messages: usize) -> bool {
        self.next - self.front + messages <= SLOTS
    }

    /// Takes in a batch. Only where there is [room](Self::has_room).
    pub(super) fn push(&mut self, batch: u64, slab: Arc<Slab>, now: Instant) {
        if self.is_empty() {
            self.moved = now;
        }
        for number in self.next..self.next + slab.len() {
            self.marks.slot(number).store(OPEN, Ordering::Relaxed);
        }
        let first = self.next;
        self.next += slab.len();
        self.batches.push_back(Batch { batch, slab, first });
    }

    /// Whether everything is told.
    pub(super) fn is_empty(&self) -> bool {
        self.front == self.next
    }

    /// Whether something waits to be handed to the producer.
    pub(super) fn waits(&self) -> bool {
        self.handed < self.next
    }

    /// Since when the oldest message that is open waits; `None` where none does.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.moved)
    }

    /// Messages that are not told.
    pub(super) fn open(&self) -> usize {
        self.next - self.front
    }

    /// Hands messages over in order, at most so many, until one is refused; that one is handed over again at the next
    /// call.
    pub(super) fn hand_over(&mut self, most: usize, mut each: impl FnMut(usize, MessageRef<'_>) -> bool) {
        let mut left = most;
        while left > 0 && self.waits() {
            let batch = &self.batches[self.at];
            if self.handed >= batch.end() {
                self.at += 1;
                continue;
            }
            // After a producer was replaced, what is told already is not sent again.
            if self.marks.slot(self.handed).load(Ordering::Relaxed) == OPEN {
                if !each(self.handed, batch.slab.get((self.handed - batch.first) as u32)) {
                    return;
                }
                left -= 1;
            }
            self.handed += 1;
        }
    }

    /// Tells what was answered since the last call: from the front at once, behind an open one after a moment. With
    /// `all` nothing is held back.
    pub(super) fn tell(&mut self, now: Instant, all: bool, told: &mut impl FnMut(Told)) {
        if self.marks.fresh.swap(0, Ordering::Relaxed) > 0 {
            self.held.get_or_insert(now);
            self.tell_front(now, told);
        }
        let due = self.held.is_some_and(|since| all || now.saturating_duration_since(since) >= HOLD);
        if due {
            self.tell_behind(told);
            self.held = None;
        }
    }

    fn tell_front(&mut self, now: Instant, told: &mut impl FnMut(Told)) {
        let before = self.front;
        while let Some(batch) = self.batches.front() {
            let mut number = self.front;
            while number < batch.end() && self.marks.slot(number).load(Ordering::Relaxed) != OPEN {
                number += 1;
            }
            tell_range(batch, self.front..number, &self.marks, told);
            self.front = number;
            if number < batch.end() {
                break;
            }
            self.batches.pop_front();
            self.at = self.at.saturating_sub(1);
        }
        if self.front != before {
            self.moved = now;
        }
        if self.is_empty() {
            self.held = None;
        }
    }

    fn tell_behind(&mut self, told: &mut impl FnMut(Told)) {
        for batch in &self.batches {
            let from = batch.first.max(self.front);
            if from >= self.handed {
                break;
            }
            tell_range(batch, from..batch.end().min(self.handed), &self.marks, told);
        }
    }

    /// What the old producer has not answered is to be handed to a new one, in the old order; its marks are the new
    /// [`marks`](Self::marks). Everything that was answered has to be [told](Self::tell) before.
    pub(super) fn start_again(&mut self) {
        let fresh = Arc::new(Marks::new());
        for number in self.front..self.next {
            let was = self.marks.slot(number).load(Ordering::Relaxed);
            fresh.slot(number).store(if was == TOLD { TOLD } else { OPEN }, Ordering::Relaxed);
        }
        self.marks = fresh;
        self.held = None;
        self.rewind();
    }

    /// What is open is to be handed over again, in the old order. Only where nothing of it can be answered any more.
    pub(super) fn rewind(&mut self) {
        (self.handed, self.at) = (self.front, 0);
    }
}

/// Tells every answered message of a range, in ranges as large as there are.
fn tell_range(batch: &Batch, numbers: std::ops::Range<usize>, marks: &Marks, told: &mut impl FnMut(Told)) {
    let mut number = numbers.start;
    while number < numbers.end {
        let (start, mut bytes, mut fails) = (number, 0, false);
        while number < numbers.end {
            let slot = marks.slot(number);
            let state = slot.load(Ordering::Relaxed);
            if state == OPEN || state == TOLD {
                break;
            }
            slot.store(TOLD, Ordering::Relaxed);
            fails |= state == FAILED;
            bytes += batch.slab.get((number - batch.first) as u32).size() as u64;
            number += 1;
        }
        if number > start {
            let failed = if fails { take_failed(marks, start..number, batch.first) } else { Vec::new() };
            let range = (start - batch.first) as u32..(number - batch.first) as u32;
            told(Told::Confirmed { batch: batch.batch, range, failed, bytes });
        } else {
            number += 1;
        }
    }
}

/// The failures of these numbers, by index in their batch.
fn take_failed(marks: &Marks, numbers: std::ops::Range<usize>, first: usize) -> Vec<(u32, Failure)> {
    let mut failed = marks.failed.lock().unwrap_or_else(PoisonError::into_inner);
    let mut taken: Vec<_> = failed
        .extract_if(.., |(number, _)| numbers.contains(number))
        .map(|(number, failure)| ((number - first) as u32, failure))
        .collect();
    taken.sort_unstable_by_key(|(index, _)| *index);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, SlabBuilder};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn slab(messages: usize) -> Arc<Slab> {
        let mut builder = SlabBuilder::new();
        for number in 0..messages {
            builder.push_message(&Message::new(format!("{number:04}")));
        }
        Arc::new(builder.finish("t".into()))
    }

    /// What was told of which batch: ranges, each with the indices that failed.
    fn told(window: &mut Window, now: Instant, all: bool) -> Vec<(u64, std::ops::Range<u32>, Vec<u32>)> {
        let mut said = Vec::new();
        window.tell(now, all, &mut |told| {
            let Told::Confirmed { batch, range, failed, bytes } = told else { panic!("a window tells confirms alone") };
            assert_eq!(bytes, 4 * range.len() as u64);
            said.push((batch, range, failed.into_iter().map(|(index, _)| index).collect()));
        });
        said
    }

    fn handed(window: &mut Window, most: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        window.hand_over(most, |number, _| {
            numbers.push(number);
            true
        });
        numbers
    }

    #[test]
    fn what_is_answered_in_order_is_told_at_once_in_one_range_a_batch() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.push(10, slab(3), now);
        window.push(20, slab(2), now);
        assert_eq!(handed(&mut window, 100), [0, 1, 2, 3, 4]);
        let marks = window.marks();
        (0..4).for_each(|number| marks.stored(number));
        assert_eq!(told(&mut window, now, false), [(10, 0..3, vec![]), (20, 0..1, vec![])]);
        marks.failed(4, Failure::retry("no"));
        assert_eq!(told(&mut window, now, false), [(20, 1..2, vec![1])]);
        assert!(window.is_empty() && !window.waits());
    }

    #[test]
    fn an_answer_waits_a_moment_for_those_before_it_and_no_longer() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.push(1, slab(6), now);
        handed(&mut window, 100);
        let marks = window.marks();
        for number in [2, 3, 5] {
            marks.stored(number);
        }
        assert_eq!(told(&mut window, now, false), []);
        assert_eq!(told(&mut window, now + HOLD / 2, false), []);
        assert_eq!(told(&mut window, now + HOLD, false), [(1, 2..4, vec![]), (1, 5..6, vec![])]);
        for number in [0, 1, 4] {
            marks.stored(number);
        }
        assert_eq!(told(&mut window, now + HOLD, true), [(1, 0..2, vec![]), (1, 4..5, vec![])]);
        assert!(window.is_empty());
    }

    #[test]
    fn a_message_that_is_refused_is_handed_over_again_before_those_behind_it() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.push(1, slab(3), now);
        let mut tries = Vec::new();
        window.hand_over(100, |number, _| {
            tries.push(number);
            number == 0
        });
        assert_eq!(tries, [0, 1]);
        assert_eq!((handed(&mut window, 1), handed(&mut window, 100)), (vec![1], vec![2]));
    }

    #[test]
    fn a_new_producer_gets_what_the_old_one_did_not_answer_and_hears_nothing_of_it() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.push(1, slab(3), now);
        window.push(2, slab(2), now);
        handed(&mut window, 100);
        let old = window.marks();
        for number in [0, 3] {
            old.stored(number);
        }
        told(&mut window, now, true);
        window.start_again();
        assert_eq!(handed(&mut window, 100), [1, 2, 4]);
        for number in [1, 2, 4] {
            old.failed(number, Failure::retry("purged"));
        }
        assert_eq!(told(&mut window, now, true), []);
        for number in [4, 1, 2] {
            window.marks().stored(number);
        }
        assert_eq!(told(&mut window, now, true), [(1, 1..3, vec![]), (2, 1..2, vec![])]);
        assert!(window.is_empty());
    }

    proptest! {
        #[test]
        fn every_message_is_told_once_whatever_order_they_are_answered_in(
            sizes in proptest::collection::vec(1usize..40, 1..8),
            seed in any::<u64>(),
        ) {
            let (now, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
            let mut window = Window::new(now);
            for (batch, size) in sizes.iter().enumerate() {
                window.push(batch as u64, slab(*size), now);
            }
            let mut open = handed(&mut window, usize::MAX);
            random.shuffle(&mut open);
            let mut seen: BTreeMap<(u64, u32), bool> = BTreeMap::new();
            let mut fails = 0;
            let mut look = |window: &mut Window, all| {
                for (batch, range, failed) in told(window, now, all) {
                    for index in range {
                        assert!(seen.insert((batch, index), failed.contains(&index)).is_none());
                    }
                }
            };
            let marks = window.marks();
            for number in open {
                if random.u8(..10) == 0 {
                    marks.failed(number, Failure::retry("no"));
                    fails += 1;
                } else {
                    marks.stored(number);
                }
                if random.u8(..5) == 0 {
                    look(&mut window, random.bool());
                }
            }
            look(&mut window, true);
            prop_assert!(window.is_empty());
            prop_assert_eq!(seen.len(), sizes.iter().sum::<usize>());
            prop_assert_eq!(seen.values().filter(|failed| **failed).count(), fails);
        }
    }
}
