//! Many messages in one call, an outcome for each.

use crate::delivery::Delivery;
use crate::failure::{Failure, Outcome};
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// The messages of one batch, in order. A message that cannot be decoded is settled by itself and is not among them.
#[derive(Debug)]
pub struct Batch<E>(pub Vec<E>);

impl<E> Deref for Batch<E> {
    type Target = Vec<E>;
    fn deref(&self) -> &Vec<E> {
        &self.0
    }
}

impl<E> DerefMut for Batch<E> {
    fn deref_mut(&mut self) -> &mut Vec<E> {
        &mut self.0
    }
}

impl<E> IntoIterator for Batch<E> {
    type Item = E;
    type IntoIter = std::vec::IntoIter<E>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a batch handler is called with.
#[derive(Debug)]
pub struct Deliveries {
    all: Vec<Delivery>,
    /// For each of `all`: why it is not in the batch that the handler sees.
    refused: Mutex<Vec<Option<Failure>>>,
}

impl Deliveries {
    pub(super) fn new(all: Vec<Delivery>) -> Self {
        let refused = Mutex::new(all.iter().map(|_| None).collect());
        Self { all, refused }
    }

    pub(super) fn first(&self) -> Option<&Delivery> {
        self.all.first()
    }

    /// Takes an item from each delivery; those that fail are refused and left out.
    pub(super) fn accept<E>(&self, mut take: impl FnMut(&Delivery) -> Result<E, Failure>) -> Vec<E> {
        let mut refused = self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut items = Vec::with_capacity(self.all.len());
        for (delivery, refused) in self.all.iter().zip(refused.iter_mut()) {
            match take(delivery) {
                Ok(item) => items.push(item),
                Err(failure) => *refused = Some(failure),
            }
        }
        items
    }

    pub(super) fn take_refused(&self) -> Vec<Option<Failure>> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// What a batch handler says: the same of all, or an outcome for each item in order.
#[derive(Debug)]
pub enum BatchDone {
    /// All are handled.
    All,
    /// One outcome for each item, in the order of the batch.
    Each(Vec<Outcome>),
}

impl BatchDone {
    /// Puts the refused messages back among the outcomes of those that the handler saw.
    pub(super) fn merge(early: Vec<Option<Failure>>, done: Result<BatchDone, Failure>) -> Result<BatchDone, Failure> {
        if early.iter().all(Option::is_none) {
            return done;
        }
        let seen = early.iter().filter(|refused| refused.is_none()).count();
        let mut of_seen = Vec::with_capacity(seen);
        Self::spread(done, seen, &mut |_, outcome| of_seen.push(outcome));
        let mut of_seen = of_seen.into_iter();
        Ok(Self::Each(
            early
                .into_iter()
                .map(|refused| match refused {
                    Some(failure) => Err(failure),
                    None => of_seen.next().expect("spread gives an outcome for each"),
                })
                .collect(),
        ))
    }

    /// One outcome for each of `count` messages, whatever the handler said.
    pub(super) fn spread(done: Result<BatchDone, Failure>, count: usize, each: &mut dyn FnMut(usize, Outcome)) {
        match done {
            Ok(BatchDone::All) => (0..count).for_each(|index| each(index, Ok(()))),
            Ok(BatchDone::Each(outcomes)) if outcomes.len() == count => {
                outcomes.into_iter().enumerate().for_each(|(index, outcome)| each(index, outcome));
            }
            Ok(BatchDone::Each(outcomes)) => {
                // Which outcome belongs to which message cannot be known: none of them is taken for done.
                let text = format!("a batch of {count} messages came back with {} outcomes", outcomes.len());
                (0..count).for_each(|index| each(index, Err(Failure::retry(text.clone()).classed("outcomes"))));
            }
            Err(failure) => (0..count).for_each(|index| each(index, Err(failure.copied()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(done: Result<BatchDone, Failure>, count: usize) -> Vec<bool> {
        let mut all = Vec::new();
        BatchDone::spread(done, count, &mut |_, outcome| all.push(outcome.is_ok()));
        all
    }

    #[test]
    fn a_wrong_number_of_outcomes_acks_nothing() {
        assert_eq!(spread(Ok(BatchDone::Each(vec![Ok(()), Ok(())])), 3), [false; 3]);
    }

    #[test]
    fn a_refused_message_keeps_its_place_among_the_outcomes() {
        let early = vec![None, Some(Failure::reject("bad")), None];
        let done = BatchDone::merge(early, Ok(BatchDone::Each(vec![Ok(()), Err(Failure::retry("later"))])));
        let BatchDone::Each(outcomes) = done.unwrap() else { panic!("each") };
        let classes: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(Failure::class)).collect();
        assert_eq!(classes, [None, Some("rejected"), Some("error")]);
    }
}
