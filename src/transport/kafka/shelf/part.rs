//! One partition of a look: how far it is read, and what a removal comes to. Pure.

use super::super::inspect::Committed;
use super::super::source::{LONGEST, Step, Tracker, write};
use crate::error::{Error, ErrorKind};
use std::collections::{BTreeSet, VecDeque};

/// One partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    /// The group's place when it was last told.
    place: Option<u64>,
    /// A place behind the end: of a log that is no more.
    stale: Option<u64>,
    /// Where the look began, or everything below is settled …
    pub(super) begin: u64,
    /// … where it ends …
    end: u64,
    /// … and how far it is.
    tracker: Tracker,
    /// Offsets that were shown and are not below the group's place, in order.
    read: VecDeque<u64>,
    /// Those of them that this look took off.
    gone: BTreeSet<u64>,
    /// Everything below the end was read.
    all_read: bool,
}

/// What a removal comes to in one partition.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) count: u64,
    /// Which, with those that this look took off before.
    pub(super) gone: BTreeSet<u64>,
    pub(super) offset: u64,
    pub(super) metadata: String,
    /// Not all of them fit.
    pub(super) full: bool,
}

impl Part {
    /// `place` is that of the group, whose metadata says that `settled` lies beyond it.
    pub(super) fn new(number: u32, known: Option<&Committed>, begin: u64, end: u64) -> Self {
        // One behind the end is of a log that is no more.
        let (place, stale) = match known.map(|known| known.offset) {
            Some(offset) if offset > end => (None, Some(offset)),
            place => (place, None),
        };
        let runs = known.filter(|_| stale.is_none()).map(|known| known.noted(end).1).unwrap_or_default();
        let tracker = Tracker::new(begin, runs);
        let (read, gone) = Default::default();
        Self { number, place, stale, begin, end, tracker, read, gone, all_read: false }
    }

    /// Whether nothing is left to be read.
    pub(super) fn is_read(&self) -> bool {
        self.all_read || self.tracker.next() >= self.end
    }

    /// Behind the last record there is none below the end.
    pub(super) fn ends(&mut self) {
        self.all_read = true;
    }

    /// A record was read there; whether it is to be shown.
    pub(super) fn step(&mut self, offset: u64) -> bool {
        if offset >= self.end {
            self.all_read = true;
            return false;
        }
        let shown = self.tracker.step(offset) == Step::Deliver;
        if shown {
            self.read.push_back(offset);
        }
        shown
    }

    /// Joins what the group has settled by now with what this look took off and shall take off. Changes nothing.
    pub(super) fn take(&self, known: Option<&Committed>, wanted: &BTreeSet<u64>) -> Result<Taken, Error> {
        let known = known.filter(|known| Some(known.offset) != self.stale);
        if let (Some(known), Some(place)) = (known, self.place)
            && known.offset < place
        {
            // What lies between is unread here, and must not be taken for settled.
            let text = format!("the place in partition {} was moved back meanwhile: look again", self.number);
            return Err(Error::new(ErrorKind::Unreachable, text));
        }
        let (note, runs) = known.map(|known| known.noted(u64::MAX)).unwrap_or_default();
        let base = known.map_or(self.begin, |known| known.offset.max(self.begin));
        let mut before = Tracker::new(base, runs.iter().cloned());
        self.tell(&mut before);
        let mut added: Vec<u64> = wanted.range(..self.end).copied().filter(|offset| before.settle(*offset)).collect();
        let asked = added.len();
        loop {
            let mut all = Tracker::new(base, runs.iter().cloned());
            self.tell(&mut all);
            for offset in &added {
                all.settle(*offset);
            }
            let noted = write(all.watermark(), note, all.finished(), LONGEST);
            // What does not fit would push out what was taken off before, and that would be back.
            if noted.covers < u64::MAX && !added.is_empty() {
                added.truncate(added.len() / 2);
                continue;
            }
            let gone = self.gone.iter().chain(&added).copied().collect();
            let (count, full) = (added.len() as u64, added.len() < asked);
            return Ok(Taken { count, gone, offset: all.watermark(), metadata: noted.text, full });
        }
    }

    /// What this look knows of the log, and what it took off.
    fn tell(&self, all: &mut Tracker) {
        for offset in &self.read {
            all.step(*offset);
        }
        for offset in &self.gone {
            all.settle(*offset);
        }
        if self.is_read() {
            // What lies behind the last record is none: the end of a transaction, say.
            all.step(self.end);
        }
    }

    /// The group has settled these, and everything below its place.
    pub(super) fn is_gone(&mut self, place: u64, gone: &BTreeSet<u64>) {
        self.gone = gone.range(place..).copied().collect();
        while self.read.front().is_some_and(|offset| *offset < place) {
            self.read.pop_front();
        }
        (self.place, self.begin) = (Some(place), self.begin.max(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(part: &mut Part, offsets: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let shown = offsets.into_iter().filter(|offset| part.step(*offset)).collect();
        part.ends();
        shown
    }

    fn take(part: &mut Part, known: Option<&Committed>, these: &[u64]) -> (u64, Committed) {
        let taken = part.take(known, &these.iter().copied().collect()).unwrap();
        part.is_gone(taken.offset, &taken.gone);
        (taken.count, Committed { offset: taken.offset, metadata: taken.metadata })
    }

    #[test]
    fn a_later_look_shows_what_earlier_ones_left_also_between_gaps_of_the_log() {
        let log = [3, 5, 6, 9, 11];
        let mut first = Part::new(0, None, 0, 14);
        assert_eq!(read_all(&mut first, log), log);
        let (count, place) = take(&mut first, None, &[5, 9, 9, 4, 40]);
        assert_eq!((count, place.offset), (2, 3));
        assert_eq!(take(&mut first, Some(&place), &[5]).0, 0);
        let mut second = Part::new(0, Some(&place), 3, 14);
        assert_eq!(read_all(&mut second, log), [3, 6, 11]);
        let (count, place) = take(&mut second, Some(&place), &[3, 6, 11]);
        // Behind the last one there is nothing that anybody could take off.
        assert_eq!((count, place), (3, Committed { offset: 14, metadata: String::new() }));
    }

    #[test]
    fn what_another_took_off_meanwhile_is_not_counted_and_stays_taken_off() {
        let (mut one, mut other) = (Part::new(0, None, 0, 6), Part::new(0, None, 0, 6));
        read_all(&mut one, 0..6);
        read_all(&mut other, 0..6);
        let place = take(&mut one, None, &[0, 1, 4]).1;
        let (count, place) = take(&mut other, Some(&place), &[1, 3, 4]);
        assert_eq!((count, place.offset), (1, 2));
        assert_eq!(read_all(&mut Part::new(0, Some(&place), 2, 6), 2..6), [2, 5]);
    }

    #[test]
    fn what_a_commit_beside_it_forgot_is_taken_off_again_with_the_next() {
        let mut part = Part::new(0, None, 0, 6);
        read_all(&mut part, 0..6);
        take(&mut part, None, &[2]);
        let forgot = Committed { offset: 0, metadata: String::new() };
        let place = take(&mut part, Some(&forgot), &[4]).1;
        assert_eq!(read_all(&mut Part::new(0, Some(&place), 0, 6), 0..6), [0, 1, 3, 5]);
    }

    #[test]
    fn an_unread_part_is_not_taken_for_settled_when_the_place_is_moved_back() {
        let place = |offset| Committed { offset, metadata: String::new() };
        let mut part = Part::new(0, Some(&place(4)), 4, 6);
        read_all(&mut part, 4..6);
        assert!(part.take(Some(&place(2)), &[4].into()).is_err());
    }

    #[test]
    fn a_place_of_a_log_that_is_no_more_says_nothing_of_the_one_that_is() {
        let stale = Committed { offset: 50, metadata: String::new() };
        let mut part = Part::new(0, Some(&stale), 0, 3);
        assert_eq!(read_all(&mut part, 0..3), [0, 1, 2]);
        assert_eq!(take(&mut part, Some(&stale), &[0]), (1, Committed { offset: 1, metadata: String::new() }));
    }

    #[test]
    fn what_the_place_cannot_hold_is_refused_and_pushes_nothing_out() {
        let mut part = Part::new(0, None, 0, 20_000);
        read_all(&mut part, 0..20_000);
        let odd: Vec<u64> = (10_000..20_000).filter(|offset| offset % 2 == 1).collect();
        let (mut place, mut off) = (None, BTreeSet::<u64>::new());
        for some in odd.chunks(250) {
            let taken = part.take(place.as_ref(), &some.iter().copied().collect()).unwrap();
            assert!(!taken.full || some.len() as u64 > taken.count);
            off.extend(&some[..taken.count as usize]);
            if taken.count > 0 {
                part.is_gone(taken.offset, &taken.gone);
                place = Some(Committed { offset: taken.offset, metadata: taken.metadata });
            }
        }
        assert!((1_000..odd.len()).contains(&off.len()), "{}", off.len());
        // Lower ones, each a run of its own, do not fit either.
        assert!(part.take(place.as_ref(), &(0..500).map(|n| 2 * n + 1).collect()).unwrap().full);
        let left = read_all(&mut Part::new(0, place.as_ref(), 0, 20_000), 0..20_000);
        assert!(left.iter().all(|offset| !off.contains(offset)) && left.len() + off.len() == 20_000);
    }
}
