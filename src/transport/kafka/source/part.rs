//! One partition that is ours: where it stands, and what is to be committed of it.

use super::clerk::{Found, Line};
use super::reader::Queue;
use super::seats::Name;
use super::tracker::{LONGEST, Note, Pending, Tracker, read, write};
use crate::failure::Tally;
use crate::message::At;

/// Nothing more of a partition is read while what is to be noted of it would fill more of its metadata than this, in
/// hundredths: what is in flight by then must still fit.
const HOLD_AT: usize = 75;
/// Metadata that a broker refuses as too long is halved, down to this: then no map is kept at all.
const SHORTEST: usize = 64;

/// A partition that the group has given us.
pub(super) struct Part {
    pub(super) name: Name,
    /// As deliveries name it.
    pub(super) number: u32,
    pub(super) epoch: u32,
    /// Nothing of it is read: it was told so.
    pub(super) paused: bool,
    /// It is in the row of those that are to be polled.
    pub(super) listed: bool,
    pub(super) work: Option<Work>,
}

/// What is known of a partition since the group's place in it was looked up.
pub(super) struct Work {
    pub(super) tracker: Tracker,
    pub(super) pending: Pending,
    /// There while it is read.
    pub(super) queue: Option<Queue>,
    /// Where this assignment began, and how many owners in a row had died there by then.
    base: u64,
    deaths: u32,
    /// The message that runs alone, and how many of its runs began.
    mark: Option<(u64, u32)>,
    /// Whether the last run that was begun is of this owner.
    marked_here: bool,
    /// Messages that are still to be delivered of those that may have killed an owner, and the offset behind them.
    suspects_left: Option<u32>,
    suspects_to: u64,
    /// What is confirmed.
    confirmed: Option<(u64, String)>,
    /// Characters that its metadata may have.
    longest: usize,
    /// Too much is to be noted.
    pub(super) held: bool,
    /// Everything that the log held when it was last looked at has been read.
    pub(super) at_end: bool,
}

/// What was in a commit of a partition, until it is confirmed.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) number: u32,
    pub(super) epoch: u32,
    pub(super) covers: u64,
    pub(super) mark: Option<(u64, u32)>,
    pub(super) line: Line,
}

/// What is to be said of where a partition starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    /// Records were deleted before they were handled.
    Deleted { from: u64, to: u64 },
    /// The log ends before the group's place.
    Truncated { committed: u64, end: u64, start: u64 },
}

impl Work {
    /// Takes over where the group stands.
    pub(super) fn take_over(found: &Found) -> (Self, Option<Oddity>) {
        let (first, end) = found.log;
        let (base, text, odd) = match &found.committed {
            None => (found.start, "", None),
            Some((offset, _)) if *offset < first => (first, "", Some(Oddity::Deleted { from: *offset, to: first })),
            Some((offset, _)) if *offset > end => {
                // Another log than the one that was read: what is in it nobody has seen.
                let start = if found.start > end { first } else { found.start };
                (start, "", Some(Oddity::Truncated { committed: *offset, end, start }))
            }
            Some((offset, text)) => (*offset, text.as_str(), None),
        };
        let (note, finished) = read(text, base, Some(end)).unwrap_or_default();
        let this = Self {
            tracker: Tracker::new(base, finished),
            pending: Pending::default(),
            queue: None,
            base,
            deaths: note.unclean,
            mark: note.mark,
            marked_here: false,
            suspects_left: None,
            suspects_to: 0,
            confirmed: None,
            longest: LONGEST,
            held: false,
            at_end: false,
        };
        (this, odd)
    }

    /// Whether what is delivered next might find no room in the metadata. Nothing is held back that is in the map
    /// already, and there is always something in flight: who waits for it to be settled waits for something.
    fn is_full(&self) -> bool {
        self.held && self.tracker.open() > 0 && !self.tracker.lies_behind()
    }

    /// Whether it has been noted that somebody works here.
    pub(super) fn is_announced(&self) -> bool {
        self.confirmed.is_some()
    }

    /// What an heir is to know, should this owner end now: in order, or without a word.
    fn note(&self, clean: bool) -> Note {
        let unclean = match clean {
            true => 0,
            false if self.tracker.watermark() > self.base => 1,
            false => self.deaths.saturating_add(1),
        };
        let mark = match self.mark {
            // A run that an orderly end cut short killed nobody.
            Some((offset, runs)) if clean && self.marked_here => (runs > 1).then(|| (offset, runs - 1)),
            mark => mark,
        };
        Note { unclean, mark }
    }

    fn writes(&self, clean: bool) -> super::tracker::Noted {
        write(self.tracker.watermark(), self.note(clean), self.tracker.finished(), self.longest)
    }

    /// Whether the next commit has something to say of it.
    pub(super) fn is_due(&self) -> bool {
        !self.is_announced() || self.pending.is_fresh() || self.pending.waits()
    }

    /// Whether an orderly end of this owner is noted, and everything that was settled.
    pub(super) fn is_left(&self) -> bool {
        let noted = self.writes(true);
        let offset = self.tracker.watermark();
        // Nothing was ever noted of it, and nothing is to be.
        let untouched = self.confirmed.is_none() && noted.text.is_empty() && offset == self.base;
        !self.pending.is_fresh()
            && (untouched || self.confirmed.as_ref().is_some_and(|(at, text)| (*at, text) == (offset, &noted.text)))
    }

    /// A message was read and is handed over: what it is said of it.
    pub(super) fn suspicion(&mut self, offset: u64, window: u32) -> (u32, u32) {
        let marks = self.mark.filter(|(at, _)| *at == offset).map_or(0, |(_, runs)| runs);
        if self.deaths == 0 {
            return (0, marks);
        }
        if offset >= self.suspects_to {
            let left = self.suspects_left.get_or_insert(window.max(1));
            if *left == 0 {
                return (0, marks);
            }
            *left -= 1;
            self.suspects_to = offset + 1;
        }
        (self.deaths, marks)
    }

    /// A message is about to run alone.
    pub(super) fn begin_run(&mut self, offset: u64) {
        let runs = self.mark.filter(|(at, _)| *at == offset).map_or(0, |(_, runs)| runs);
        self.mark = Some((offset, runs.saturating_add(1)));
        self.marked_here = true;
    }

    /// It did not run, or did not end by itself.
    pub(super) fn end_run(&mut self, offset: u64, finished: bool) {
        let Some((_, runs)) = self.mark.filter(|(at, _)| *at == offset) else { return };
        if finished {
            self.mark = None;
        } else if self.marked_here {
            self.mark = (runs > 1).then(|| (offset, runs - 1));
        }
        self.marked_here = false;
    }

    /// The broker takes no metadata as long as that.
    pub(super) fn shorten(&mut self) {
        self.longest = if self.longest / 2 < SHORTEST { 0 } else { self.longest / 2 };
    }

    /// A commit that knew this much is confirmed: what it proves.
    pub(super) fn confirm(&mut self, sent: Sent) -> Tally {
        self.confirmed = Some((sent.line.offset, sent.line.metadata));
        self.pending.confirmed(sent.covers)
    }
}

impl Part {
    /// Whether a delivery is one of this assignment.
    pub(super) fn is_of(&self, at: At) -> bool {
        self.epoch == at.epoch
    }

    /// Whether it is to be polled.
    pub(super) fn reads(&self) -> bool {
        !self.paused && self.work.as_ref().is_some_and(|work| work.queue.is_some() && !work.is_full())
    }

    /// The line of the next commit, written from what is known now.
    pub(super) fn send(&mut self, clean: bool) -> Option<Sent> {
        let (number, epoch, name) = (self.number, self.epoch, self.name.clone());
        let work = self.work.as_mut()?;
        let noted = work.writes(clean);
        work.held = work.longest > 0 && noted.wanted * 100 > work.longest * HOLD_AT;
        work.pending.send();
        let line = Line { name, offset: work.tracker.watermark(), metadata: noted.text };
        Some(Sent { number, epoch, covers: noted.covers, mark: work.mark, line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Verdict;

    fn found(committed: Option<(u64, &str)>, log: (u64, u64)) -> Found {
        let committed = committed.map(|(offset, text)| (offset, text.to_owned()));
        Found { name: Name { topic: "t".into(), partition: 0 }, committed, log, start: log.0 }
    }

    fn part(found: &Found) -> Part {
        let work = Some(Work::take_over(found).0);
        Part { name: found.name.clone(), number: 0, epoch: 1, paused: false, listed: false, work }
    }

    /// What the next owner finds, if this one ends now.
    fn heir(part: &mut Part, clean: bool, end: u64) -> Part {
        let line = part.send(clean).unwrap().line;
        self::part(&found(Some((line.offset, &line.metadata)), (0, end)))
    }

    #[test]
    fn an_owner_that_dies_without_progress_counts_and_one_that_moves_on_begins_anew() {
        let mut owner = part(&found(None, (0, 9)));
        for deaths in 0..3 {
            assert_eq!(owner.work.as_mut().unwrap().suspicion(0, 4), (deaths, 0));
            owner = heir(&mut owner, false, 9);
        }
        let work = owner.work.as_mut().unwrap();
        work.tracker.step(0);
        assert!(work.tracker.settle(0));
        let mut next = heir(&mut owner, false, 9);
        assert_eq!(next.work.as_mut().unwrap().suspicion(1, 4).0, 1);
        let mut last = heir(&mut next, true, 9);
        assert_eq!(last.work.as_mut().unwrap().suspicion(1, 4).0, 0);
    }

    #[test]
    fn only_as_many_messages_are_suspects_as_the_dead_owner_may_have_had() {
        let mut owner = part(&found(None, (0, 9)));
        let mut owner = heir(&mut owner, false, 9);
        let work = owner.work.as_mut().unwrap();
        let suspects: Vec<u32> = [0, 1, 5, 6, 7].map(|offset| work.suspicion(offset, 3).0).to_vec();
        assert_eq!(suspects, [1, 1, 1, 0, 0]);
        assert_eq!(work.suspicion(5, 3).0, 1, "one that comes again is what it was");
    }

    #[test]
    fn a_run_that_was_cut_short_in_order_is_none_and_one_that_killed_is_counted() {
        let mut owner = part(&found(None, (0, 9)));
        owner.work.as_mut().unwrap().begin_run(4);
        let mut second = heir(&mut owner, false, 9);
        assert_eq!(second.work.as_mut().unwrap().suspicion(4, 9).1, 1);
        second.work.as_mut().unwrap().begin_run(4);
        let mut third = heir(&mut second, true, 9);
        assert_eq!(third.work.as_mut().unwrap().suspicion(4, 9).1, 1);
        third.work.as_mut().unwrap().begin_run(4);
        third.work.as_mut().unwrap().end_run(4, true);
        assert_eq!(heir(&mut third, false, 9).work.as_mut().unwrap().suspicion(4, 9).1, 0);
    }

    #[test]
    fn a_place_outside_of_the_log_is_told_and_its_map_is_forgotten() {
        let text = write(5, Note { unclean: 3, mark: None }, std::iter::once(6..7), LONGEST).text;
        let (work, odd) = Work::take_over(&found(Some((5, &text)), (8, 20)));
        assert_eq!((work.base, work.deaths, odd), (8, 0, Some(Oddity::Deleted { from: 5, to: 8 })));
        let (work, odd) = Work::take_over(&found(Some((5, &text)), (0, 3)));
        assert_eq!((work.base, odd), (0, Some(Oddity::Truncated { committed: 5, end: 3, start: 0 })));
        let (work, odd) = Work::take_over(&found(Some((5, &text)), (0, 7)));
        assert_eq!((work.base, work.deaths, odd), (5, 3, None));
        assert_eq!(Work::take_over(&found(Some((5, &text)), (0, 6))).0.deaths, 0, "the log ends before the map does");
    }

    #[test]
    fn intake_is_held_before_the_map_is_full_and_a_refused_map_is_halved() {
        let mut owner = part(&found(None, (0, 99_999)));
        let work = owner.work.as_mut().unwrap();
        for offset in 0..4_000 {
            work.tracker.step(offset);
            if offset % 2 == 1 {
                assert!(work.tracker.settle(offset));
                work.pending.add(offset, Verdict::Acked);
            }
        }
        let sent = owner.send(false).unwrap();
        let work = owner.work.as_mut().unwrap();
        assert!(work.held && sent.covers == u64::MAX);
        work.shorten();
        let sent = owner.send(false).unwrap();
        assert!(sent.line.metadata.len() <= LONGEST / 2 && sent.covers < u64::MAX);
        let work = owner.work.as_mut().unwrap();
        assert_eq!(work.confirm(sent).total(), 0, "the group reaches beyond what is covered");
        assert_eq!(work.pending.total().acked, 2_000);
    }
}
