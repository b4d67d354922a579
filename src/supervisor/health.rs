//! What every actor says of itself, and what follows for the whole app.
//!
//! The board that `/readyz` and `/health` read. An actor writes its own line through an [`ActorHealth`]; nobody asks an
//! actor anything, so that a stuck one cannot make health itself stick.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The longest reason that is kept, in characters. A broker's text may be of any length.
const REASON_CHARS: usize = 500;

/// Where the app is in its life. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Actors are being started, in order.
    Starting,
    /// Every actor was started.
    Running,
    /// A stop was asked for.
    Stopping,
}

/// What keeps an actor that is alive from its work. Each is said and taken back on its own: one that is over says
/// nothing of the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hindrance {
    /// The connection of its source is gone.
    Source,
    /// The connection of that sink is gone.
    Sink(Arc<str>),
    /// A place that its messages go to refuses them: which kind of place.
    Place(&'static str),
    /// Messages are in flight and none has been settled for too long.
    Stall,
}

/// What an actor last said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Opening, connecting, subscribing.
    Starting,
    /// At work.
    Ready,
    /// Supervised and alive, but cannot work now: its broker is away, or it said so itself.
    NotReady(String),
    /// Messages are in flight and none has been settled for too long.
    Stalled(String),
    /// It fell, and is waiting to be started again.
    Restarting(String),
    /// It ended as it should.
    Stopped,
    /// It fell, and is not started again.
    Failed(String),
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::NotReady(_) => "not_ready",
            Self::Stalled(_) => "stalled",
            Self::Restarting(_) => "restarting",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }

    /// Why, where the state has a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NotReady(why) | Self::Stalled(why) | Self::Restarting(why) | Self::Failed(why) => Some(why),
            Self::Starting | Self::Ready | Self::Stopped => None,
        }
    }

    /// Whether the app may be ready while an actor is so. One that ended as it should hinders nobody.
    fn hinders(&self) -> bool {
        !matches!(self, Self::Ready | Self::Stopped)
    }
}

/// `not ready: connection refused`
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if let Self::NotReady(_) = self { "not ready" } else { self.word() };
        match self.reason() {
            Some(why) => write!(f, "{word}: {why}"),
            None => f.write_str(word),
        }
    }
}

/// A reason on one line and of bounded length: it may hold what a broker or a message said.
fn kept(why: &str) -> String {
    why.chars().take(REASON_CHARS).map(|each| if each.is_control() { ' ' } else { each }).collect()
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// `ready`, `starting`, `not_ready` or `shutting_down`.
    pub status: &'static str,
    /// True only while ready.
    pub accepting_traffic: bool,
    /// What hinders, a line for each hindrance of each actor, in start order.
    pub reasons: Vec<String>,
}

/// The health of one app; cheap to clone, all clones are the same board.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    app: String,
    version: String,
    board: Mutex<Board>,
    changed: watch::Sender<()>,
}

struct Board {
    stage: Stage,
    actors: Vec<Line>,
}

struct Line {
    name: String,
    kind: &'static str,
    /// Where it is in its life; never [`State::NotReady`] or [`State::Stalled`], which follow from what hinders it.
    life: State,
    hindrances: BTreeMap<Hindrance, String>,
    since: jiff::Timestamp,
    restarts: u64,
    /// What the user's own code says against being ready; independent of the state, which the runtime writes.
    own_word: Option<String>,
}

impl Line {
    /// Whether what hinders it matters: one that has not started again, or never will, cannot work anyway.
    fn may_be_hindered(&self) -> bool {
        matches!(self.life, State::Starting | State::Ready) && !self.hindrances.is_empty()
    }

    fn state(&self) -> State {
        if !self.may_be_hindered() {
            return self.life.clone();
        }
        let why = self.hindrances.values().map(String::as_str).collect::<Vec<_>>().join("; ");
        if self.hindrances.keys().all(|each| *each == Hindrance::Stall) {
            State::Stalled(why)
        } else {
            State::NotReady(why)
        }
    }

    /// Why the app is not ready, as far as it is this actor's matter.
    fn reasons(&self) -> Vec<String> {
        let Self { name, kind, life, .. } = self;
        let mut reasons = Vec::new();
        if self.may_be_hindered() {
            for (hindrance, why) in &self.hindrances {
                let word = if *hindrance == Hindrance::Stall { "stalled" } else { "not ready" };
                reasons.push(format!("{kind} '{name}' is {word}: {why}"));
            }
        } else if life.hinders() {
            reasons.push(format!("{kind} '{name}' is {life}"));
        }
        if *life != State::Stopped
            && let Some(why) = &self.own_word
        {
            reasons.push(format!("{kind} '{name}' reports itself not ready: {why}"));
        }
        reasons
    }
}

impl Health {
    /// The board of an app that is starting and has no actors yet.
    pub fn new(app: impl Into<String>, version: impl Into<String>) -> Self {
        let board = Mutex::new(Board { stage: Stage::Starting, actors: Vec::new() });
        let changed = watch::Sender::new(());
        Self { shared: Arc::new(Shared { app: app.into(), version: version.into(), board, changed }) }
    }

    /// The app's name.
    pub fn app(&self) -> &str {
        &self.shared.app
    }

    /// The app's version.
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// The line of an actor, after those that were asked for before. An actor that is started again gets its old line.
    /// `kind` is `consumer`, `producer`, `bridge`, `resource` or `service`.
    pub fn actor(&self, name: &str, kind: &'static str) -> ActorHealth {
        let mut board = self.board();
        let found = board.actors.iter().position(|line| line.name == name && line.kind == kind);
        let index = found.unwrap_or_else(|| {
            let name = name.to_owned();
            let since = jiff::Timestamp::now();
            let (life, hindrances) = (State::Starting, BTreeMap::new());
            board.actors.push(Line { name, kind, life, hindrances, since, restarts: 0, own_word: None });
            board.actors.len() - 1
        });
        drop(board);
        if found.is_none() {
            self.shared.changed.send_replace(());
        }
        ActorHealth { health: self.clone(), index }
    }

    /// Goes forward to a stage. Going back is ignored: the end of a start must not undo a stop that came during it.
    pub fn set_stage(&self, stage: Stage) {
        let mut board = self.board();
        let before = board.stage;
        if stage <= before {
            return;
        }
        board.stage = stage;
        drop(board);
        self.shared.changed.send_replace(());
        tracing::info!(app = %self.shared.app, "{before:?} => {stage:?}");
    }

    /// Where the app is in its life.
    pub fn stage(&self) -> Stage {
        self.board().stage
    }

    /// Whether the app takes work now, and if not, why.
    pub fn readiness(&self) -> Readiness {
        let board = self.board();
        let mut reasons: Vec<_> = board.actors.iter().flat_map(Line::reasons).collect();
        let status = match board.stage {
            Stage::Starting => "starting",
            Stage::Running if reasons.is_empty() => "ready",
            Stage::Running => "not_ready",
            Stage::Stopping => "shutting_down",
        };
        if board.stage == Stage::Stopping {
            // Actors stop one after the other then, which hinders nothing.
            reasons = vec!["the app is stopping".to_owned()];
        }
        Readiness { status, accepting_traffic: status == "ready", reasons }
    }

    /// The body of `/health`: alive, and every actor in start order with state and reason.
    pub fn tree(&self) -> Value {
        let readiness = self.readiness();
        let board = self.board();
        let actors: Vec<_> = board
            .actors
            .iter()
            .map(|line| {
                let Line { name, kind, since, restarts, own_word, .. } = line;
                let state = line.state();
                let reason = state.reason().or(own_word.as_deref());
                json!({
                    "name": name, "kind": kind, "state": state.word(), "reason": reason,
                    "own_word": own_word, "since": since.to_string(), "restarts": restarts,
                })
            })
            .collect();
        json!({
            "status": "alive", "app": self.shared.app, "version": self.shared.version, "stage": board.stage,
            "readiness": readiness, "actors": actors,
        })
    }

    /// Tells of every change from now on. A receiver that looks late sees one change for many.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Waits for the next change. Cancel-safe; a change before the call is not seen, for that use [`Health::changes`].
    pub async fn changed(&self) {
        self.changes().changed().await.expect("the sender lives as long as this board");
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // A line is written whole or not at all, so the board of a thread that panicked is as good as any.
        self.shared.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of one actor on the board; cheap to clone.
#[derive(Clone)]
pub struct ActorHealth {
    health: Health,
    index: usize,
}

impl ActorHealth {
    /// It is opening, connecting or subscribing; nothing hinders it yet.
    pub fn starting(&self) {
        self.lives(State::Starting);
    }

    /// It is at work, as far as nothing hinders it.
    pub fn ready(&self) {
        self.change(|line| line.life = State::Ready);
    }

    /// It is alive, and this keeps it from its work until [`ActorHealth::freed`] says otherwise. A stall names the
    /// message.
    pub fn hindered(&self, by: Hindrance, why: impl fmt::Display) {
        let why = kept(&why.to_string());
        self.change(|line| drop(line.hindrances.insert(by, why)));
    }

    /// This hinders it no more. What else does stays.
    pub fn freed(&self, of: &Hindrance) {
        self.change(|line| drop(line.hindrances.remove(of)));
    }

    /// It fell and waits to be started again; counts as a restart.
    pub fn restarting(&self, why: impl fmt::Display) {
        self.health.board().actors[self.index].restarts += 1;
        self.lives(State::Restarting(kept(&why.to_string())));
    }

    /// It ended as it should.
    pub fn stopped(&self) {
        self.lives(State::Stopped);
    }

    /// It fell and is not started again.
    pub fn failed(&self, why: impl fmt::Display) {
        self.lives(State::Failed(kept(&why.to_string())));
    }

    /// What the user's own code says: a reason against being ready, or `None` to take it back. It stands beside the
    /// state that the runtime writes, so that a reconnect does not wipe it out.
    pub fn own_word(&self, why: Option<&str>) {
        let why = why.map(kept);
        let mut board = self.health.board();
        let line = &mut board.actors[self.index];
        if line.own_word == why {
            return;
        }
        let turned = line.own_word.is_some() != why.is_some();
        let (name, kind) = (line.name.clone(), line.kind);
        line.own_word.clone_from(&why);
        drop(board);
        self.health.shared.changed.send_replace(());
        if turned {
            let now = if why.is_some() { "reports itself not ready" } else { "takes its word back" };
            tracing::info!(actor = %name, kind, reason = why, "{now}");
        }
    }

    /// What it last said.
    pub fn state(&self) -> State {
        self.health.board().actors[self.index].state()
    }

    /// A turn of its life, which leaves behind what hindered it.
    fn lives(&self, life: State) {
        self.change(|line| {
            line.life = life;
            line.hindrances.clear();
        });
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        let mut board = self.health.board();
        let line = &mut board.actors[self.index];
        let before = line.state();
        change(line);
        let state = line.state();
        if before == state {
            return;
        }
        let turned = std::mem::discriminant(&before) != std::mem::discriminant(&state);
        let (name, kind) = (line.name.clone(), line.kind);
        if turned {
            line.since = jiff::Timestamp::now();
        }
        // Neither waking nor writing a log line may happen under the lock: a log that blocks would block `/readyz`.
        drop(board);
        self.health.shared.changed.send_replace(());
        if turned {
            // Only the turn is logged. A broker that words each refused connection anew must not fill the log.
            tracing::info!(actor = %name, kind, reason = state.reason(), "{} => {}", before.word(), state.word());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::logs::tests::logged;

    fn running() -> Health {
        let health = Health::new("orders", "1.2.3");
        health.set_stage(Stage::Running);
        health
    }

    #[test]
    fn an_app_is_ready_only_when_every_actor_is() {
        let health = Health::new("orders", "1.2.3");
        let (db, ship) = (health.actor("db", "resource"), health.actor("ship", "consumer"));
        assert_eq!(health.readiness().status, "starting");
        assert_eq!(health.readiness().reasons, ["resource 'db' is starting", "consumer 'ship' is starting"]);
        db.ready();
        ship.ready();
        assert!(!health.readiness().accepting_traffic, "the start is not over");
        health.set_stage(Stage::Running);
        assert_eq!(health.readiness(), Readiness { status: "ready", accepting_traffic: true, reasons: vec![] });
        ship.hindered(Hindrance::Source, "connection refused");
        let reasons = vec!["consumer 'ship' is not ready: connection refused".to_owned()];
        assert_eq!(health.readiness(), Readiness { status: "not_ready", accepting_traffic: false, reasons });
        health.set_stage(Stage::Stopping);
        let reasons = vec!["the app is stopping".to_owned()];
        assert_eq!(health.readiness(), Readiness { status: "shutting_down", accepting_traffic: false, reasons });
    }

    #[test]
    fn starting_restarting_and_failed_hinder_and_stopped_does_not() {
        let health = running();
        let ship = health.actor("ship", "consumer");
        for (turn, status) in [
            (State::Ready, "ready"),
            (State::Restarting("panicked".into()), "not_ready"),
            (State::Starting, "not_ready"),
            (State::Failed("gave up".into()), "not_ready"),
            (State::Stopped, "ready"),
        ] {
            ship.lives(turn.clone());
            assert_eq!(health.readiness().status, status, "{turn}");
        }
    }

    #[test]
    fn a_stop_during_the_start_is_not_undone_by_the_end_of_the_start() {
        let health = Health::new("orders", "1.2.3");
        health.set_stage(Stage::Stopping);
        health.set_stage(Stage::Running);
        assert_eq!(health.stage(), Stage::Stopping);
    }

    #[test]
    fn a_users_own_word_outlives_a_reconnect() {
        let health = running();
        let ship = health.actor("ship", "consumer");
        ship.own_word(Some("cache is cold"));
        ship.ready();
        ship.hindered(Hindrance::Source, "connection refused");
        ship.freed(&Hindrance::Source);
        assert_eq!(health.readiness().reasons, ["consumer 'ship' reports itself not ready: cache is cold"]);
        ship.own_word(None);
        assert_eq!(health.readiness().status, "ready");
    }

    #[test]
    fn each_hindrance_has_a_line_of_its_own_and_one_that_is_over_takes_no_other_with_it() {
        let health = running();
        let ship = health.actor("ship", "bridge");
        ship.ready();
        let (dead, sink) = (Hindrance::Place("dead-letter place"), Hindrance::Sink("test:out".into()));
        ship.hindered(Hindrance::Stall, "message 7");
        assert_eq!(health.readiness().reasons, ["bridge 'ship' is stalled: message 7"]);
        ship.hindered(Hindrance::Source, "refused");
        ship.hindered(sink.clone(), "reset");
        ship.hindered(dead.clone(), "full");
        let all = ["not ready: refused", "not ready: reset", "not ready: full", "stalled: message 7"];
        assert_eq!(health.readiness().reasons, all.map(|each| format!("bridge 'ship' is {each}")));
        assert_eq!(health.tree()["actors"][0]["reason"], "refused; reset; full; message 7");
        for (over, left) in [(Hindrance::Source, 3), (dead, 2), (Hindrance::Stall, 1), (sink, 0)] {
            // What says that it is at work says nothing of what hinders it.
            ship.ready();
            ship.freed(&over);
            assert_eq!(health.readiness().reasons.len(), left, "{over:?}");
        }
        assert_eq!(health.readiness().status, "ready");
    }

    #[test]
    fn a_new_life_begins_without_what_hindered_the_old_one() {
        let health = running();
        let ship = health.actor("ship", "bridge");
        ship.hindered(Hindrance::Source, "refused");
        ship.restarting("panicked");
        assert_eq!(health.readiness().reasons, ["bridge 'ship' is restarting: panicked"]);
        ship.starting();
        ship.ready();
        assert_eq!(health.readiness().status, "ready");
    }

    #[test]
    fn the_tree_keeps_the_start_order_and_a_restarted_actor_its_line() {
        let health = running();
        health.actor("db", "resource").ready();
        health.actor("ship", "consumer").restarting("panicked");
        health.actor("db", "resource").ready();
        health.actor("ship", "consumer").starting();
        health.actor("ship", "consumer").hindered(Hindrance::Source, "line one\nline two");
        let tree = health.tree();
        assert_eq!(
            (&tree["status"], &tree["stage"], &tree["app"]),
            (&json!("alive"), &json!("running"), &json!("orders"))
        );
        let actors = tree["actors"].as_array().unwrap();
        assert_eq!(actors.len(), 2);
        assert_eq!(actors[0]["name"], "db");
        assert_eq!(actors[1]["restarts"], 1);
        assert_eq!((&actors[1]["state"], &actors[1]["reason"]), (&json!("not_ready"), &json!("line one line two")));
    }

    #[test]
    fn a_reason_is_bounded() {
        let health = running();
        health.actor("ship", "consumer").hindered(Hindrance::Source, "x".repeat(100_000));
        assert!(health.readiness().reasons[0].len() < REASON_CHARS + 100);
    }

    #[test]
    fn each_turn_is_logged_once_with_actor_and_reason() {
        let lines = logged(|| {
            let ship = running().actor("ship", "consumer");
            ship.ready();
            ship.ready();
            ship.hindered(Hindrance::Source, "refused, attempt 1");
            ship.hindered(Hindrance::Source, "refused, attempt 2");
        });
        let turns: Vec<_> = lines.iter().filter(|line| line["actor"] == "ship").collect();
        assert_eq!(turns.len(), 2, "{lines:#?}");
        assert_eq!(turns[0]["message"], "starting => ready");
        assert_eq!(turns[1]["message"], "ready => not_ready");
        assert_eq!(turns[1]["reason"], "refused, attempt 1");
    }

    #[tokio::test]
    async fn a_change_wakes_who_waits_and_no_change_does_not() {
        let health = running();
        let ship = health.actor("ship", "consumer");
        let mut changes = health.changes();
        assert!(!changes.has_changed().unwrap());
        ship.ready();
        changes.changed().await.unwrap();
        ship.ready();
        assert!(!changes.has_changed().unwrap());
    }
}
