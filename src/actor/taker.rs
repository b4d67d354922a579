//! A consumer or a bridge: an actor over the loop that takes from a source, and over those that send for it.

use super::blueprint::{Blueprint, Link, Order};
use super::producer::ORDERS;
use super::tasks::Guarded;
use super::watch::Watch;
use crate::engine::intake::{self, Became, Idleness, IntakeAsk, IntakeConfig, IntakeNews, Ledger, Report, intake};
use crate::engine::lane::{Lane, LaneAsk, LaneConfig, LaneNews};
use crate::engine::outlet::Outlet;
use crate::engine::publish::{PublishAsk, PublishNews, publish};
use crate::error::{Error, ErrorKind};
use crate::failure::{BoxError, Tally};
use crate::handler::{Life, Unit, Why};
use crate::message::ByteBudget;
use crate::supervisor::drain::{Cause, Event, Kind};
use crate::supervisor::health::Hindrance;
use crate::transport::{BoxFuture, SinkPlan, SourcePlan};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower_service::Service;

/// How often a restart looks whether the lanes before it are gone.
const LANES_GONE_EVERY: Duration = Duration::from_millis(10);

/// An actor whose sink has failed closes its source within this, before it falls: what it holds goes back in order, and
/// a source that counts unclean ends has none to count.
const CLOSE_BEFORE_THE_FALL: Duration = Duration::from_secs(5);

/// A source that was told to close by a moment is given this much more to say so.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// A sink of the taker's own: the destination of a bridge, a dead-letter place, a retry store.
#[derive(Clone)]
pub(crate) struct Publishing {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) sink: Arc<dyn SinkPlan>,
    /// Opened by the first message for it: a place that is never used is never made.
    pub(crate) lazily: bool,
}

/// Lanes of one kind of service, made as often as the actor starts.
pub(crate) trait MakeLanes: Send + Sync {
    /// Lanes that are not gone yet: one whose handler blocks outlives the abort of its task.
    fn alive(&self) -> usize;

    fn spawn(
        &self,
        config: &LaneConfig,
        concurrency: u32,
        news: &mpsc::UnboundedSender<LaneNews>,
        link: &Link,
        into: &mut JoinSet<()>,
    ) -> Vec<mpsc::UnboundedSender<LaneAsk>>;
}

/// The template that lanes are cloned from.
pub(crate) struct LanesOf<S, U> {
    template: Mutex<S>,
    alive: Arc<AtomicUsize>,
    unit: std::marker::PhantomData<fn(U)>,
}

impl<S, U> LanesOf<S, U> {
    pub(crate) fn new(template: S) -> Self {
        Self { template: Mutex::new(template), alive: Arc::default(), unit: std::marker::PhantomData }
    }
}

impl<S, U> MakeLanes for LanesOf<S, U>
where
    U: Unit,
    S: Service<U, Response = U::Done, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + 'static,
{
    fn alive(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    fn spawn(
        &self,
        config: &LaneConfig,
        concurrency: u32,
        news: &mpsc::UnboundedSender<LaneNews>,
        link: &Link,
        into: &mut JoinSet<()>,
    ) -> Vec<mpsc::UnboundedSender<LaneAsk>> {
        let lanes = config.lanes;
        (0..lanes)
            .map(|index| {
                // Bounded by the window: the intake asks its source for no more than the worker may hold.
                let (tell, asks) = mpsc::unbounded_channel();
                let service = self.template.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
                let share = concurrency / lanes + u32::from(index < concurrency % lanes);
                let config = LaneConfig { index, concurrency: share.max(1), ..config.clone() };
                let line = link.counts.line().lane(index as usize).clone();
                let view = Watch::new(link.metrics.clone(), link.board.clone(), line, self.alive.clone());
                let lane = Lane::<S, U, _>::new(config, service, asks, news.clone(), view);
                // A turn has its own bound; tokio's would make ready resources pretend to be pending within it.
                into.spawn(tokio::task::unconstrained(lane.run()));
                tell
            })
            .collect()
    }
}

/// What a consumer or a bridge is made from.
#[derive(Clone)]
pub(crate) struct TakerPlan {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) source: Arc<dyn SourcePlan>,
    pub(crate) publishing: Vec<Publishing>,
    pub(crate) lanes: Arc<dyn MakeLanes>,
    pub(crate) life: Option<Arc<dyn Life>>,
    pub(crate) lane: LaneConfig,
    pub(crate) concurrency: u32,
    pub(crate) window: u32,
    pub(crate) bytes: u64,
    pub(crate) timeout: Duration,
    pub(crate) limit: Option<u64>,
    pub(crate) until_idle: Option<Duration>,
}

impl Blueprint for TakerPlan {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn lanes(&self) -> (usize, usize) {
        (self.lane.lanes as usize, self.concurrency.div_ceil(self.lane.lanes).max(1) as usize)
    }

    fn spawn<'a>(&'a mut self, link: Link, root: ActorCell) -> BoxFuture<'a, Result<ActorRef<Order>, SpawnErr>> {
        let args = (self.clone(), link);
        Box::pin(async move { Ok(Actor::spawn_linked(None, TakerActor, args, root).await?.0) })
    }
}

struct TakerActor;

struct State {
    link: Link,
    life: Option<Arc<dyn Life>>,
    asks: mpsc::Sender<IntakeAsk>,
    publishers: Vec<mpsc::Sender<PublishAsk>>,
    /// Loops that have not ended: the intake first, then those that send for it.
    running: usize,
    stop_by: Option<Instant>,
    /// Whether there is an open source, and an intake that can close it.
    opened: Arc<AtomicBool>,
    /// What failed beside the source, which is being closed.
    falling: Option<String>,
    loops: Vec<Guarded>,
    stopping_life: Option<Guarded>,
}

impl Actor for TakerActor {
    type Msg = Order;
    type State = State;
    type Arguments = (TakerPlan, Link);

    async fn pre_start(
        &self,
        myself: ActorRef<Order>,
        (plan, link): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (asks, asked) = mpsc::channel(ORDERS);
        let mut state = State {
            link: link.clone(),
            life: plan.life.clone(),
            asks,
            publishers: Vec::new(),
            running: 1 + plan.publishing.len(),
            stop_by: None,
            opened: Arc::default(),
            falling: None,
            loops: Vec::new(),
            stopping_life: None,
        };
        link.connections.awaited(Hindrance::Source);
        let mut connected = Vec::new();
        for publishing in &plan.publishing {
            let (asks, asked) = mpsc::channel(ORDERS);
            state.publishers.push(asks);
            let (is_connected, wait) = tokio::sync::watch::channel(publishing.lazily);
            connected.push(wait);
            let work = send_for(publishing.clone(), asked, link.clone(), myself.clone(), is_connected);
            let panicked = myself.clone();
            state.loops.push(Guarded::spawn(work, move |text| {
                let _ = panicked.cast(Order::LoopFailed(text));
            }));
        }
        let ended = myself.clone();
        let panicking = link.clone();
        let opened = state.opened.clone();
        let work = async move {
            let end = match take(plan, link, asked, connected, opened).await {
                Ok(()) => Order::LoopEnded,
                Err(text) => Order::LoopFailed(text),
            };
            let _ = ended.cast(end);
        };
        state.loops.push(Guarded::spawn(work, move |text| {
            panicking.failed(&Error::new(ErrorKind::Start, format!("panicked: {text}")));
            let _ = myself.cast(Order::LoopFailed(text));
        }));
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, state: &mut State) -> Result<(), ActorProcessingErr> {
        // The channel holds every order that a life can bring, so that a full one means that the loop is gone.
        match order {
            Order::StopIntake => drop(state.asks.try_send(IntakeAsk::StopIntake)),
            Order::Drain => drop(state.asks.try_send(IntakeAsk::Drain)),
            Order::Cancel => drop(state.asks.try_send(IntakeAsk::Cancel)),
            Order::Close { by } => drop(state.asks.try_send(IntakeAsk::Close { by })),
            Order::Stop { by } => {
                state.stop_by = Some(by);
                if state.link.is_started() {
                    // Closed already in a stop; not when it is stopped just after it has started.
                    let _ = state.asks.try_send(IntakeAsk::Close { by });
                    state.close_publishers(by);
                } else {
                    // It opens, connects or waits for an instance, which may take for ever, and it holds nothing.
                    state.loops.clear();
                    state.running = 0;
                }
                state.stop_life(&myself);
                if state.running == 0 {
                    state.end(&myself);
                }
            }
            Order::LoopEnded => {
                state.running = state.running.saturating_sub(1);
                if state.asks.is_closed()
                    && let Some(text) = state.falling.take()
                {
                    return Err(text.into());
                }
                if state.running == 0 && state.stop_by.is_some() {
                    state.end(&myself);
                }
            }
            Order::LoopFailed(text) => {
                if let Some(first) = state.falling.take() {
                    return Err(first.into());
                }
                if !state.close_before_the_fall(&myself) {
                    return Err(text.into());
                }
                state.falling = Some(text);
            }
        }
        Ok(())
    }
}

impl State {
    fn stop_life(&mut self, myself: &ActorRef<Order>) {
        let Some(life) = self.life.take() else { return };
        self.running += 1;
        let (ended, panicked) = (myself.clone(), myself.clone());
        let work = async move {
            life.stop(Why::Stopping).await;
            let _ = ended.cast(Order::LoopEnded);
        };
        self.stopping_life = Some(Guarded::spawn(work, move |text| {
            let _ = panicked.cast(Order::LoopFailed(format!("panicked while it was stopped: {text}")));
        }));
    }

    /// Has the source closed, when there is one and it is not its own loop that failed. The end of that loop, or the
    /// time that it has, is what the actor falls at.
    fn close_before_the_fall(&self, myself: &ActorRef<Order>) -> bool {
        let by = Instant::now() + CLOSE_BEFORE_THE_FALL;
        let closes = self.opened.load(Ordering::Acquire) && self.asks.try_send(IntakeAsk::Close { by }).is_ok();
        if closes {
            let late = CLOSE_BEFORE_THE_FALL + CLOSE_GRACE;
            drop(myself.send_after(late, || Order::LoopFailed("the source was not closed in time".to_owned())));
        }
        closes
    }

    fn close_publishers(&mut self, by: Instant) {
        for publisher in &self.publishers {
            let _ = publisher.try_send(PublishAsk::Close { by });
        }
    }

    fn end(&mut self, myself: &ActorRef<Order>) {
        self.link.connections.ended();
        self.loops.clear();
        myself.stop(None);
    }
}

/// Waits for the order to close, or for the end of whoever gives it.
async fn told_to_close(asked: &mut mpsc::Receiver<PublishAsk>) {
    while let Some(PublishAsk::StopIntake) = asked.recv().await {}
}

/// The loop of a sink of the taker's own.
async fn send_for(
    publishing: Publishing,
    mut asked: mpsc::Receiver<PublishAsk>,
    link: Link,
    ended: ActorRef<Order>,
    connected: tokio::sync::watch::Sender<bool>,
) {
    let outlet = publishing.outlet;
    let connection = Hindrance::Sink(outlet.name().clone());
    if !publishing.lazily {
        link.connections.awaited(connection.clone());
    }
    loop {
        // What an earlier start of the actor left there rings for nobody any more.
        if publishing.lazily && !outlet.has_buffered() {
            tokio::select! {
                biased;
                ask = asked.recv() => match ask {
                    Some(PublishAsk::StopIntake) => continue,
                    // Nothing was ever sent, or all of it has failed.
                    Some(PublishAsk::Close { .. }) | None => break,
                },
                () = outlet.work.notified() => {}
            }
            // The permit was taken: the loop below looks at the outlet anyway.
        }
        let opened = tokio::select! {
            biased;
            () = told_to_close(&mut asked), if publishing.lazily => {
                outlet.close();
                outlet.fail_buffered("it could not be opened before the stop");
                break;
            }
            opened = publishing.sink.open() => opened,
        };
        let sink = match opened {
            Ok(sink) => sink,
            Err(error) if publishing.lazily => {
                // Whoever sent it is told, and tries again.
                outlet.fail_buffered(&error.to_string());
                continue;
            }
            Err(error) => {
                link.failed(&error);
                let _ = ended.cast(Order::LoopFailed(error.to_string()));
                return;
            }
        };
        let mut failed = None;
        publish(outlet.clone(), sink, &mut asked, |news| match news {
            PublishNews::Connected => {
                link.connections.made(connection.clone());
                let _ = connected.send(true);
            }
            PublishNews::Disconnected(error) => {
                let _ = connected.send(publishing.lazily);
                link.connections.lost(connection.clone(), &error.of(outlet.name()));
            }
            PublishNews::Trouble(error) => tracing::warn!(worker = link.context.worker(), "{}: {error}", outlet.name()),
            PublishNews::Failed(error) => failed = Some(error),
            PublishNews::Closed { unconfirmed } => {
                if unconfirmed > 0 {
                    tracing::warn!(worker = link.context.worker(), unconfirmed, "closed with unconfirmed sends");
                }
            }
        })
        .await;
        match failed {
            // Closed, or the actor is gone.
            None => break,
            Some(error) if publishing.lazily => {
                let worker = link.context.worker();
                tracing::warn!(worker, "{} failed, opened again when needed: {error}", outlet.name());
                link.connections.given_up(connection.clone());
                outlet.fail_buffered(&error.to_string());
            }
            Some(error) if error.kind() == ErrorKind::GaveUp && *connected.borrow() => {
                // No restart mends it. The actor lives on, so that the drain gives back in order what the sink does
                // not have; sends fail from now on instead of waiting.
                outlet.close();
                outlet.fail_buffered(&error.to_string());
                link.health.failed(&error);
                link.root.escalate(link.id, &error, Cause::Escalated(error.exit_code()));
                break;
            }
            Some(error) => {
                link.failed(&error);
                let _ = ended.cast(Order::LoopFailed(error.to_string()));
                return;
            }
        }
    }
    let _ = ended.cast(Order::LoopEnded);
}

/// Starts what the worker needs, then its intake, and runs it.
async fn take(
    plan: TakerPlan,
    link: Link,
    asked: mpsc::Receiver<IntakeAsk>,
    connected: Vec<tokio::sync::watch::Receiver<bool>>,
    opened: Arc<AtomicBool>,
) -> Result<(), String> {
    for mut wait in connected {
        // Sinks first: what is taken must have somewhere to go. Its end without a connection is the actor's failure.
        if wait.wait_for(|connected| *connected).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    // A key must not be handled twice at once: what an earlier start of this actor still runs has to end first.
    while plan.lanes.alive() > 0 {
        tokio::time::sleep(LANES_GONE_EVERY).await;
    }
    // Bounded by the window: a lane tells of a message once, and of its dead-letter place once a change.
    let (news, heard) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let lanes = plan.lanes.spawn(&plan.lane, plan.concurrency, &news, &link, &mut tasks);
    drop(news);
    let fail = |error: &Error| {
        link.failed(error);
        error.to_string()
    };
    if let Some(life) = &plan.life
        && let Err(failure) = life.start().await
    {
        return Err(fail(&Error::new(ErrorKind::Start, format!("an instance did not start: {failure}"))));
    }
    let idleness = Arc::new(Idleness::default());
    let failed = Arc::new(Mutex::new(None));
    let report = report(&link, &failed);
    let source = match plan.source.open(intake::hooks(&idleness, &report)).await {
        Ok(source) => source,
        Err(error) => return Err(fail(&error)),
    };
    opened.store(true, Ordering::Release);
    let config = IntakeConfig {
        worker: plan.name.clone(),
        window: plan.window,
        bytes: plan.bytes,
        takes_back: plan.source.capabilities().takes_back,
        by_key: plan.lane.order == crate::engine::order::Order::ByKey,
        marks: plan.source.capabilities().poison_protection,
        timeout: plan.timeout,
        limit: plan.limit,
        until_idle: plan.until_idle,
    };
    let budget = Arc::new(ByteBudget::default());
    let ledger: Arc<dyn Ledger> = Arc::new(Books { link: link.clone() });
    intake(config, source, lanes, tasks, heard, asked, ledger, report, idleness, budget).await;
    let failed = failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    failed.map_or(Ok(()), Err)
}

/// Where the news of an intake go: what a stop waits for to the root, the rest to health, metrics and log.
fn report(link: &Link, failed: &Arc<Mutex<Option<String>>>) -> Report {
    let (link, failed) = (link.clone(), failed.clone());
    Arc::new(move |news| {
        let id = link.id;
        match news {
            IntakeNews::Connected => {
                link.connections.made(Hindrance::Source);
                link.ready();
            }
            IntakeNews::Disconnected(error) => link.connections.lost(Hindrance::Source, &error),
            IntakeNews::Trouble(error) => tracing::warn!(worker = link.context.worker(), "{error}"),
            IntakeNews::Ended => link.tell(Event::SourceEnded(id)),
            IntakeNews::IntakeStopped => link.tell(Event::IntakeStopped(id)),
            IntakeNews::Idle => link.tell(Event::Idle(id)),
            IntakeNews::Busy => link.tell(Event::Busy(id)),
            IntakeNews::Closed { clean } => link.tell(Event::Closed { actor: id, clean }),
            IntakeNews::Failed(error) if error.kind() == ErrorKind::BadInput => {
                // The rest is drained in order; restarting would meet the same message again.
                link.health.failed(&error);
                link.root.escalate(id, &error, Cause::Escalated(error.exit_code()));
            }
            IntakeNews::Failed(error) => {
                *failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error.to_string());
                link.failed(&error);
            }
            IntakeNews::PlaceRefuses(place, text) => {
                let why = format_args!("{} refuses: {text}", place.word());
                link.health.hindered(Hindrance::Place(place.word()), why);
            }
            IntakeNews::PlaceTakes(place) => {
                tracing::info!(worker = link.context.worker(), "{} takes again", place.word());
                link.health.freed(&Hindrance::Place(place.word()));
            }
            IntakeNews::Stalled(for_) => {
                link.metrics.stalled.set(1.0);
                let settled = format!("nothing settled for {}", crate::duration::short(for_));
                // The oldest is the one to look at; without any, what is in flight waits for something else.
                let oldest = link.counts.line().running().min_by_key(|running| running.started_ms);
                let why = oldest.map_or(settled.clone(), |running| format!("{settled}: {running}"));
                link.health.hindered(Hindrance::Stall, why);
            }
            IntakeNews::Moving => {
                link.metrics.stalled.set(0.0);
                link.health.freed(&Hindrance::Stall);
            }
            IntakeNews::Gauges { in_flight, bytes } => {
                link.metrics.in_flight.set(in_flight as f64);
                link.metrics.in_flight_bytes.set(bytes as f64);
                link.counts.in_flight(in_flight);
            }
            IntakeNews::Measured(backlog) => {
                if let Some(waiting) = backlog.waiting {
                    link.metrics.lag(waiting + backlog.delayed.unwrap_or(0));
                }
            }
        }
    })
}

/// The counts of a worker, for the report and for the metrics.
struct Books {
    link: Link,
}

impl Ledger for Books {
    fn received(&self, messages: u64, redelivered: u64, unkeyed: u64) {
        self.link.counts.received(messages);
        self.link.metrics.received.increment(messages);
        if redelivered > 0 {
            self.link.metrics.redelivered.increment(redelivered);
        }
        if unkeyed > 0 {
            self.link.metrics.unkeyed.increment(unkeyed);
        }
    }

    fn settled(&self, tally: Tally) {
        self.link.counts.settled(tally);
        self.link.metrics.settled.add(&tally);
    }

    fn unsettled(&self, tally: Tally, became: Became) {
        self.link.counts.unsettled(tally, became == Became::Unknown);
        if became == Became::Stale {
            self.link.metrics.stale_settlements.increment(tally.total());
        }
    }

    fn returned(&self, messages: u64) {
        self.link.counts.returned(messages);
        self.link.metrics.settled.returned.increment(messages);
    }

    fn abandoned(&self, messages: u64) {
        self.link.counts.abandoned(messages);
        self.link.metrics.settled.abandoned.increment(messages);
    }

    fn dead_letter(&self, class: &'static str) {
        self.link.metrics.dead_letter(class);
    }
}
