//! A resource: an actor that opens it, and closes it on purpose.

use super::blueprint::{Blueprint, Link, Order};
use super::tasks::Guarded;
use crate::error::{Error, ErrorKind};
use crate::failure::BoxError;
use crate::supervisor::drain::Kind;
use crate::transport::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use std::sync::Arc;

/// Something asynchronous that is done once.
pub(crate) type Deed = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// What a resource is made from.
pub(crate) struct ResourcePlan {
    pub(crate) name: Arc<str>,
    /// Opens it and puts it where workers find it.
    pub(crate) open: Deed,
    /// Takes it away from there and closes it.
    pub(crate) close: Deed,
}

impl Blueprint for ResourcePlan {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Resource
    }

    fn spawn<'a>(&'a mut self, link: Link, root: ActorCell) -> BoxFuture<'a, Result<ActorRef<Order>, SpawnErr>> {
        let args = (self.open.clone(), self.close.clone(), link);
        Box::pin(async move { Ok(Actor::spawn_linked(None, ResourceActor, args, root).await?.0) })
    }
}

struct ResourceActor;

struct State {
    close: Deed,
    link: Link,
    /// Opens it, later closes it.
    task: Option<Guarded>,
}

impl Actor for ResourceActor {
    type Msg = Order;
    type State = State;
    type Arguments = (Deed, Deed, Link);

    async fn pre_start(
        &self,
        myself: ActorRef<Order>,
        (open, close, link): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (opening, failing) = (link.clone(), myself.clone());
        let panicking = link.clone();
        let work = async move {
            match open().await {
                Ok(()) => opening.ready(),
                Err(error) => {
                    let error = Error::new(ErrorKind::Start, "could not be opened").caused_by(error);
                    opening.failed(&error);
                    let _ = failing.cast(Order::LoopFailed(error.to_string()));
                }
            }
        };
        let task = Guarded::spawn(work, move |text| {
            panicking.failed(&Error::new(ErrorKind::Start, format!("panicked while it was opened: {text}")));
            let _ = myself.cast(Order::LoopFailed(text));
        });
        Ok(State { close, link, task: Some(task) })
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, state: &mut State) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Stop { .. } => {
                let (close, link) = (state.close.clone(), state.link.clone());
                let opening = state.task.take();
                let (ended, panicked) = (myself.clone(), myself);
                let panicking = link.clone();
                // The root bounds it: a close that hangs is abandoned, by name.
                let work = async move {
                    // One that is being opened is found open or not at all: a close beside it would look too early.
                    if let Some(opening) = opening {
                        opening.end().await;
                    }
                    if let Err(error) = close().await {
                        link.root.resource_trouble(link.id, format!("close failed: {error}"));
                    }
                    let _ = ended.cast(Order::LoopEnded);
                };
                let closing = Guarded::spawn(work, move |text| {
                    panicking.root.resource_trouble(panicking.id, format!("close panicked: {text}"));
                    let _ = panicked.cast(Order::LoopEnded);
                });
                state.task = Some(closing);
            }
            Order::LoopEnded => myself.stop(None),
            Order::LoopFailed(text) => return Err(text.into()),
            Order::StopIntake | Order::Drain | Order::Cancel | Order::Close { .. } => {}
        }
        Ok(())
    }
}
