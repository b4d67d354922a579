//! One queue: its groups, its bounds, and who waits for it.

use super::group::{Group, LAST_EPOCH, Member};
use crate::error::{Error, ErrorKind};
use crate::message::Slab;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Called when there is work again.
pub(super) type Busy = Arc<dyn Fn() + Send + Sync>;

/// What a queue holds at most, for each of its groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// A queue; sources, sinks and handles share it.
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    state: Mutex<State>,
}

pub(super) struct State {
    /// Never empty: the first has no name until a source comes.
    pub(super) groups: Vec<Group>,
    pub(super) limits: Limits,
    pub(super) closed: bool,
    next_position: u64,
    next_epoch: u32,
    next_id: u64,
    /// Sources and sinks that are draining.
    draining: Vec<u64>,
    /// Those that wait for room.
    waiting: Vec<(u64, Waker)>,
    /// The hook of each open source. Shared, so that a publish can call them after the lock is released.
    busy: Arc<[(u32, Busy)]>,
}

/// Wakers to be called once the lock is released.
#[derive(Default)]
pub(super) struct Wakes {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakes {
    fn add(&mut self, waker: Waker) {
        match &self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.more).for_each(Waker::wake);
    }
}

/// Why a batch was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room now.
    Full,
    /// The queue is closed for good.
    Closed,
    /// The queue is being worked off.
    Stopping,
}

/// Whether a send comes from a sink, which carries on what a message caused, or from a handle outside of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Sink,
    Outside,
}

impl Queue {
    pub(super) fn new(name: &str, limits: Limits) -> Self {
        Self {
            name: name.into(),
            state: Mutex::new(State {
                groups: vec![Group::default()],
                limits,
                closed: false,
                next_position: 0,
                next_epoch: 1,
                next_id: 0,
                draining: Vec::new(),
                waiting: Vec::new(),
                busy: Arc::new([]),
            }),
        }
    }

    /// The state. Held for the time of one batch, never over an await or a call of a hook or waker.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch in, or says why not. With `Full`, `waiter` is woken when there is room. The hooks of its
    /// sources were called when this returns.
    pub(super) fn push(&self, slab: &Arc<Slab>, from: From, waiter: Option<(u64, &Waker)>) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if from == From::Outside && !state.draining.is_empty() {
            return Err(Refused::Stopping);
        }
        if slab.is_empty() {
            return Ok(());
        }
        if !state.has_room(slab) {
            if let Some((id, waker)) = waiter {
                state.wait_for_room(id, waker);
            }
            return Err(Refused::Full);
        }
        let first = state.next_position;
        state.next_position += slab.len() as u64;
        // The budget of whoever sent it must not stay charged for as long as it lies here.
        let slab = if slab.is_charged() {
            Arc::new(slab.share(0..slab.len() as u32, self.name.clone(), |_, _| ()))
        } else {
            slab.clone()
        };
        let mut wakes = Wakes::default();
        for group in &mut state.groups {
            group.push(slab.clone(), first);
            wake_members(group, &mut wakes);
        }
        let busy = state.busy.clone();
        drop(state);
        busy.iter().for_each(|(_, hook)| hook());
        wakes.wake();
        Ok(())
    }

    /// What a refused send is told.
    pub(super) fn refusal(&self, why: Refused) -> Error {
        let name = &self.name;
        match why {
            Refused::Full => Error::new(ErrorKind::Io, format!("memory queue '{name}' is full")),
            Refused::Closed => Error::new(ErrorKind::GaveUp, format!("memory queue '{name}' is closed")),
            Refused::Stopping => Error::new(
                ErrorKind::GaveUp,
                format!("memory queue '{name}' is stopping and takes nothing from outside"),
            ),
        }
    }

    /// From now on nothing from outside is taken in, until whoever drains has gone. Who waits for room is told.
    pub(super) fn drain(&self, id: u64) {
        let mut state = self.lock();
        state.drain(id);
        let mut wakes = Wakes::default();
        state.room_was_made(&mut wakes);
        drop(state);
        wakes.wake();
    }

    /// Closes it for good: nothing more is taken in.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut wakes = Wakes::default();
        for group in &mut state.groups {
            wake_members(group, &mut wakes);
        }
        state.room_was_made(&mut wakes);
        drop(state);
        wakes.wake();
    }
}

pub(super) fn wake_members(group: &mut Group, wakes: &mut Wakes) {
    group.members.iter_mut().filter_map(|member| member.waker.take()).for_each(|waker| wakes.add(waker));
}

impl State {
    /// The largest of one figure over all groups.
    pub(super) fn most(&self, figure: impl Fn(&Group) -> u64) -> u64 {
        self.groups.iter().map(figure).max().unwrap_or(0)
    }

    fn has_room(&self, slab: &Slab) -> bool {
        let messages = self.most(Group::messages);
        // One batch always goes into an empty queue, however large it is.
        messages == 0
            || (messages + slab.len() as u64 <= self.limits.messages
                && self.most(Group::bytes) + slab.size() <= self.limits.bytes)
    }

    /// A number for somebody who may wait for room or drain.
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Joins a group as a new source: its epoch. A group that is new sees what is published from now on; the first
    /// one sees what was published before, too.
    pub(super) fn join(&mut self, name: &str, busy: Busy) -> (usize, u32) {
        let epoch = self.next_epoch;
        assert!(epoch <= LAST_EPOCH, "a queue is opened less than four thousand million times");
        self.next_epoch += 1;
        let found = self.groups.iter().position(|group| group.name.as_deref().is_none_or(|known| known == name));
        let at = found.unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.name.get_or_insert_with(|| name.into());
        group.members.push(Member { epoch, waker: None });
        self.busy = self.busy.iter().cloned().chain([(epoch, busy)]).collect();
        (at, epoch)
    }

    /// A source is gone; all that it had was put back before.
    pub(super) fn leave(&mut self, group: usize, epoch: u32) {
        self.groups[group].members.retain(|member| member.epoch != epoch);
        self.busy = self.busy.iter().filter(|(of, _)| *of != epoch).cloned().collect();
    }

    fn drain(&mut self, id: u64) {
        if !self.draining.contains(&id) {
            self.draining.push(id);
        }
    }

    /// Forgets one who waited or drained.
    pub(super) fn forget(&mut self, id: u64) {
        self.draining.retain(|draining| *draining != id);
        self.waiting.retain(|(waiting, _)| *waiting != id);
    }

    fn wait_for_room(&mut self, id: u64, waker: &Waker) {
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            Some((_, known)) => known.clone_from(waker),
            None => self.waiting.push((id, waker.clone())),
        }
    }

    /// Everybody who waits for room tries again.
    pub(super) fn room_was_made(&mut self, wakes: &mut Wakes) {
        self.waiting.drain(..).for_each(|(_, waker)| wakes.add(waker));
    }
}
