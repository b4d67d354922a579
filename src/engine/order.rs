//! Which messages may not run beside each other: pure.

use crate::message::Head;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

/// What is handled one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Messages of one key, in the source's order; messages without a key are ordered with no other.
    #[default]
    ByKey,
    /// Messages of one partition, in the source's order; one partition where the source has none.
    ByPartition,
    /// Nothing.
    None,
}

impl Order {
    /// The number under which a message waits; 0 for one that waits for no other. Two keys of one number are handled
    /// one after the other, which is slower and nothing worse.
    #[inline]
    pub(crate) fn number(self, head: &Head) -> u64 {
        match self {
            Order::ByKey => head.key_hash,
            // Odd and spread over all bits, like a key's hash.
            Order::ByPartition => (u64::from(head.at.partition) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Order::None => 0,
        }
    }

    /// The lane of a message: the same for all messages of one number.
    #[inline]
    pub(crate) fn lane(self, head: &Head, lanes: u32) -> u32 {
        match self.number(head) {
            // By its position, which stays the same when it is copied out; spread, since positions may all be even.
            0 => ((head.at.position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % u64::from(lanes)) as u32,
            // The high half: the low bit of a number is always set.
            number => ((number >> 32) % u64::from(lanes)) as u32,
        }
    }
}

/// Numbers are hashes already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed with this")
    }
    fn write_u64(&mut self, number: u64) {
        // hashbrown takes its tag from the top bits and the bucket from the low ones; the low one is always set.
        self.0 = number.rotate_right(7);
    }
}

/// The job at no place.
pub(crate) const NOBODY: u32 = u32::MAX;

struct Held {
    /// Jobs that hold the number: one, or the members of one batch.
    holders: u32,
    first: u32,
    last: u32,
}

impl Held {
    /// Takes the first of those that wait.
    fn pop(&mut self, links: &impl Links) -> Option<u32> {
        let next = self.first;
        if next == NOBODY {
            return None;
        }
        self.first = links.next(next);
        if self.first == NOBODY {
            self.last = NOBODY;
        }
        Some(next)
    }
}

/// The numbers in flight, each with the jobs that wait for it. Spans ownership epochs: a number stays held until the
/// handler that holds it has ended, whatever became of the ownership.
#[derive(Default)]
pub(crate) struct Numbers {
    held: HashMap<u64, Held, BuildHasherDefault<AsIs>>,
}

/// The links between waiting jobs, kept beside the jobs themselves.
pub(crate) trait Links {
    fn next(&self, job: u32) -> u32;
    fn set_next(&mut self, job: u32, next: u32);
}

impl Numbers {
    #[inline]
    pub(crate) fn is_held(&self, number: u64) -> bool {
        number != 0 && !self.held.is_empty() && self.held.contains_key(&number)
    }

    /// Takes the number, or joins those that hold it: the members of one batch do.
    #[inline]
    pub(crate) fn hold(&mut self, number: u64) {
        if number == 0 {
            return;
        }
        self.held.entry(number).or_insert(Held { holders: 0, first: NOBODY, last: NOBODY }).holders += 1;
    }

    /// Puts a job behind all that wait for the number, which is held.
    pub(crate) fn wait(&mut self, number: u64, job: u32, links: &mut impl Links) {
        let held = self.held.get_mut(&number).expect("a job waits for a number that is held");
        links.set_next(job, NOBODY);
        if held.last == NOBODY {
            held.first = job;
        } else {
            links.set_next(held.last, job);
        }
        held.last = job;
    }

    /// Puts a job before all that wait for the number, which is held.
    pub(crate) fn wait_first(&mut self, number: u64, job: u32, links: &mut impl Links) {
        let held = self.held.get_mut(&number).expect("a job waits for a number that is held");
        links.set_next(job, held.first);
        if held.last == NOBODY {
            held.last = job;
        }
        held.first = job;
    }

    /// The job that was next holds the number beside those that hold it: it joins their batch.
    pub(crate) fn join(&mut self, number: u64, links: &mut impl Links) -> Option<u32> {
        let held = self.held.get_mut(&number)?;
        let next = held.pop(links)?;
        held.holders += 1;
        Some(next)
    }

    /// Whether somebody waits for the number.
    pub(crate) fn is_awaited(&self, number: u64) -> bool {
        self.held.get(&number).is_some_and(|held| held.first != NOBODY)
    }

    /// Lets go of the number. The job that was next, if any, holds it now.
    #[inline]
    pub(crate) fn free(&mut self, number: u64, links: &mut impl Links) -> Option<u32> {
        if number == 0 {
            return None;
        }
        let Entry::Occupied(mut entry) = self.held.entry(number) else { return None };
        let held = entry.get_mut();
        held.holders -= 1;
        if held.holders > 0 {
            return None;
        }
        let next = held.pop(links);
        match next {
            Some(_) => held.holders = 1,
            None => drop(entry.remove()),
        }
        next
    }

    /// A job that held the number with others lets go of it and waits for it, before all others that wait. The job that
    /// holds it now, if nobody else did.
    pub(crate) fn leave(&mut self, number: u64, job: u32, links: &mut impl Links) -> Option<u32> {
        if !self.held.contains_key(&number) {
            // The one that failed is settled already: nobody holds it.
            self.hold(number);
            return Some(job);
        }
        self.wait_first(number, job, links);
        self.free(number, links)
    }

    /// Takes away those that wait and are not wanted any more.
    pub(crate) fn retain_waiting(&mut self, links: &mut impl Links, mut keep: impl FnMut(u32) -> bool) {
        for held in self.held.values_mut() {
            let mut job = held.first;
            (held.first, held.last) = (NOBODY, NOBODY);
            while job != NOBODY {
                let next = links.next(job);
                if keep(job) {
                    links.set_next(job, NOBODY);
                    if held.last == NOBODY {
                        held.first = job;
                    } else {
                        links.set_next(held.last, job);
                    }
                    held.last = job;
                }
                job = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    struct Table(Vec<u32>);

    impl Links for Table {
        fn next(&self, job: u32) -> u32 {
            self.0[job as usize]
        }
        fn set_next(&mut self, job: u32, next: u32) {
            self.0[job as usize] = next;
        }
    }

    proptest! {
        #[test]
        fn jobs_of_a_number_get_it_in_the_order_in_which_they_came(
            steps in proptest::collection::vec((1u64..4, any::<bool>()), 1..200)
        ) {
            let mut numbers = Numbers::default();
            let mut links = Table(vec![NOBODY; steps.len()]);
            let mut model: std::collections::HashMap<u64, VecDeque<u32>> = Default::default();
            for (job, (number, arrives)) in steps.into_iter().enumerate() {
                let job = job as u32;
                let queue = model.entry(number).or_default();
                if arrives {
                    prop_assert_eq!(numbers.is_held(number), !queue.is_empty());
                    if queue.is_empty() { numbers.hold(number) } else { numbers.wait(number, job, &mut links) }
                    queue.push_back(job);
                } else if queue.pop_front().is_some() {
                    prop_assert_eq!(numbers.free(number, &mut links), queue.front().copied());
                }
            }
        }
    }

    #[test]
    fn a_job_put_first_is_next() {
        let (mut numbers, mut links) = (Numbers::default(), Table(vec![NOBODY; 4]));
        numbers.hold(7);
        numbers.wait(7, 1, &mut links);
        numbers.wait_first(7, 2, &mut links);
        assert_eq!(numbers.free(7, &mut links), Some(2));
        assert_eq!(numbers.free(7, &mut links), Some(1));
        assert_eq!(numbers.free(7, &mut links), None);
        assert!(!numbers.is_held(7));
    }

    #[test]
    fn a_number_held_by_a_batch_is_free_when_its_last_member_is() {
        let (mut numbers, mut links) = (Numbers::default(), Table(vec![NOBODY; 4]));
        numbers.hold(7);
        numbers.hold(7);
        numbers.wait(7, 1, &mut links);
        assert_eq!(numbers.free(7, &mut links), None);
        assert_eq!(numbers.free(7, &mut links), Some(1));
    }
}
