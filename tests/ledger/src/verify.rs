//! The verifier: compares what was meant, what was confirmed and what was done.
//!
//! `lost = ok − (effects ∪ dead letters ∪ still in the broker)`, `unexpected = effects − intents`,
//! `recovered = unknown ∩ effects`, `duplicated = count − 1`. Per producer and key each new maximum is the old one + 1;
//! what comes again after a crash may rewind, and only what was dead-lettered or never confirmed may be missing.

use crate::effects::{Effect, stamped};
use crate::ids::Id;
use crate::intents::{Word, entry};
use crate::tail::Tail;
use crate::world::World;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;

/// Ids of a kind that are shown; all are counted.
const SHOWN: usize = 20;

/// All that is known of a run.
#[derive(Default)]
pub struct Books {
    /// The last word on each message that somebody meant to send.
    sent: HashMap<Id, Word>,
    /// In the order in which they were done.
    effects: Vec<Effect>,
    /// Among the dead letters.
    dead: HashSet<Id>,
    /// Still in the broker.
    left: HashSet<Id>,
}

/// Ids, counted; the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub some: Vec<String>,
}

impl Ids {
    fn add(&mut self, id: impl ToString) {
        self.count += 1;
        if self.some.len() < SHOWN {
            self.some.push(id.to_string());
        }
    }
}

impl<I: ToString> FromIterator<I> for Ids {
    fn from_iter<T: IntoIterator<Item = I>>(all: T) -> Self {
        let mut ids = Self::default();
        all.into_iter().for_each(|id| ids.add(id));
        ids
    }
}

/// What the books come to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// Messages that somebody meant to send.
    pub intents: usize,
    /// Confirmed ones.
    pub ok: usize,
    /// Not sent.
    pub failed: usize,
    /// Neither confirmed nor known to be absent; those without any word are among them.
    pub unknown: usize,
    /// Handler runs.
    pub effects: usize,
    /// Messages among the dead letters.
    pub dead: usize,
    /// Messages still in the broker.
    pub left: usize,
    /// Confirmed, and nowhere.
    pub lost: Ids,
    /// Done or dead-lettered, and never meant to be sent.
    pub unexpected: Ids,
    /// Done although nobody confirmed them.
    pub recovered: usize,
    /// Handler runs beyond the first of each message.
    pub duplicated: usize,
    /// Those of them that a redelivery does not explain: the message was published more than once.
    pub published_again: usize,
    /// Messages that were done more than once.
    pub done_again: Ids,
    /// Messages that were overtaken by a later one of their key.
    pub gaps: Ids,
    /// Messages whose payload or key had changed.
    pub damaged: Ids,
    /// Messages whose handler was told of an earlier start.
    pub attempted_before: Ids,
}

impl Books {
    /// A producer's entry. A later word replaces an earlier one, but nothing takes back what was confirmed.
    pub fn sent(&mut self, word: Word, id: Id) {
        let last = self.sent.entry(id).or_insert(word);
        if *last != Word::Ok {
            *last = word;
        }
    }

    /// A handler's report.
    pub fn done(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// A message that was found among the dead letters.
    pub fn dead(&mut self, id: Id) {
        self.dead.insert(id);
    }

    /// A message that was found in the broker at the end.
    pub fn left(&mut self, id: Id) {
        self.left.insert(id);
    }

    /// Reads the files of a run: the logs of its producers, the collector's file, and what was found in the queues.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut books = Self::default();
        for producer in 0..=u16::MAX {
            let log = World::intents_file(folder, producer);
            if !log.exists() {
                break;
            }
            each(&log, |line| entry(line).map(|(word, id)| books.sent(word, id)))?;
        }
        each(&World::effects_file(folder), |line| stamped(line).map(|(_, effect)| books.done(effect)))?;
        each(&folder.join("dead"), |line| line.parse().map(|id| books.dead(id)))?;
        each(&folder.join("left"), |line| line.parse().map(|id| books.left(id)))?;
        Ok(books)
    }

    /// Compares everything.
    pub fn findings(&self) -> Findings {
        let mut times: HashMap<Id, usize> = HashMap::new();
        let mut first_deliveries: HashMap<Id, usize> = HashMap::new();
        for effect in &self.effects {
            let times = times.entry(effect.id).or_default();
            // What was delivered before and not done then is a first delivery as far as the books go.
            *first_deliveries.entry(effect.id).or_default() += usize::from(!effect.redelivered || *times == 0);
            *times += 1;
        }
        let with = |word: Word| self.sent.iter().filter(move |(_, last)| **last == word).map(|(id, _)| *id);
        let is_somewhere = |id: &Id| times.contains_key(id) || self.dead.contains(id) || self.left.contains(id);
        let unconfirmed: Vec<Id> = with(Word::Unknown).chain(with(Word::Intent)).collect();
        // Sorted, so that two looks at the same books show the same.
        let seen: BTreeSet<Id> = times.keys().chain(&self.dead).chain(&self.left).copied().collect();
        let lost: BTreeSet<Id> = with(Word::Ok).filter(|id| !is_somewhere(id)).collect();
        let done_again: BTreeSet<Id> = times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| *id).collect();
        Findings {
            intents: self.sent.len(),
            ok: with(Word::Ok).count(),
            failed: with(Word::Failed).count(),
            unknown: unconfirmed.len(),
            effects: self.effects.len(),
            dead: self.dead.len(),
            left: self.left.len(),
            lost: lost.into_iter().collect(),
            unexpected: seen.into_iter().filter(|id| !self.sent.contains_key(id)).collect(),
            recovered: unconfirmed.iter().filter(|id| times.contains_key(id)).count(),
            duplicated: times.values().map(|times| times - 1).sum(),
            published_again: first_deliveries.values().map(|times| times.saturating_sub(1)).sum(),
            done_again: done_again.into_iter().collect(),
            gaps: self.gaps(),
            damaged: self.effects.iter().filter(|effect| !effect.whole).map(|effect| effect.id).collect(),
            attempted_before: self.effects.iter().filter(|effect| effect.attempt > 1).map(|effect| effect.id).collect(),
        }
    }

    /// What was overtaken: missing below a new maximum of its producer and key, though it was confirmed and is not
    /// dead.
    fn gaps(&self) -> Ids {
        let mut highest: HashMap<(u32, u16, u32), u32> = HashMap::new();
        let mut gaps = Ids::default();
        for Effect { id, .. } in self.effects.iter().filter(|effect| self.sent.contains_key(&effect.id)) {
            let highest = highest.entry((id.run, id.producer, id.key)).or_default();
            for seq in *highest + 1..id.seq {
                let missing = Id { seq, ..*id };
                if self.sent.get(&missing) == Some(&Word::Ok) && !self.dead.contains(&missing) {
                    gaps.add(format!("{missing} before {}", id.seq));
                }
            }
            *highest = id.seq.max(*highest);
        }
        gaps
    }
}

/// Compares the files of a run that was kept, and prints what they come to; an error where that is not good.
pub fn folder(folder: &Path) -> io::Result<()> {
    let books = Books::read(folder)?;
    let found = books.findings();
    println!("{}", serde_json::to_string_pretty(&found).map_err(io::Error::other)?);
    let wrong = [&found.lost, &found.unexpected, &found.gaps, &found.damaged];
    if wrong.iter().any(|ids| ids.count > 0) || found.left > 0 {
        return Err(io::Error::other("these books are not good"));
    }
    Ok(())
}

/// Each line of a file. One that does not read as it should makes the books worthless.
fn each(path: &Path, mut take: impl FnMut(&str) -> Result<(), String>) -> io::Result<()> {
    let mut wrong = None;
    Tail::new(path).each(|line| {
        if let Err(error) = take(line) {
            wrong.get_or_insert(error);
        }
    })?;
    match wrong {
        Some(error) => Err(io::Error::other(format!("{}: {error}", path.display()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 7;

    fn id(key: u32, seq: u32) -> Id {
        Id { run: RUN, producer: 0, key, seq }
    }

    fn effect(id: Id) -> Effect {
        Effect { id, attempt: 1, redelivered: false, pid: 1, boot: 1, whole: true }
    }

    /// Books in which messages 1 to 5 of two keys were meant, confirmed and done, in order.
    fn good() -> Books {
        let mut books = Books::default();
        for seq in 1..=5 {
            for key in 0..2 {
                books.sent(Word::Intent, id(key, seq));
                books.sent(Word::Ok, id(key, seq));
                books.done(effect(id(key, seq)));
            }
        }
        books
    }

    fn forget(books: &mut Books, id: Id) {
        books.effects.retain(|effect| effect.id != id);
    }

    fn some(ids: &Ids) -> Vec<&str> {
        ids.some.iter().map(String::as_str).collect()
    }

    #[test]
    fn in_good_books_nothing_is_found() {
        let found = good().findings();
        assert_eq!((found.intents, found.ok, found.effects, found.duplicated, found.recovered), (10, 10, 10, 0, 0));
        for ids in [&found.lost, &found.unexpected, &found.gaps, &found.damaged, &found.attempted_before] {
            assert_eq!(*ids, Ids::default());
        }
    }

    #[test]
    fn a_confirmed_message_that_is_nowhere_is_lost() {
        let mut books = good();
        forget(&mut books, id(1, 5));
        assert_eq!(some(&books.findings().lost), ["00000007-0-1-5"]);
        books.left(id(1, 5));
        assert_eq!((books.findings().lost.count, books.findings().left), (0, 1));
        books.left.clear();
        books.dead(id(1, 5));
        assert_eq!((books.findings().lost.count, books.findings().dead), (0, 1));
    }

    #[test]
    fn an_unconfirmed_message_is_no_loss_and_recovered_where_it_was_done() {
        for word in [Word::Intent, Word::Failed, Word::Unknown] {
            let mut books = good();
            books.sent.insert(id(1, 5), word);
            assert_eq!(books.findings().recovered, usize::from(word != Word::Failed), "{word}");
            forget(&mut books, id(1, 5));
            assert_eq!((books.findings().lost.count, books.findings().recovered), (0, 0), "{word}");
        }
    }

    #[test]
    fn nothing_takes_back_what_was_confirmed() {
        let mut books = good();
        books.sent(Word::Unknown, id(0, 1));
        forget(&mut books, id(0, 1));
        assert_eq!(books.findings().lost.count, 1);
    }

    #[test]
    fn an_effect_or_dead_letter_that_nobody_meant_is_unexpected() {
        let mut books = good();
        books.done(effect(id(9, 1)));
        books.dead(Id { run: RUN + 1, ..id(0, 1) });
        assert_eq!(some(&books.findings().unexpected), ["00000007-0-9-1", "00000008-0-0-1"]);
    }

    #[test]
    fn every_run_beyond_the_first_is_a_duplicate() {
        let mut books = good();
        books.done(effect(id(0, 4)));
        books.done(effect(id(0, 4)));
        books.done(effect(id(1, 5)));
        let found = books.findings();
        assert_eq!((found.duplicated, some(&found.done_again)), (3, vec!["00000007-0-0-4", "00000007-0-1-5"]));
        assert_eq!(found.gaps.count, 0, "a rewind is allowed");
    }

    #[test]
    fn a_duplicate_that_was_not_redelivered_was_published_again() {
        let mut books = good();
        books.done(Effect { redelivered: true, ..effect(id(0, 4)) });
        assert_eq!((books.findings().duplicated, books.findings().published_again), (1, 0));
        books.done(effect(id(0, 4)));
        assert_eq!((books.findings().duplicated, books.findings().published_again), (2, 1));
    }

    #[test]
    fn a_copy_that_was_published_after_a_redelivery_was_published_again() {
        let mut books = good();
        forget(&mut books, id(0, 5));
        books.done(Effect { redelivered: true, ..effect(id(0, 5)) });
        assert_eq!((books.findings().duplicated, books.findings().published_again), (0, 0));
        books.done(effect(id(0, 5)));
        assert_eq!((books.findings().duplicated, books.findings().published_again), (1, 1));
    }

    #[test]
    fn a_message_that_is_overtaken_is_a_gap_even_if_it_is_done_later() {
        let mut books = good();
        let at = |books: &Books, id| books.effects.iter().position(|effect| effect.id == id).unwrap();
        let (third, fourth) = (at(&books, id(1, 3)), at(&books, id(1, 4)));
        books.effects.swap(third, fourth);
        assert_eq!(some(&books.findings().gaps), ["00000007-0-1-3 before 4"]);
    }

    #[test]
    fn a_rewind_does_not_hide_a_gap_behind_it() {
        let mut books = good();
        forget(&mut books, id(0, 5));
        books.effects.extend([id(0, 2), id(0, 3)].map(effect));
        for seq in 6..=7 {
            books.sent(Word::Ok, id(0, seq));
            books.done(effect(id(0, seq)));
        }
        assert_eq!(some(&books.findings().gaps), ["00000007-0-0-5 before 6"]);
    }

    #[test]
    fn a_first_message_that_is_missing_is_a_gap() {
        let mut books = good();
        forget(&mut books, id(0, 1));
        assert_eq!(some(&books.findings().gaps), ["00000007-0-0-1 before 2"]);
    }

    #[test]
    fn a_gap_is_allowed_where_a_message_is_dead_or_was_never_confirmed() {
        let mut books = good();
        forget(&mut books, id(0, 2));
        assert_eq!(books.findings().gaps.count, 1);
        books.dead(id(0, 2));
        assert_eq!(books.findings().gaps.count, 0);
        books.dead.clear();
        books.sent.insert(id(0, 2), Word::Unknown);
        assert_eq!(books.findings().gaps.count, 0);
    }

    #[test]
    fn producers_and_keys_are_ordered_apart() {
        let mut books = good();
        let other = Id { producer: 1, ..id(0, 1) };
        books.sent(Word::Ok, other);
        books.done(effect(other));
        assert_eq!(books.findings().gaps.count, 0);
        let third = Id { producer: 1, ..id(0, 3) };
        books.sent(Word::Ok, Id { seq: 2, ..third });
        books.sent(Word::Ok, third);
        books.done(effect(third));
        assert_eq!(some(&books.findings().gaps), ["00000007-1-0-2 before 3"]);
    }

    #[test]
    fn a_damaged_payload_and_an_earlier_attempt_are_found() {
        let mut books = good();
        books.effects[3].whole = false;
        books.effects[4].attempt = 2;
        let found = books.findings();
        assert_eq!((found.damaged.count, found.attempted_before.count), (1, 1));
    }

    #[test]
    fn a_line_that_does_not_read_as_it_should_makes_the_books_worthless() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("effects"), "12 00000007-0-0-1 1 0 1 1 whole\nrubbish\n").unwrap();
        let Err(error) = Books::read(folder.path()) else { panic!("rubbish was read") };
        assert!(error.to_string().contains("rubbish"));
    }
}
