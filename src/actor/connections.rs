//! The connections of an actor: what its health and its metrics say of them.

use crate::error::Error;
use crate::supervisor::health::{ActorHealth, Hindrance};
use crate::telemetry::metrics::WorkerMetrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where one of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// Awaited for the first time.
    Awaited,
    There,
    Gone,
}

/// The connections of one start of an actor. Each is said by a task of its own; the gauge is 1 while all are there.
pub(crate) struct Connections {
    health: ActorHealth,
    metrics: Arc<WorkerMetrics>,
    all: Mutex<BTreeMap<Hindrance, Connection>>,
}

impl Connections {
    pub(super) fn new(health: ActorHealth, metrics: Arc<WorkerMetrics>) -> Self {
        Self { health, metrics, all: Mutex::default() }
    }

    /// It will be made; until then the actor is not connected.
    pub(crate) fn awaited(&self, which: Hindrance) {
        self.turn(which, |_| Some(Connection::Awaited));
    }

    /// It is there, for the first time or again.
    pub(crate) fn made(&self, which: Hindrance) {
        self.health.freed(&which);
        let mut again = false;
        self.turn(which, |before| {
            again = matches!(before, Some(Connection::There | Connection::Gone));
            Some(Connection::There)
        });
        if again {
            self.metrics.reconnects.increment(1);
        }
    }

    /// It is gone, and is tried again.
    pub(crate) fn lost(&self, which: Hindrance, why: &Error) {
        self.health.hindered(which.clone(), why);
        self.turn(which, |before| match before {
            Some(Connection::There | Connection::Gone) => Some(Connection::Gone),
            Some(Connection::Awaited) | None => Some(Connection::Awaited),
        });
    }

    /// It is not needed for now: nobody waits for it.
    pub(crate) fn given_up(&self, which: Hindrance) {
        self.health.freed(&which);
        self.turn(which, |_| None);
    }

    /// The actor has ended, and its connections with it.
    pub(crate) fn ended(&self) {
        self.all().clear();
        self.metrics.connected.set(0.0);
    }

    fn turn(&self, which: Hindrance, to: impl FnOnce(Option<Connection>) -> Option<Connection>) {
        let mut all = self.all();
        match to(all.get(&which).copied()) {
            Some(connection) => drop(all.insert(which, connection)),
            None => drop(all.remove(&which)),
        }
        // Under the lock: of two that turn at once, the one that set the gauge last has seen both.
        let connected = all.values().all(|connection| *connection == Connection::There);
        self.metrics.connected.set(f64::from(u8::from(connected)));
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<Hindrance, Connection>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::supervisor::health::{Health, Stage};
    use crate::telemetry::metrics::tests::{has, rendered};

    fn after(act: impl Fn(&Connections)) -> (String, Vec<String>) {
        let health = Health::new("orders", "1.2.3");
        health.set_stage(Stage::Running);
        let line = health.actor("ship", "bridge");
        line.ready();
        let text = rendered(|| {
            let metrics = Arc::new(WorkerMetrics::new("ship"));
            act(&Connections::new(line.clone(), metrics));
        });
        (text, health.readiness().reasons)
    }

    fn sink() -> Hindrance {
        Hindrance::Sink("test:out".into())
    }

    /// What happens, and what is to be seen then: whether it is connected, how often again, and how many reasons.
    type Step<'a> = (&'a dyn Fn(&Connections), u8, u32, usize);

    #[test]
    fn a_worker_is_connected_only_while_its_source_and_its_sink_are() {
        let gone = || Error::new(ErrorKind::Io, "reset");
        let steps: [Step<'_>; 8] = [
            (&|all| all.awaited(Hindrance::Source), 0, 0, 0),
            (&|all| all.awaited(sink()), 0, 0, 0),
            // Not made yet, so that it is no connection that is made again later.
            (&|all| all.lost(sink(), &gone()), 0, 0, 1),
            (&|all| all.made(sink()), 0, 0, 0),
            (&|all| all.made(Hindrance::Source), 1, 0, 0),
            (&|all| all.lost(sink(), &gone()), 0, 0, 1),
            (&|all| all.lost(Hindrance::Source, &gone()), 0, 0, 2),
            (&|all| all.made(sink()), 0, 1, 1),
        ];
        for (done, (_, connected, reconnects, reasons)) in steps.iter().enumerate() {
            let (text, found) = after(|all| steps[..=done].iter().for_each(|(step, ..)| step(all)));
            for line in [
                format!("longshore_connected{{worker=\"ship\"}} {connected}"),
                format!("longshore_reconnects_total{{worker=\"ship\"}} {reconnects}"),
            ] {
                assert!(has(&text, &line), "after step {done}: {line}\n{text}");
            }
            assert_eq!(found.len(), *reasons, "after step {done}: {found:?}");
        }
    }

    #[test]
    fn a_place_that_failed_and_is_not_needed_hinders_nobody() {
        let (text, reasons) = after(|all| {
            all.made(Hindrance::Source);
            all.made(sink());
            all.lost(sink(), &Error::new(ErrorKind::Io, "reset"));
            all.given_up(sink());
        });
        assert!(has(&text, "longshore_connected{worker=\"ship\"} 1"), "{text}");
        assert!(reasons.is_empty(), "{reasons:?}");
    }
}
