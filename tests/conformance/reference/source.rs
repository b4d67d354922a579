//! The source of the reference transport.

use super::world::{Entry, Group};
use super::{Fault, Manner, Shared};
use longshore::message::{At, SlabBuilder};
use longshore::transport::*;
use longshore::{Error, Tally};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

pub struct Plan {
    pub shared: Arc<Shared>,
    pub queue: Arc<str>,
    pub group: String,
    pub spec: SourceSpec,
    pub opened: AtomicBool,
}

impl SourcePlan for Plan {
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities()
    }

    fn group(&self) -> Option<&str> {
        Some(&self.group)
    }

    fn open(&self, _: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        let again = self.opened.swap(true, Ordering::Relaxed);
        if again && self.shared.has(Fault::OpensOnce) {
            return Box::pin(std::future::ready(Err(Error::configuration("it was opened before"))));
        }
        let mut world = self.shared.world();
        let epoch = world.epoch();
        let replays = self.shared.capabilities().replays && !self.shared.has(Fault::ForgetsThePast);
        let revokes = world.queue(&self.queue).group(&self.group, replays).revokes;
        let source = Reading {
            shared: self.shared.clone(),
            queue: self.queue.clone(),
            group: self.group.clone(),
            by_key: self.spec.by_key,
            max_message: self.spec.max_message,
            epoch,
            revokes,
            messages: 0,
            bytes: 0,
            stage: Stage::Open,
            paused: false,
            ended: false,
            events: VecDeque::from([Event::Connected]),
            unproven: Vec::new(),
        };
        Box::pin(async move { Ok(Box::new(source) as Box<dyn Source>) })
    }
}

#[derive(PartialEq, Eq)]
enum Stage {
    Open,
    IntakeStopped,
    Closed,
}

struct Reading {
    shared: Arc<Shared>,
    queue: Arc<str>,
    group: String,
    by_key: bool,
    max_message: u64,
    epoch: u32,
    revokes: u32,
    messages: u32,
    bytes: u64,
    stage: Stage,
    paused: bool,
    ended: bool,
    events: VecDeque<Event>,
    /// What is settled and not told yet, for the fault that waits to be asked.
    unproven: Vec<Event>,
}

impl Reading {
    fn has(&self, fault: Fault) -> bool {
        self.shared.has(fault)
    }

    /// Does something with the group, and lets the others look.
    fn group<T>(&self, work: impl FnOnce(&mut Group) -> T) -> T {
        let done = work(self.shared.world().queue(&self.queue).group(&self.group, true));
        self.shared.changed.notify_waiters();
        done
    }

    fn settle(&mut self, settlements: Vec<Settlement>) {
        let (mut proven, mut stale) = (Tally::default(), Tally::default());
        for Settlement { at, verdict } in settlements {
            let owner = if self.has(Fault::SettlesStale) { self.owner_now(at) } else { Some(at.epoch) };
            let (delays, counts) = (!self.has(Fault::IgnoresDelay), !self.has(Fault::ForgetsAttempts));
            let found = self.group(|group| {
                let Some(entry) = owner.and_then(|owner| group.owned(at.position, owner)) else { return false };
                if let Verdict::Retry { after, attempts } = verdict {
                    entry.owner = None;
                    entry.due = delays.then(|| Instant::now() + after);
                    entry.attempts = if counts { attempts } else { 0 };
                } else {
                    group.open.retain(|entry| entry.row != at.position);
                }
                true
            });
            if found && self.has(Fault::MixesGroups) && !matches!(verdict, Verdict::Retry { .. }) {
                let mut world = self.shared.world();
                world.queue(&self.queue).every_group().for_each(|group| group.open.retain(|e| e.row != at.position));
            }
            match (found, self.has(Fault::HidesStale)) {
                (true, _) => verdict.count(&mut proven),
                (false, false) => verdict.count(&mut stale),
                (false, true) => {}
            }
        }
        if self.has(Fault::ProvesOnDemand) {
            self.unproven.push(Event::Settled { proven, stale, unknown: Tally::default() });
        } else {
            self.events.push_back(Event::Settled { proven, stale, unknown: Tally::default() });
        }
    }

    /// Whoever has the message now, for the fault that does not ask who had it.
    fn owner_now(&self, at: At) -> Option<u32> {
        self.group(|group| {
            let entry = group.open.iter_mut().find(|entry| entry.row == at.position)?;
            Some(*entry.owner.get_or_insert(at.epoch))
        })
    }

    fn give_back(&mut self, these: Vec<At>) {
        if self.has(Fault::ForgetsReturns) {
            return;
        }
        let (to_the_tail, unclean) = (self.has(Fault::ReturnsToTheTail), self.has(Fault::SuspectsEverybody));
        self.group(|group| {
            for at in these {
                let Some(entry) = group.owned(at.position, at.epoch) else { continue };
                entry.owner = None;
                entry.unclean += u32::from(unclean);
                if to_the_tail {
                    let entry = entry.clone();
                    group.open.retain(|other| other.row != entry.row);
                    group.open.push_back(entry);
                }
            }
        });
    }

    fn close(&mut self) {
        if self.has(Fault::DeliversAfterClose)
            && let Some(batch) = self.deliver()
        {
            self.events.push_back(batch);
        }
        let (epoch, keeps) = (self.epoch, self.shared.keeps());
        let unclean = self.has(Fault::SuspectsEverybody);
        let mut returned = self.group(|group| {
            let mut returned = 0;
            group.open.retain_mut(|entry| {
                let mine = entry.owner == Some(epoch);
                if mine {
                    entry.owner = None;
                    entry.unclean += u32::from(unclean);
                    returned += 1;
                }
                keeps || !mine
            });
            returned
        });
        if self.has(Fault::Miscounts) && returned > 0 {
            returned -= 1;
        }
        self.stage = Stage::Closed;
        if self.has(Fault::ForgetsProofs) {
            self.events.retain(|event| !matches!(event, Event::Settled { .. }));
        }
        self.events.extend(self.unproven.drain(..));
        self.events.push_back(Event::Closed { returned, unknown: Tally::default() });
    }

    /// As many messages as were asked for and are free.
    fn deliver(&mut self) -> Option<Event> {
        let stops = self.shared.capabilities().takes_back || self.has(Fault::StopsShort);
        let stopped = self.stage != Stage::Open && stops && !self.has(Fault::DeliversAfterStop);
        if stopped || self.paused && !self.has(Fault::IgnoresPause) {
            return None;
        }
        if self.has(Fault::IgnoresDemand) {
            (self.messages, self.bytes) = (u32::MAX, u64::MAX);
        }
        let (epoch, mut messages, mut bytes) = (self.epoch, self.messages, self.bytes);
        let bytes_count = !self.has(Fault::IgnoresBytes);
        let upper_bound = self.shared.capabilities().delivery_count == DeliveryCount::UpperBound;
        let counts = upper_bound && !self.has(Fault::CountsTooLow);
        let shares = self.has(Fault::SharesDeliveries);
        let fenced = self.by_key && !self.has(Fault::SharesKeys);
        let max_message = if self.has(Fault::IgnoresLimit) { usize::MAX } else { self.max_message as usize };
        let mut builder = SlabBuilder::new();
        self.group_quietly(|group| {
            let mut held: Vec<_> = Vec::new();
            let mut alone = !group.open.iter().any(|entry| entry.owner == Some(epoch));
            for entry in &mut group.open {
                let key = entry.message.key.clone();
                if entry.owner.is_some_and(|owner| owner != epoch) && !shares {
                    held.extend(key);
                    continue;
                }
                let free = entry.is_free() || shares && entry.owner.is_some_and(|owner| owner != epoch);
                if !free || fenced && key.is_some_and(|key| held.contains(&key)) {
                    continue;
                }
                let size = size_of(entry);
                if messages == 0 || bytes_count && size > bytes && !alone {
                    break;
                }
                (messages, bytes, alone) = (messages - 1, bytes.saturating_sub(size), false);
                let mut message = (*entry.message).clone();
                if let Some(payload) = message.payload.as_mut().filter(|payload| payload.len() > max_message) {
                    message.headers.push(OVERSIZED_HEADER, payload.len().to_string());
                    payload.clear();
                }
                let head = builder.push_message(&message);
                head.at = At { position: entry.row, epoch, partition: 0 };
                (head.attempts, head.unclean) = (entry.attempts, entry.unclean);
                entry.owner = Some(epoch);
                entry.attempts += u32::from(counts);
            }
        });
        (self.messages, self.bytes) = (messages, bytes);
        let mut slab = builder.finish(self.queue.clone());
        if self.has(Fault::Reverses) {
            let mut backwards = SlabBuilder::new();
            for n in (0..slab.len() as u32).rev() {
                backwards.push_ref(slab.get(n));
            }
            slab = backwards.finish(self.queue.clone());
        }
        (!slab.is_empty()).then_some(Event::Batch(slab))
    }

    /// What happens now, if anything does.
    fn event(&mut self) -> Option<Event> {
        let revokes = self.group_quietly(|group| group.revokes);
        if revokes != std::mem::replace(&mut self.revokes, revokes) {
            let old = std::mem::replace(&mut self.epoch, self.shared.world().epoch());
            if !self.has(Fault::HidesLoss) {
                self.events.push_back(Event::Lost(Ownership { epoch: old, partitions: None }));
            }
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let finite = self.shared.manner == Manner::Finite && !self.has(Fault::NeverEnds);
        let early = self.has(Fault::EndsEarly);
        let done = |group: &mut Group| group.open.is_empty() || early && group.open.iter().any(Entry::is_free);
        if finite && !self.ended && self.stage != Stage::Closed && self.group_quietly(done) {
            self.ended = true;
            return Some(Event::Ended);
        }
        self.deliver()
    }

    /// Looks at the group, and wakes nobody.
    fn group_quietly<T>(&self, look: impl FnOnce(&mut Group) -> T) -> T {
        look(self.shared.world().queue(&self.queue).group(&self.group, true))
    }
}

fn size_of(entry: &Entry) -> u64 {
    let mut one = SlabBuilder::new();
    one.push_message(&entry.message);
    one.bytes() as u64
}

impl Source for Reading {
    fn tell(&mut self, ask: Ask) {
        match ask {
            Ask::Demand { messages, bytes } => (self.messages, self.bytes) = (messages, bytes),
            Ask::Settle(settlements) => self.settle(settlements),
            Ask::Return(these) => self.give_back(these),
            Ask::Mark(at) => {
                if !self.has(Fault::ForgetsMarks) {
                    self.group(|group| group.owned(at.position, at.epoch).map(|entry| entry.attempts += 1));
                }
                self.events.push_back(Event::Marked(at));
            }
            Ask::Flush { .. } if self.has(Fault::FlushesEarly) => self.events.push_front(Event::Flushed),
            Ask::Flush { .. } => {
                self.events.extend(self.unproven.drain(..));
                self.events.push_back(Event::Flushed);
            }
            Ask::StopIntake => {
                self.stage = Stage::IntakeStopped;
                self.events.push_back(Event::IntakeStopped);
            }
            Ask::Pause(_) => self.paused = true,
            Ask::Resume(_) => self.paused = false,
            Ask::Released(_) => {}
            Ask::Measure if self.has(Fault::NeverMeasures) => {}
            Ask::Measure => {
                let counts = self.shared.world().queue(&self.queue).inspect(&self.group);
                self.events.push_back(Event::Measured(Backlog { waiting: counts.waiting, delayed: counts.delayed }));
            }
            Ask::Close { by } if self.has(Fault::HangsWithoutTime) && by <= Instant::now().into_std() => {}
            Ask::Close { .. } => self.close(),
            // Asks that are added later belong to capabilities that are not declared here.
            _ => {}
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            let shared = self.shared.clone();
            loop {
                let mut changed = std::pin::pin!(shared.changed.notified());
                changed.as_mut().enable();
                if let Some(event) = self.event() {
                    if self.has(Fault::LosesOnCancel) && matches!(event, Event::Batch(_)) {
                        tokio::task::yield_now().await;
                    }
                    return event;
                }
                let due = self.group_quietly(|group| {
                    let now = Instant::now();
                    group.open.iter().filter_map(|entry| entry.due).filter(|due| *due > now).min()
                });
                match due {
                    Some(due) => drop(tokio::time::timeout_at(due, changed).await),
                    None => changed.await,
                }
            }
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.stage == Stage::Closed || self.has(Fault::BuriesTheDead) {
            return;
        }
        let (epoch, keeps) = (self.epoch, self.shared.keeps());
        let remembers = !self.has(Fault::ForgetsDeaths);
        self.group(|group| {
            group.open.retain_mut(|entry| {
                let mine = entry.owner == Some(epoch);
                if mine {
                    entry.owner = None;
                    entry.unclean += u32::from(remembers);
                }
                keeps || !mine
            });
        });
    }
}
