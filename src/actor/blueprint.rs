//! What an actor is made from, as often as the root wants it, and what it is given.

use super::connections::Connections;
use crate::error::Error;
use crate::handler::Context;
use crate::process::board::Board;
use crate::supervisor::counts::Counts;
use crate::supervisor::drain::{Actor as Id, Event, Kind};
use crate::supervisor::health::ActorHealth;
use crate::supervisor::root::RootRef;
use crate::telemetry::metrics::WorkerMetrics;
use crate::transport::BoxFuture;
use ractor::{ActorCell, ActorRef, SpawnErr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the root orders, the same for every kind of actor; each does what concerns it.
#[derive(Debug)]
pub(crate) enum Order {
    StopIntake,
    Drain,
    Cancel,
    /// Close the source, give back the rest.
    Close {
        by: Instant,
    },
    /// End for good by then: flush, close.
    Stop {
        by: Instant,
    },
    /// The loop beside the actor has ended as it should.
    LoopEnded,
    /// The loop beside the actor has failed: so does the actor.
    LoopFailed(String),
}

/// What an actor is made from.
pub(crate) trait Blueprint: Send {
    fn name(&self) -> &Arc<str>;
    fn kind(&self) -> Kind;
    /// Lanes, and handlers that can be pending in each.
    fn lanes(&self) -> (usize, usize) {
        (0, 0)
    }
    /// A stop came before its turn to start: nobody shall wait for it.
    fn will_not_start(&self) {}
    /// It is down while the app stops, so that nobody starts it again: whoever waits for it is told.
    fn gone_for_good(&self) {}
    /// Spawns it under the root. Returns at once; readiness is told through the link.
    fn spawn<'a>(&'a mut self, link: Link, root: ActorCell) -> BoxFuture<'a, Result<ActorRef<Order>, SpawnErr>>;
}

/// What an actor is given: whom it tells what.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) id: Id,
    pub(crate) root: RootRef,
    pub(crate) health: ActorHealth,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) counts: Counts,
    pub(crate) board: Arc<Board>,
    pub(crate) context: Context,
    /// Those of this start.
    pub(crate) connections: Arc<Connections>,
    /// Whether this start has been reported, as ready or as failed.
    started: Arc<AtomicBool>,
}

impl Link {
    pub(crate) fn new(
        id: Id,
        root: RootRef,
        health: ActorHealth,
        metrics: Arc<WorkerMetrics>,
        counts: Counts,
        board: Arc<Board>,
        context: Context,
    ) -> Self {
        let connections = Arc::new(Connections::new(health.clone(), metrics.clone()));
        Self { id, root, health, metrics, counts, board, context, connections, started: Arc::default() }
    }

    /// The same for another start of the actor.
    pub(crate) fn again(&self) -> Self {
        let connections = Arc::new(Connections::new(self.health.clone(), self.metrics.clone()));
        Self { connections, started: Arc::default(), ..self.clone() }
    }

    pub(crate) fn tell(&self, event: Event) {
        self.root.tell(event);
    }

    pub(super) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// The actor is ready: connected, subscribed, opened. Later calls change nothing.
    pub(crate) fn ready(&self) {
        if !self.started.swap(true, Ordering::AcqRel) {
            self.health.ready();
            self.tell(Event::Ready(self.id));
        }
    }

    /// The actor has failed: its start, if it was starting; else itself, which its `LoopFailed` says.
    pub(crate) fn failed(&self, error: &Error) {
        self.health.failed(error);
        self.connections.ended();
        self.metrics.stalled.set(0.0);
        if !self.started.swap(true, Ordering::AcqRel) {
            self.root.start_failed(self.id, error);
        } else {
            self.root.actor_failed(self.id, error);
        }
    }
}
