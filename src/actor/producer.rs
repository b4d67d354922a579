//! A producer: an actor over the loop that sends what handlers give it.

use super::blueprint::{Blueprint, Link, Order};
use super::tasks::Guarded;
use crate::engine::outlet::Outlet;
use crate::engine::publish::{PublishAsk, PublishNews, publish};
use crate::supervisor::drain::Kind;
use crate::supervisor::health::Hindrance;
use crate::transport::{BoxFuture, SinkPlan};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Orders that a loop can have before it looks; each is given once in a life.
pub(super) const ORDERS: usize = 16;

/// What a producer is made from.
pub(crate) struct ProducerPlan {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) sink: Arc<dyn SinkPlan>,
}

impl Blueprint for ProducerPlan {
    fn name(&self) -> &Arc<str> {
        self.outlet.name()
    }

    fn kind(&self) -> Kind {
        Kind::Producer
    }

    fn will_not_start(&self) {
        give_up(&self.outlet);
    }

    fn gone_for_good(&self) {
        self.outlet.close();
        self.outlet.fail_buffered("its producer has failed and is not started again");
    }

    fn spawn<'a>(&'a mut self, link: Link, root: ActorCell) -> BoxFuture<'a, Result<ActorRef<Order>, SpawnErr>> {
        let args = (self.outlet.clone(), self.sink.clone(), link);
        Box::pin(async move { Ok(Actor::spawn_linked(None, ProducerActor, args, root).await?.0) })
    }
}

/// Refuses what comes, and fails what waits: a service may have started before, and published already.
fn give_up(outlet: &Outlet) {
    outlet.close();
    outlet.fail_buffered("the app stopped before its producer had started");
}

/// Waits until the sink need not be opened any more.
async fn no_longer_wanted(asks: &mut mpsc::Receiver<PublishAsk>, outlet: &Outlet) {
    while let Some(PublishAsk::StopIntake) = asks.recv().await {
        outlet.refuse_outside();
    }
}

/// Its connection, as health and metrics tell it apart.
fn sink_of(name: &Arc<str>) -> Hindrance {
    Hindrance::Sink(name.clone())
}

struct ProducerActor;

pub(super) struct State {
    link: Link,
    outlet: Arc<Outlet>,
    asks: mpsc::Sender<PublishAsk>,
    _loop: Guarded,
}

impl Actor for ProducerActor {
    type Msg = Order;
    type State = State;
    type Arguments = (Arc<Outlet>, Arc<dyn SinkPlan>, Link);

    async fn pre_start(
        &self,
        myself: ActorRef<Order>,
        (outlet, sink, link): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (asks, mut asked) = mpsc::channel(ORDERS);
        let (ended, panicked) = (myself.clone(), myself);
        let (of_state, outlet_of_state) = (link.clone(), outlet.clone());
        let work = async move {
            let opened = tokio::select! {
                opened = sink.open() => opened,
                () = no_longer_wanted(&mut asked, &outlet) => {
                    give_up(&outlet);
                    let _ = ended.cast(Order::LoopEnded);
                    return;
                }
            };
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    link.failed(&error);
                    let _ = ended.cast(Order::LoopFailed(error.to_string()));
                    return;
                }
            };
            let mut end = Order::LoopEnded;
            let name = outlet.name().clone();
            link.connections.awaited(sink_of(&name));
            publish(outlet, opened, &mut asked, |news| match news {
                PublishNews::Connected => {
                    link.connections.made(sink_of(&name));
                    link.ready();
                }
                PublishNews::Disconnected(error) => link.connections.lost(sink_of(&name), &error),
                PublishNews::Trouble(error) => tracing::warn!(producer = link.context.worker(), "{error}"),
                PublishNews::Failed(error) => {
                    link.failed(&error);
                    end = Order::LoopFailed(error.to_string());
                }
                PublishNews::Closed { unconfirmed } => {
                    if unconfirmed > 0 {
                        tracing::warn!(producer = link.context.worker(), unconfirmed, "closed with unconfirmed sends");
                    }
                }
            })
            .await;
            let _ = ended.cast(end);
        };
        let task = Guarded::spawn(work, move |text| {
            let _ = panicked.cast(Order::LoopFailed(text));
        });
        Ok(State { link: of_state, outlet: outlet_of_state, asks, _loop: task })
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, state: &mut State) -> Result<(), ActorProcessingErr> {
        match order {
            Order::StopIntake => drop(state.asks.try_send(PublishAsk::StopIntake)),
            Order::Stop { .. } if !state.link.is_started() => {
                // It opens or connects, which may take for ever.
                state.outlet.close();
                state.outlet.fail_buffered("its producer was stopped before it was connected");
                myself.stop(None);
            }
            Order::Stop { by } => {
                if state.asks.try_send(PublishAsk::Close { by }).is_err() {
                    myself.stop(None);
                }
            }
            Order::Drain | Order::Cancel | Order::Close { .. } => {}
            Order::LoopEnded => myself.stop(None),
            Order::LoopFailed(text) => return Err(text.into()),
        }
        Ok(())
    }
}
