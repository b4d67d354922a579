//! A service: a background task of the user's, supervised and ordered like the rest.

use super::blueprint::{Blueprint, Link, Order};
use super::resource::Deed;
use super::tasks::Guarded;
use crate::engine::outlet::Refused;
use crate::error::{Error, ErrorKind};
use crate::failure::Failure;
use crate::handler::Stopping;
use crate::supervisor::drain::{Event, Kind};
use crate::transport::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use std::sync::Arc;

/// What a service is made from.
pub(crate) struct ServicePlan {
    pub(crate) name: Arc<str>,
    /// What has to be done before it counts as started.
    pub(crate) start: Option<Deed>,
    /// What it does; its end is the service's.
    pub(crate) run: Option<Deed>,
    /// What has to be done to stop it.
    pub(crate) stop: Option<Deed>,
}

impl Blueprint for ServicePlan {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Service
    }

    fn spawn<'a>(&'a mut self, link: Link, root: ActorCell) -> BoxFuture<'a, Result<ActorRef<Order>, SpawnErr>> {
        let args = (self.start.clone(), self.run.clone(), self.stop.clone(), link);
        Box::pin(async move { Ok(Actor::spawn_linked(None, ServiceActor, args, root).await?.0) })
    }
}

struct ServiceActor;

struct State {
    link: Link,
    stop: Option<Deed>,
    running: bool,
    stopping: bool,
    _run: Guarded,
    stop_task: Option<Guarded>,
}

impl Actor for ServiceActor {
    type Msg = Order;
    type State = State;
    type Arguments = (Option<Deed>, Option<Deed>, Option<Deed>, Link);

    async fn pre_start(
        &self,
        myself: ActorRef<Order>,
        (start, run, stop, link): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (ended, panicked) = (myself.clone(), myself);
        let (working, panicking) = (link.clone(), link.clone());
        let running = run.is_some();
        let work = async move {
            if let Some(start) = start
                && let Err(error) = start().await
            {
                let error = Error::new(ErrorKind::Start, "did not start").caused_by(error);
                working.failed(&error);
                let _ = ended.cast(Order::LoopFailed(error.to_string()));
                return;
            }
            working.ready();
            let Some(run) = run else { return };
            let _ = match run().await {
                Ok(()) => ended.cast(Order::LoopEnded),
                Err(error) if working.context.stopping() != Stopping::No => {
                    let failure = Failure::from(error);
                    // Work that is refused because of the stop is how a service may learn of it.
                    if failure.class() != Refused::STOPPING {
                        working.root.resource_trouble(working.id, format!("failed: {failure}"));
                    }
                    ended.cast(Order::LoopEnded)
                }
                Err(error) => {
                    let error = Error::new(ErrorKind::Start, "failed").caused_by(error);
                    working.failed(&error);
                    ended.cast(Order::LoopFailed(error.to_string()))
                }
            };
        };
        let task = Guarded::spawn(work, move |text| {
            panicking.failed(&Error::new(ErrorKind::Start, format!("panicked: {text}")));
            let _ = panicked.cast(Order::LoopFailed(text));
        });
        Ok(State { link, stop, running, stopping: false, _run: task, stop_task: None })
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, state: &mut State) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Stop { .. } => {
                state.stopping = true;
                match state.stop.take() {
                    Some(stop) => {
                        let link = state.link.clone();
                        let (ended, panicked) = (myself.clone(), myself);
                        let work = async move {
                            if let Err(error) = stop().await {
                                link.root.resource_trouble(link.id, format!("stop failed: {error}"));
                            }
                            let _ = ended.cast(Order::LoopEnded);
                        };
                        state.stop_task = Some(Guarded::spawn(work, move |text| {
                            let _ = panicked.cast(Order::LoopFailed(text));
                        }));
                    }
                    // Its context says *draining*: the root waits for its end, within the bound.
                    None if state.running => {}
                    None => myself.stop(None),
                }
            }
            Order::LoopEnded if state.stopping || state.stop.is_none() => {
                state.running = false;
                if !state.stopping {
                    state.link.tell(Event::Stopped(state.link.id));
                }
                myself.stop(None);
            }
            Order::LoopEnded => state.running = false,
            Order::LoopFailed(text) => return Err(text.into()),
            Order::StopIntake | Order::Drain | Order::Cancel | Order::Close { .. } => {}
        }
        Ok(())
    }
}
