//! A source: one consumer of a group.

use super::group::Demand;
use super::queue::{Queue, Wakes, wake_members};
use super::reading::Reading;
use crate::failure::Tally;
use crate::transport::{Ask, Backlog, BoxFuture, Event, Settlement, Source, SourceHooks, Verdict};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// Takes what comes.
    Open,
    /// Works off what is there.
    Draining,
    /// Has worked it off once, and said so.
    Stopped,
    /// Nothing more: all that it had was put back.
    Closed,
}

/// An open source.
pub(super) struct MemorySource {
    queue: Arc<Queue>,
    group: usize,
    epoch: u32,
    id: u64,
    reading: Reading,
    messages: u32,
    told: u32,
    bytes: u64,
    /// Delivered and not settled.
    in_hand: u64,
    paused: bool,
    intake: Intake,
    ended: bool,
    proven: Tally,
    stale: Tally,
    /// What is to be said, at most one for each thing told.
    out: VecDeque<Event>,
    /// Until the next delayed message is due.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl MemorySource {
    pub(super) fn open(queue: Arc<Queue>, group: &str, reading: Reading, hooks: SourceHooks) -> Self {
        let mut state = queue.lock();
        let (group, epoch) = state.join(group, hooks.busy);
        let id = state.new_id();
        drop(state);
        Self {
            queue,
            group,
            epoch,
            id,
            reading,
            messages: 0,
            told: 0,
            bytes: 0,
            in_hand: 0,
            paused: false,
            intake: Intake::Open,
            ended: false,
            proven: Tally::default(),
            stale: Tally::default(),
            out: VecDeque::from([Event::Connected]),
            alarm: None,
        }
    }

    fn settle(&mut self, settlements: &[Settlement]) {
        let mut state = self.queue.lock();
        let part_of = state.limits.bytes;
        let group = &mut state.groups[self.group];
        let mut done = 0;
        let mut delayed = false;
        for Settlement { at, verdict } in settlements {
            let had = at.epoch == self.epoch
                && match *verdict {
                    Verdict::Retry { after, attempts } => {
                        delayed = true;
                        group.delay(at.position, self.epoch, Instant::now() + after, attempts)
                    }
                    Verdict::Acked | Verdict::DeadLettered | Verdict::Discarded | Verdict::Retried => {
                        group.settle(at.position, self.epoch, part_of)
                    }
                };
            done += u64::from(had);
            verdict.count(if had { &mut self.proven } else { &mut self.stale });
        }
        self.in_hand -= done;
        let mut wakes = Wakes::default();
        if delayed || state.closed {
            // Others of the group may be the ones to deliver it, or may have come to their end.
            wake_members(&mut state.groups[self.group], &mut wakes);
        }
        state.room_was_made(&mut wakes);
        drop(state);
        wakes.wake();
    }

    /// Puts back what this source has: these, or all.
    fn give_back(&mut self, how: GiveBack<'_>) -> u64 {
        let mut state = self.queue.lock();
        let group = &mut state.groups[self.group];
        let returned = match how {
            GiveBack::These(these) => {
                these.iter().filter(|at| at.epoch == self.epoch && group.put_back(at.position, self.epoch)).count()
                    as u64
            }
            GiveBack::All { unclean } => group.put_back_all(self.epoch, unclean),
        };
        self.in_hand -= returned;
        let mut wakes = Wakes::default();
        wake_members(group, &mut wakes);
        drop(state);
        wakes.wake();
        returned
    }

    /// Leaves the group, after everything was put back.
    fn leave(&mut self) {
        self.intake = Intake::Closed;
        let mut state = self.queue.lock();
        state.leave(self.group, self.epoch);
        state.forget(self.id);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.proven.total() + self.stale.total() > 0 {
            let (proven, stale) = (std::mem::take(&mut self.proven), std::mem::take(&mut self.stale));
            return Poll::Ready(Event::Settled { proven, stale, unknown: Tally::default() });
        }
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(event);
        }
        if self.intake == Intake::Closed {
            return Poll::Pending;
        }
        loop {
            let mut state = self.queue.lock();
            let (closed, part_of) = (state.closed, state.limits.bytes);
            let group = &mut state.groups[self.group];
            let due = group.release_due();
            if !self.paused {
                let demand =
                    Demand { messages: self.messages, told: self.told, bytes: self.bytes, alone: self.in_hand == 0 };
                if let Some(taken) = group.take(self.epoch, &self.queue.name, demand, &self.reading, part_of) {
                    let messages = taken.slab.len() as u32;
                    self.in_hand += u64::from(messages);
                    self.messages -= messages;
                    self.bytes = self.bytes.saturating_sub(taken.bytes);
                    return Poll::Ready(Event::Batch(taken.slab));
                }
            }
            if self.intake == Intake::Draining && group.waiting() + group.delayed() == 0 {
                self.intake = Intake::Stopped;
                return Poll::Ready(Event::IntakeStopped);
            }
            if closed && !self.ended && group.messages() == 0 {
                self.ended = true;
                return Poll::Ready(Event::Ended);
            }
            let me = group.members.iter_mut().find(|member| member.epoch == self.epoch);
            me.expect("a source is a member until it leaves").waker = Some(cx.waker().clone());
            drop(state);
            let Some(due) = due else { return Poll::Pending };
            match &mut self.alarm {
                Some(alarm) if alarm.deadline() != due => alarm.as_mut().reset(due),
                Some(_) => {}
                None => self.alarm = Some(Box::pin(tokio::time::sleep_until(due))),
            }
            let alarm = self.alarm.as_mut().expect("it was just set");
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

enum GiveBack<'a> {
    These(&'a [crate::message::At]),
    All { unclean: bool },
}

impl Source for MemorySource {
    fn tell(&mut self, ask: Ask) {
        if self.intake == Intake::Closed {
            return;
        }
        match ask {
            Ask::Demand { messages, bytes } => (self.messages, self.told, self.bytes) = (messages, messages, bytes),
            Ask::Settle(settlements) => self.settle(&settlements),
            Ask::Return(these) => {
                self.give_back(GiveBack::These(&these));
            }
            Ask::Mark(at) => {
                if at.epoch == self.epoch {
                    self.queue.lock().groups[self.group].mark(at.position, self.epoch);
                }
                self.out.push_back(Event::Marked(at));
            }
            Ask::Flush { .. } => self.out.push_back(Event::Flushed),
            Ask::StopIntake => {
                self.queue.drain(self.id);
                if self.intake == Intake::Open {
                    self.intake = Intake::Draining;
                }
            }
            Ask::Pause(_) => self.paused = true,
            Ask::Resume(_) => self.paused = false,
            Ask::Released(_) | Ask::Recalled(_) => {}
            Ask::Measure => {
                let state = self.queue.lock();
                let group = &state.groups[self.group];
                let measured = Backlog { waiting: Some(group.waiting()), delayed: Some(group.delayed()) };
                self.out.push_back(Event::Measured(measured));
            }
            Ask::Close { .. } => {
                let returned = self.give_back(GiveBack::All { unclean: false });
                self.out.push_back(Event::Closed { returned, unknown: Tally::default() });
                self.leave();
            }
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(poll_fn(|cx| self.poll_event(cx)))
    }
}

impl Drop for MemorySource {
    /// Without [`Ask::Close`] this is a crash: what was delivered waits again, and is suspected a little more.
    fn drop(&mut self) {
        if self.intake != Intake::Closed {
            self.give_back(GiveBack::All { unclean: true });
            self.leave();
        }
    }
}
