//! What every actor is doing, written by relaxed stores and read by anybody at any time.
//!
//! The board is filled once, before the runtime runs, and never grows: reading it takes no lock and no allocation, so
//! that it can be read while the whole executor is stuck. A reader may catch a lane between two stores and see the
//! position of one message with the age of the one before; that is the price of costing a message three stores.

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What an actor is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// Its turn to start has not come.
    Waiting,
    /// It connects, opens, subscribes.
    Starting,
    /// It works.
    Ready,
    /// It works, and is not connected or reports itself not ready.
    NotReady,
    /// It died, and is started again after its back-off.
    Down,
    /// It takes nothing more.
    IntakeStopped,
    /// What has started finishes.
    Draining,
    /// What runs is dropped.
    Cancelling,
    /// What is unsettled goes back.
    Returning,
    /// It stops.
    Stopping,
    /// A resource closes.
    Closing,
    /// It is gone.
    Stopped,
}

impl Doing {
    const ALL: [(Doing, &'static str); 12] = [
        (Doing::Waiting, "waiting"),
        (Doing::Starting, "starting"),
        (Doing::Ready, "ready"),
        (Doing::NotReady, "not ready"),
        (Doing::Down, "down"),
        (Doing::IntakeStopped, "intake stopped"),
        (Doing::Draining, "draining"),
        (Doing::Cancelling, "cancelling"),
        (Doing::Returning, "returning"),
        (Doing::Stopping, "stopping"),
        (Doing::Closing, "closing"),
        (Doing::Stopped, "stopped"),
    ];

    /// Its name in dumps.
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// An actor to be registered.
#[derive(Debug, Clone)]
pub struct ActorSpec {
    /// Its name, the same as in logs and metrics.
    pub name: Arc<str>,
    /// `consumer`, `producer`, `bridge`, `resource`, `service`.
    pub kind: &'static str,
    /// How many lanes it has; 0 for an actor without messages.
    pub lanes: usize,
    /// How many handlers of one lane can be pending at a time.
    pub slots: usize,
}

/// All actors of an app.
#[derive(Debug)]
pub struct Board {
    app: Box<str>,
    epoch: Instant,
    actors: OnceLock<Box<[Arc<ActorLine>]>>,
}

impl Board {
    /// A board without actors.
    pub fn new(app: &str) -> Self {
        Self { app: app.into(), epoch: Instant::now(), actors: OnceLock::new() }
    }

    /// Name of the app.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Writes down all actors there will ever be, [`Board::actor`]`(0)` first.
    ///
    /// # Panics
    /// When called a second time.
    pub fn register(&self, specs: Vec<ActorSpec>) {
        let lines = specs.into_iter().map(|spec| Arc::new(ActorLine::new(spec))).collect();
        assert!(self.actors.set(lines).is_ok(), "actors are registered once");
    }

    /// All actors, in the order of their registration; none before it.
    pub fn actors(&self) -> &[Arc<ActorLine>] {
        self.actors.get().map_or(&[], |lines| lines)
    }

    /// One actor.
    ///
    /// # Panics
    /// When it was not registered.
    pub fn actor(&self, id: usize) -> &Arc<ActorLine> {
        &self.actors()[id]
    }

    /// Milliseconds since the board was made.
    pub fn now_ms(&self) -> u64 {
        self.ms_of(Instant::now())
    }

    /// The same of another moment; 0 for one before the board.
    pub fn ms_of(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

/// How the deliveries of a worker ended so far, by the names of the report's counts, and what it holds.
#[derive(Debug, Default)]
pub struct Cells {
    pub received: AtomicU64,
    pub acked: AtomicU64,
    pub retried: AtomicU64,
    pub dead_lettered: AtomicU64,
    pub discarded: AtomicU64,
    pub returned: AtomicU64,
    pub abandoned: AtomicU64,
    pub unknown: AtomicU64,
    pub in_flight: AtomicU64,
    pub awaiting_confirms: AtomicU64,
}

/// One actor.
#[derive(Debug)]
pub struct ActorLine {
    name: Arc<str>,
    kind: &'static str,
    doing: AtomicU8,
    since_ms: AtomicU64,
    /// Its counts; written relaxed.
    pub cells: Cells,
    lanes: Box<[Arc<LaneLine>]>,
}

impl ActorLine {
    fn new(spec: ActorSpec) -> Self {
        Self {
            name: spec.name,
            kind: spec.kind,
            doing: AtomicU8::new(Doing::Waiting as u8),
            since_ms: AtomicU64::new(0),
            cells: Cells::default(),
            lanes: (0..spec.lanes).map(|_| Arc::new(LaneLine::new(spec.slots))).collect(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// From now on it does this; of a resource, `Closing` is what names it when it hangs.
    pub fn enter(&self, doing: Doing, now_ms: u64) {
        self.since_ms.store(now_ms, Relaxed);
        self.doing.store(doing as u8, Release);
    }

    /// What it does, and since when.
    pub fn doing(&self) -> (Doing, u64) {
        let doing = Doing::ALL[usize::from(self.doing.load(Acquire))].0;
        (doing, self.since_ms.load(Relaxed))
    }

    /// One lane.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn lane(&self, n: usize) -> &Arc<LaneLine> {
        &self.lanes[n]
    }

    /// Every message that is in a handler: the ones being polled first.
    pub fn running(&self) -> impl Iterator<Item = Running> + '_ {
        let polled = (0..).zip(&self.lanes).filter_map(|(lane, line)| line.polled.read(lane, true));
        let pending = (0..)
            .zip(&self.lanes)
            .flat_map(|(lane, line)| line.slots.iter().filter_map(move |slot| slot.read(lane, false)));
        polled.chain(pending)
    }
}

/// What one lane has in its handlers. Lanes run on different cores, so each has cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct LaneLine {
    polled: Slot,
    slots: Box<[Slot]>,
}

impl LaneLine {
    fn new(slots: usize) -> Self {
        Self { polled: Slot::default(), slots: (0..slots).map(|_| Slot::default()).collect() }
    }

    /// This message's handler is polled from now on, until [`LaneLine::idle`] or the next one.
    #[inline]
    pub fn polling(&self, position: u64, epoch: u32, partition: u32, attempt: u32, now_ms: u64) {
        self.polled.set(position, epoch, partition, attempt, now_ms);
    }

    /// No handler is being polled.
    #[inline]
    pub fn idle(&self) {
        self.polled.clear();
    }

    /// The place of a pending handler.
    ///
    /// # Panics
    /// When the lane has fewer.
    pub fn slot(&self, i: usize) -> &Slot {
        &self.slots[i]
    }
}

/// A message in a handler, or none.
#[derive(Debug, Default)]
pub struct Slot {
    position: AtomicU64,
    /// Epoch above, partition below.
    place: AtomicU64,
    /// 0: none. Else attempt above, start in milliseconds plus one below.
    when: AtomicU64,
}

/// Bits of [`Slot::when`] for the start: 8,900 years.
const START_BITS: u32 = 48;

impl Slot {
    /// The message's handler was started at `started_ms`.
    pub fn set(&self, position: u64, epoch: u32, partition: u32, attempt: u32, started_ms: u64) {
        self.position.store(position, Relaxed);
        self.place.store(u64::from(epoch) << 32 | u64::from(partition), Relaxed);
        let attempt = u64::from(attempt.min(u32::from(u16::MAX)));
        let start = (started_ms + 1).min((1 << START_BITS) - 1);
        // Last, so that whoever sees the start sees the message too, unless the next has begun.
        self.when.store(attempt << START_BITS | start, Release);
    }

    /// Nothing is in this place.
    pub fn clear(&self) {
        self.when.store(0, Release);
    }

    fn read(&self, lane: usize, polled: bool) -> Option<Running> {
        let when = self.when.load(Acquire);
        if when == 0 {
            return None;
        }
        let place = self.place.load(Relaxed);
        Some(Running {
            lane,
            polled,
            position: self.position.load(Relaxed),
            epoch: (place >> 32) as u32,
            partition: place as u32,
            attempt: (when >> START_BITS) as u32,
            started_ms: (when & ((1 << START_BITS) - 1)) - 1,
        })
    }
}

/// A message in a handler, as read from the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// In which lane of its worker.
    pub lane: usize,
    /// Whether its handler holds the thread right now; else it waits for something.
    pub polled: bool,
    /// Its position in the source.
    pub position: u64,
    /// Under which ownership it was delivered.
    pub epoch: u32,
    /// Its partition.
    pub partition: u32,
    /// Which attempt; at most 65,535 is told apart.
    pub attempt: u32,
    /// When its handler started, in milliseconds of the board.
    pub started_ms: u64,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.polled { "holds its thread" } else { "waits" };
        write!(
            f,
            "message at position {} (partition {}, epoch {}, attempt {}) in lane {} {state}",
            self.position, self.partition, self.epoch, self.attempt, self.lane
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let board = Board::new("orders");
        board.register(vec![
            ActorSpec { name: "db".into(), kind: "resource", lanes: 0, slots: 0 },
            ActorSpec { name: "ship".into(), kind: "consumer", lanes: 2, slots: 4 },
        ]);
        board
    }

    #[test]
    fn a_running_message_is_seen_until_its_handler_returns() {
        let board = board();
        let ship = board.actor(1);
        assert_eq!(ship.running().count(), 0);
        ship.lane(1).slot(2).set(7, 3, 4, 2, 0);
        ship.lane(0).polling(u64::MAX, u32::MAX, u32::MAX, 1, 250);
        let found: Vec<_> = ship.running().collect();
        let seen = |running: &Running| (running.lane, running.polled, running.position, running.started_ms);
        assert_eq!(found.iter().map(seen).collect::<Vec<_>>(), [(0, true, u64::MAX, 250), (1, false, 7, 0)]);
        assert_eq!((found[1].epoch, found[1].partition, found[1].attempt), (3, 4, 2));
        assert_eq!((found[0].epoch, found[0].partition), (u32::MAX, u32::MAX));
        ship.lane(0).idle();
        ship.lane(1).slot(2).clear();
        assert_eq!(ship.running().count(), 0);
    }

    #[test]
    fn an_attempt_beyond_what_fits_does_not_spoil_the_start() {
        let board = board();
        board.actor(1).lane(0).polling(1, 0, 0, u32::MAX, 99);
        let running = board.actor(1).running().next().unwrap();
        assert_eq!((running.attempt, running.started_ms), (u32::from(u16::MAX), 99));
    }

    #[test]
    fn what_an_actor_does_is_told_with_its_beginning() {
        let board = board();
        assert_eq!(board.actor(0).doing(), (Doing::Waiting, 0));
        board.actor(0).enter(Doing::Closing, 42);
        assert_eq!(board.actor(0).doing(), (Doing::Closing, 42));
        for (at, (doing, _)) in Doing::ALL.into_iter().enumerate() {
            assert_eq!(doing as usize, at, "names stand in the order of the enum");
        }
    }

    #[test]
    fn an_empty_board_can_be_read() {
        assert!(Board::new("orders").actors().is_empty());
    }
}
