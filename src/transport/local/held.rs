//! What one owner has claimed and not settled, as it stands in the tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A range may span so many ids; a longer claim is several ranges.
pub(super) const LONGEST: i64 = 4_096;

/// A gap between two ids of a range may be so long; a longer one begins a new range.
const WIDEST_GAP: i64 = 64;

/// One row of `ranges`: ids from `first` to `last`, with a bit for each that is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) done: Vec<u8>,
    left: u32,
}

impl Range {
    pub(super) fn read(first: i64, last: i64, done: &[u8]) -> Self {
        let mut range = Self { first, last, done: done.to_vec(), left: 0 };
        range.left = range.open().count() as u32;
        range
    }

    /// Ids that are held.
    pub(super) fn open(&self) -> impl Iterator<Item = i64> {
        (self.first..=self.last).filter(|id| self.holds(*id))
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    pub(super) fn holds(&self, id: i64) -> bool {
        let bit = id - self.first;
        // A bitmap that is too short, which no version writes, holds nothing.
        (0..=self.last - self.first).contains(&bit)
            && self.done.get((bit / 8) as usize).is_some_and(|byte| byte & (1 << (bit % 8)) == 0)
    }

    fn close(&mut self, id: i64) -> bool {
        let held = self.holds(id);
        if held {
            let bit = id - self.first;
            self.done[(bit / 8) as usize] |= 1 << (bit % 8);
            self.left -= 1;
        }
        held
    }
}

/// The fewest ranges that hold these rising ids.
pub(super) fn ranges_of(ids: &[i64]) -> Vec<Range> {
    let mut all: Vec<Range> = Vec::new();
    for &id in ids {
        let fits = all.last().is_some_and(|range| id - range.last <= WIDEST_GAP && id - range.first < LONGEST);
        if !fits {
            all.push(Range { first: id, last: id, done: vec![0xff], left: 0 });
        }
        let range = all.last_mut().expect("one was pushed if there was none");
        range.last = id;
        let bit = id - range.first;
        range.done.resize((bit / 8) as usize + 1, 0xff);
        range.done[(bit / 8) as usize] &= !(1 << (bit % 8));
        range.left += 1;
    }
    all
}

/// What is known of a held message besides its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) attempts: u32,
    pub(super) unclean: u32,
    pub(super) marks: u32,
    /// Whether the last of the marks is of this owner.
    pub(super) marked: bool,
    /// Whether it has a row in `pending`.
    pub(super) has_row: bool,
}

/// Everything this owner holds under its present epoch.
#[derive(Debug, Default)]
pub(super) struct Held {
    ranges: BTreeMap<i64, Range>,
    rows: HashMap<i64, Counts>,
    /// Ranges that changed since they were written.
    touched: BTreeSet<i64>,
}

impl Held {
    pub(super) fn add_range(&mut self, range: Range) {
        self.ranges.insert(range.first, range);
    }

    pub(super) fn add_row(&mut self, id: i64, counts: Counts) {
        self.rows.insert(id, counts);
    }

    /// Lets go of a message; `None` where it is not held, so that nothing can be settled twice.
    pub(super) fn take(&mut self, id: i64) -> Option<Counts> {
        if let Some(counts) = self.rows.remove(&id) {
            return Some(counts);
        }
        let (first, range) = self.ranges.range_mut(..=id).next_back()?;
        range.close(id).then(|| {
            self.touched.insert(*first);
            Counts::default()
        })
    }

    /// The ranges to be written; [`Held::written`] says that they are.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Range> {
        self.touched.iter().filter_map(|first| self.ranges.get(first))
    }

    pub(super) fn written(&mut self) {
        for first in std::mem::take(&mut self.touched) {
            if self.ranges.get(&first).is_some_and(Range::is_done) {
                self.ranges.remove(&first);
            }
        }
    }

    /// Everything that is held, in order.
    pub(super) fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.ranges.values().flat_map(Range::open).chain(self.rows.keys().copied()).collect();
        ids.sort_unstable();
        ids
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.ranges.values().map(|range| u64::from(range.left)).sum::<u64>() + self.rows.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_the_ids_they_were_made_of(ids in proptest::collection::btree_set(1i64..20_000, 0..200)) {
            let ids: Vec<i64> = ids.into_iter().collect();
            let ranges = ranges_of(&ids);
            let open: Vec<i64> = ranges.iter().flat_map(Range::open).collect();
            prop_assert_eq!(&open, &ids);
            for range in &ranges {
                prop_assert!(range.last - range.first < LONGEST);
                prop_assert_eq!(range, &Range::read(range.first, range.last, &range.done));
            }
        }

        #[test]
        fn a_message_is_let_go_once(
            ids in proptest::collection::btree_set(1i64..500, 0..100),
            taken in proptest::collection::vec(1i64..500, 0..200),
        ) {
            let mut held = Held::default();
            for range in ranges_of(&ids.iter().copied().collect::<Vec<_>>()) {
                held.add_range(range);
            }
            let mut model = ids;
            for id in taken {
                prop_assert_eq!(held.take(id).is_some(), model.remove(&id));
                held.written();
                prop_assert_eq!(held.len(), model.len() as u64);
            }
            prop_assert_eq!(held.ids(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
