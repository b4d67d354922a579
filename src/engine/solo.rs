//! Suspects: messages whose owners ended without giving them back.
//!
//! Whatever killed an owner is among what it held, and nothing tells which. So what an owner left behind twice runs
//! alone, one message at a time, each after a durable mark: a process that dies then was killed by that message. Its
//! neighbours ran before or run after it, and lose nothing but time.

use crate::message::{At, Slab};
use crate::transport::Ownership;
use std::collections::VecDeque;
use std::sync::Arc;

/// A message that so many owners left behind is a suspect.
const SUSPECT_FROM: u32 = 2;
/// A message that killed so many solo runs goes to the dead letters.
const SOLO_RUNS: u32 = 3;
/// Header of a message that did; the value says so.
pub(crate) const POISON_HEADER: &str = "longshore-poison";

/// What to do with the next of what waits.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing waits, or a mark is awaited.
    Nothing,
    /// Not suspects: to the lanes together.
    Together(Slab),
    /// A suspect: to be marked, then to the lanes by itself.
    Mark(At),
    /// It has killed its solo runs: to the lanes, which send it to the dead letters.
    Poison(Slab),
}

/// Batches with suspects in them, held back until they have run one by one.
#[derive(Debug, Default)]
pub(crate) struct Solo {
    batches: VecDeque<(Arc<Slab>, u32)>,
    marking: Option<Slab>,
}

impl Solo {
    /// Whether a batch has to wait here: it has a suspect, or others wait already.
    pub(crate) fn takes(&self, slab: &Slab) -> bool {
        !self.is_empty() || slab.heads().iter().any(|head| head.unclean >= SUSPECT_FROM)
    }

    pub(crate) fn hold(&mut self, slab: Arc<Slab>) {
        self.batches.push_back((slab, 0));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.marking.is_none()
    }

    /// Messages that wait here.
    pub(crate) fn len(&self) -> u64 {
        let waiting: usize = self.batches.iter().map(|(slab, from)| slab.len() - *from as usize).sum();
        (waiting + usize::from(self.marking.is_some())) as u64
    }

    /// The next step, to be taken when nothing runs.
    pub(crate) fn next(&mut self) -> Next {
        if self.marking.is_some() {
            return Next::Nothing;
        }
        while self.batches.front().is_some_and(|(slab, from)| *from as usize >= slab.len()) {
            self.batches.pop_front();
        }
        let Some((slab, from)) = self.batches.front_mut() else { return Next::Nothing };
        let rest = &slab.heads()[*from as usize..];
        let together = rest.iter().take_while(|head| head.unclean < SUSPECT_FROM).count() as u32;
        if together > 0 {
            let run = slab.share(*from..*from + together, slab.topic().clone(), |_, _| {});
            *from += together;
            return Next::Together(run);
        }
        let (at, marks) = (rest[0].at, rest[0].marks);
        let alone = slab.only(*from);
        *from += 1;
        if marks >= SOLO_RUNS {
            return Next::Poison(poisoned(&alone, marks));
        }
        self.marking = Some(alone);
        Next::Mark(at)
    }

    /// The mark is durable: the message may run.
    pub(crate) fn marked(&mut self, at: At) -> Option<Slab> {
        self.marking.take_if(|slab| slab.heads()[0].at == at)
    }

    /// Takes out what an ownership covers, or everything.
    pub(crate) fn take_back(&mut self, ownership: Option<&Ownership>) -> Vec<At> {
        let mut taken = Vec::new();
        let covered = |at: At| ownership.is_none_or(|ownership| ownership.covers(at));
        if let Some(slab) = self.marking.take_if(|slab| covered(slab.heads()[0].at)) {
            taken.push(slab.heads()[0].at);
        }
        for (slab, from) in std::mem::take(&mut self.batches) {
            for index in from..slab.len() as u32 {
                match slab.heads()[index as usize].at {
                    at if covered(at) => taken.push(at),
                    _ => self.batches.push_back((Arc::new(slab.only(index)), 0)),
                }
            }
        }
        taken
    }
}

/// The same message with the reason for which it is not to run any more.
fn poisoned(slab: &Slab, marks: u32) -> Slab {
    let message = slab.get(0);
    let mut headers = message.headers().to_headers();
    headers.set(POISON_HEADER, format!("killed its process in {marks} runs of its own"));
    let mut one = crate::message::SlabBuilder::new();
    one.push_again(message, headers.as_ref());
    one.finish(slab.topic().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, SlabBuilder};

    fn batch(unclean: &[(u32, u32)]) -> Arc<Slab> {
        let mut slab = SlabBuilder::new();
        for (position, (unclean, marks)) in unclean.iter().enumerate() {
            let head = slab.push_message(&Message::new("x"));
            (head.at.position, head.unclean, head.marks) = (position as u64, *unclean, *marks);
        }
        Arc::new(slab.finish("in".into()))
    }

    #[test]
    fn a_suspect_runs_alone_after_its_mark_and_its_neighbours_together() {
        let mut solo = Solo::default();
        let slab = batch(&[(0, 0), (1, 0), (2, 0), (0, 0)]);
        assert!(solo.takes(&slab));
        solo.hold(slab);
        assert!(matches!(solo.next(), Next::Together(run) if run.len() == 2));
        let Next::Mark(at) = solo.next() else { panic!("a suspect is marked") };
        assert!(matches!(solo.next(), Next::Nothing), "nothing runs beside a suspect");
        assert_eq!(solo.marked(at).unwrap().heads()[0].at.position, 2);
        assert!(matches!(solo.next(), Next::Together(run) if run.len() == 1));
        assert!(matches!(solo.next(), Next::Nothing) && solo.is_empty());
    }

    #[test]
    fn only_what_killed_three_runs_of_its_own_is_poison() {
        let mut solo = Solo::default();
        solo.hold(batch(&[(9, 2), (9, 3)]));
        let Next::Mark(at) = solo.next() else { panic!("two are not enough") };
        solo.marked(at);
        assert!(matches!(solo.next(), Next::Poison(_)));
    }

    #[test]
    fn a_stop_takes_back_everything_that_waits() {
        let mut solo = Solo::default();
        solo.hold(batch(&[(2, 0), (0, 0), (2, 0)]));
        assert!(matches!(solo.next(), Next::Mark(_)));
        assert_eq!((solo.len(), solo.take_back(None).len(), solo.len()), (3, 3, 0));
    }
}
