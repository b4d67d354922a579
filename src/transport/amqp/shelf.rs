//! Looking into a queue, and taking off what was looked at: dead letters, mostly.
//!
//! Messages are got one by one on one channel and not acked; when the channel closes they go back in their old order. So
//! a look holds what it has read: other consumers do not see it meanwhile. On a quorum queue each look counts as a
//! delivery, and one with a delivery limit drops what was looked at too often: that has to be allowed.

use super::inspect::{CLOSE_LIMIT, NAME, absent};
use super::place::{Place, QueueType};
use super::topology::{self, DELIVERY_LIMIT};
use super::wire::{Wire, answered};
use crate::error::Error;
use crate::message::{At, Slab, SlabBuilder};
use crate::transport::{BoxFuture, Shelf};
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// A read ends after so many bytes.
const READ_BYTES: usize = 16 << 20;

/// Tells the deliveries of one shelf from those of another in this process: tags start at 1 on every channel.
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// Shelves that were dropped and still give back what they held: a look that begins before it is back would not see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Looks {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for them, each of which takes [`CLOSE_LIMIT`] at most.
    pub(super) async fn ended(&self) {
        let ending = std::mem::take(&mut *self.lock());
        for one in ending {
            let _ = one.await;
        }
    }

    fn add(&self, one: JoinHandle<()>) {
        let mut all = self.lock();
        all.retain(|one| !one.is_finished());
        all.push(one);
    }
}

/// A queue that is looked into.
pub(super) struct AmqpShelf {
    /// `None` once it is dropped.
    wire: Option<Wire>,
    channel: Channel,
    place: Place,
    topic: Arc<str>,
    epoch: u32,
    /// Of those that were there when it was opened, so many are still to be read: what comes meanwhile is not, so that a
    /// look ends.
    left: u32,
    /// Got and not read yet.
    ahead: VecDeque<BasicGetMessage>,
    /// Tags that were read and not removed.
    held: BTreeSet<u64>,
    looks: Looks,
}

impl AmqpShelf {
    /// # Errors
    /// An absent queue; one in which a look could lose messages, unless the URL says `count-as-delivery=true`.
    pub(super) async fn open(place: Place, looks: Looks) -> Result<Self, Error> {
        let wire = place.server.dial(NAME).await?;
        let left = topology::existing(&wire, &place).await?.ok_or_else(|| absent(&place))?;
        may_be_looked_into(&wire, &place).await?;
        let channel = wire.channel().await?;
        let topic = place.queue.as_str().into();
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        let (ahead, held) = Default::default();
        Ok(Self { wire: Some(wire), channel, place, topic, epoch, left, ahead, held, looks })
    }

    async fn get(&self) -> Result<Option<BasicGetMessage>, Error> {
        let asked = self.channel.basic_get(self.place.queue.as_str().into(), BasicGetOptions::default());
        answered(format!("looking into queue '{}'", self.place.queue), asked).await
    }

    async fn read_some(&mut self, max: u32) -> Result<Slab, Error> {
        let mut builder = SlabBuilder::new();
        while self.left > 0 && (builder.len() as u32) < max && builder.bytes() < READ_BYTES {
            let got = match self.ahead.pop_front() {
                Some(got) => Some(got),
                None => self.get().await?,
            };
            let Some(got) = got else {
                self.left = 0;
                break;
            };
            self.left -= 1;
            let at = At { position: got.delivery_tag, epoch: self.epoch, partition: 0 };
            self.held.insert(at.position);
            interim::push(&got.delivery, &self.place, &mut builder).at = at;
        }
        Ok(builder.finish(self.topic.clone()))
    }

    async fn take_off(&mut self, these: Vec<At>) -> Result<u64, Error> {
        let mut removed = 0;
        for at in these.iter().filter(|at| at.epoch == self.epoch) {
            if self.held.remove(&at.position) {
                let acked = self.channel.basic_ack(at.position, BasicAckOptions::default());
                answered(format!("taking off queue '{}'", self.place.queue), acked).await?;
                removed += 1;
            }
        }
        if removed > 0 {
            // An ack is not answered, and a quorum queue forgets those that are followed by the end of their channel (up
            // to 168 of 200). A get goes the same way behind them: its answer proves that they have arrived.
            self.ahead.extend(self.get().await?);
        }
        Ok(removed)
    }
}

/// Whether a look can cost nothing but a count that nobody has bounded.
async fn may_be_looked_into(wire: &Wire, place: &Place) -> Result<(), Error> {
    let Some(queue) = topology::look(wire, place, crate::transport::Side::Source).await? else {
        return Err(absent(place));
    };
    let name = &place.queue;
    if queue.queue_type == Some(QueueType::Stream) {
        return Err(Error::configuration(format!("queue '{name}' is a stream: it is read by a consumer alone")));
    }
    if queue.single_active == Some(true) && queue.queue_type == Some(QueueType::Quorum) {
        return Err(Error::configuration(format!(
            "queue '{name}' has a single active consumer: the broker lets nobody else look"
        )));
    }
    match queue.delivery_limit.filter(|limit| *limit < DELIVERY_LIMIT) {
        Some(limit) if !place.counts_as_delivery => Err(Error::configuration(format!(
            "queue '{name}' has a delivery limit of {limit} and each look counts as a delivery, after which the broker \
             drops a message: say --count-as-delivery if that is meant (count-as-delivery=true in a URL)"
        ))),
        _ => Ok(()),
    }
}

impl Shelf for AmqpShelf {
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>> {
        Box::pin(self.read_some(max))
    }

    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(self.take_off(these))
    }
}

impl Drop for AmqpShelf {
    fn drop(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        // Outside of a runtime it is cut instead, which gives back as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let channel = self.channel.clone();
            self.looks.add(runtime.spawn(async move {
                let _ = tokio::time::timeout(CLOSE_LIMIT, channel.close(200, "looked".into())).await;
                wire.close(CLOSE_LIMIT).await;
            }));
        }
    }
}

mod interim {
    use super::*;
    pub(super) fn push<'a>(
        delivery: &lapin::message::Delivery,
        _place: &Place,
        builder: &'a mut SlabBuilder,
    ) -> &'a mut crate::message::Head {
        let mut headers = crate::message::Headers::new();
        for (name, value) in delivery.properties.headers().iter().flat_map(|table| table.inner()) {
            if let Some(text) = value.as_long_string() {
                headers.push(name.as_str(), text.as_bytes());
            }
        }
        builder.push(None, Some(&delivery.data), headers.as_ref(), None)
    }
}
