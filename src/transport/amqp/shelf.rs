//! Looking into a queue, and taking off what was looked at: dead letters, mostly.
//!
//! What is read stays unacked on one channel and goes back when that closes: other consumers do not see it meanwhile. A
//! classic queue is read by get. A quorum queue (3.10.8) gives what was got back in an order of its own, and what was
//! *consumed* in the old one, as long as it knows at most 32 consumers, in the order of their tags: 30 consumers on one
//! channel came back in order 8 times of 8, 40 never. So it is read by few consumers with windows that grow. On a quorum
//! queue each look counts as a delivery, and one with a delivery limit drops what was looked at too often: that has to be
//! allowed.
//!
//! Taken off means proven: acks that are followed by the end of their channel are forgotten by a quorum queue (up to 287
//! of 320; after a passive declaration in between still 5 times of 12). A get goes the same way behind them, and its
//! answer proved them 28 times of 28. Where more waits than the windows hold it takes a message, which then comes back
//! out of its order, as what is left of a long queue may after a removal.

use super::inspect::{CLOSE_LIMIT, NAME, absent};
use super::place::{Place, QueueType};
use super::properties::inbound::{Inbound, Reading};
use super::refusal::explain;
use super::topology::{self, DELIVERY_LIMIT};
use super::wire::{Wire, answered};
use crate::error::{Error, ErrorKind};
use crate::message::{At, Slab, SlabBuilder};
use crate::transport::{BoxFuture, Shelf};
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A read ends after so many bytes, and a window holds about as many.
const READ_BYTES: usize = 16 << 20;
/// A quorum queue keeps the order of at most 32 consumers; two are left to others.
const MOST_WINDOWS: u32 = 30;
/// The first window; each holds as many as all before it.
const FIRST_WINDOW: u32 = 64;
/// No window is smaller, however large the messages are, nor larger.
const WINDOWS: std::ops::RangeInclusive<u32> = 16..=16_384;
/// A consumer to which nothing comes for so long is asked about …
const SILENCE: Duration = Duration::from_millis(200);
/// … and has failed after so many.
const MOST_SILENCES: u32 = 50;

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
    reading: Reading,
    topic: Arc<str>,
    epoch: u32,
    /// Of those that were there when it was opened, so many are still to be read: what comes meanwhile is not, so that a
    /// look ends.
    left: u32,
    way: Way,
    /// Came as the proof of a removal and is not read yet.
    ahead: VecDeque<Delivery>,
    /// Tags that were read and not removed.
    held: BTreeSet<u64>,
    looks: Looks,
}

/// How messages come.
enum Way {
    /// One by one, asked for.
    Get,
    /// To consumers, the broker's pace.
    Windows {
        consumers: SelectAll<Consumer>,
        opened: u32,
        /// How many all of them hold at most.
        room: u32,
        /// Bytes of the largest message so far.
        largest: usize,
    },
}

impl AmqpShelf {
    /// # Errors
    /// An absent queue; one in which a look could lose messages, unless the URL says `count-as-delivery=true`.
    pub(super) async fn open(place: Place, looks: Looks) -> Result<Self, Error> {
        let wire = place.server.dial(NAME).await?;
        let left = topology::existing(&wire, &place).await?.ok_or_else(|| absent(&place))?;
        let way = match may_be_looked_into(&wire, &place).await? {
            Some(QueueType::Classic) => Way::Get,
            // One that cannot be seen is most likely ours.
            _ => Way::Windows { consumers: SelectAll::new(), opened: 0, room: 0, largest: 0 },
        };
        let channel = wire.channel().await?;
        let reading = Reading { key: place.key.clone(), max_message: u64::MAX };
        let topic = place.queue.as_str().into();
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        let (ahead, held) = Default::default();
        Ok(Self { wire: Some(wire), channel, place, reading, topic, epoch, left, way, ahead, held, looks })
    }

    async fn read_some(&mut self, max: u32) -> Result<Slab, Error> {
        let mut builder = SlabBuilder::new();
        while self.left > 0 && (builder.len() as u32) < max && builder.bytes() < READ_BYTES {
            let Some(got) = self.next(max).await? else {
                self.left = 0;
                break;
            };
            self.left -= 1;
            let at = At { position: got.delivery_tag, epoch: self.epoch, partition: 0 };
            self.held.insert(at.position);
            let message = Inbound {
                properties: &got.properties,
                routing_key: got.routing_key.as_str(),
                redelivered: got.redelivered,
                payload: &got.data,
            };
            self.reading.push(&mut builder, message).at = at;
        }
        Ok(builder.finish(self.topic.clone()))
    }

    /// The next message; `None` where there is none, which others may have taken.
    async fn next(&mut self, wanted: u32) -> Result<Option<Delivery>, Error> {
        for _ in 0..MOST_SILENCES {
            let unread = self.ahead.len() as u32;
            let full = match &self.way {
                Way::Get => return self.get().await,
                Way::Windows { room, .. } => self.held.len() as u32 >= *room,
            };
            if full {
                if unread > 0 {
                    return Ok(self.ahead.pop_front());
                }
                self.open_window(wanted).await?;
            }
            let Way::Windows { consumers, largest, .. } = &mut self.way else { return Ok(None) };
            match tokio::time::timeout(SILENCE, consumers.next()).await {
                Ok(Some(Ok(delivery))) => {
                    *largest = delivery.data.len().max(*largest);
                    return Ok(Some(delivery));
                }
                Ok(Some(Err(error))) => return Err(explain(self.looking(), &error)),
                Ok(None) | Err(_) => {
                    let wire = self.wire.as_ref().expect("it is there until the drop");
                    let ready = topology::existing(wire, &self.place).await?.ok_or_else(|| absent(&self.place))?;
                    if ready == 0 {
                        // What was on its way when the question was asked has had its time.
                        let late = match &mut self.way {
                            Way::Windows { consumers, .. } => tokio::time::timeout(SILENCE, consumers.next()).await,
                            Way::Get => return Ok(None),
                        };
                        return match late {
                            Ok(Some(delivery)) => delivery.map(Some).map_err(|error| explain(self.looking(), &error)),
                            _ => Ok(self.ahead.pop_front()),
                        };
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::Unreachable, format!("{}: messages wait and do not come", self.looking())))
    }

    fn looking(&self) -> String {
        format!("looking into queue '{}'", self.place.queue)
    }

    async fn get(&self) -> Result<Option<Delivery>, Error> {
        let asked = self.channel.basic_get(self.place.queue.as_str().into(), BasicGetOptions::default());
        Ok(answered(self.looking(), asked).await?.map(|got| got.delivery))
    }

    async fn open_window(&mut self, wanted: u32) -> Result<(), Error> {
        let what = self.looking();
        let Way::Windows { consumers, opened, room, largest } = &mut self.way else { return Ok(()) };
        if *opened >= MOST_WINDOWS {
            return Err(Error::new(
                ErrorKind::Start,
                format!("{what}: no more than {room} messages are held without losing their order"),
            ));
        }
        let fits = u32::try_from(READ_BYTES / (*largest).max(1)).unwrap_or(u32::MAX);
        let window =
            (*room).max(wanted.min(FIRST_WINDOW)).min(self.left).min(fits).clamp(*WINDOWS.start(), *WINDOWS.end());
        let window_u16 = u16::try_from(window).unwrap_or(u16::MAX);
        answered(what.clone(), self.channel.basic_qos(window_u16, BasicQosOptions::default())).await?;
        // The order of the tags is the order in which they give back.
        let tag = format!("longshore-look-{opened:03}");
        let (queue, options) = (self.place.queue.as_str().into(), BasicConsumeOptions::default());
        let asked = self.channel.basic_consume(queue, tag.as_str().into(), options, FieldTable::default());
        consumers.push(answered(what, asked).await?);
        *opened += 1;
        *room += window;
        Ok(())
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
            // The proof.
            self.ahead.extend(self.get().await?);
        }
        Ok(removed)
    }
}

/// Whether a look can cost nothing but a count that nobody has bounded.
async fn may_be_looked_into(wire: &Wire, place: &Place) -> Result<Option<QueueType>, Error> {
    let Some(queue) = topology::look(wire, place, crate::transport::Side::Source).await? else {
        return Err(absent(place));
    };
    let name = &place.queue;
    if queue.queue_type == Some(QueueType::Stream) {
        return Err(Error::configuration(format!("queue '{name}' is a stream: it is read by a consumer alone")));
    }
    if queue.single_active == Some(true) {
        return Err(Error::configuration(format!(
            "queue '{name}' has a single active consumer: the broker lets nobody look beside it"
        )));
    }
    match queue.delivery_limit.filter(|limit| *limit < DELIVERY_LIMIT) {
        Some(limit) if !place.counts_as_delivery => Err(Error::configuration(format!(
            "queue '{name}' has a delivery limit of {limit} and each look counts as a delivery, after which the broker \
             drops a message: say --count-as-delivery if that is meant (count-as-delivery=true in a URL)"
        ))),
        _ => Ok(queue.queue_type),
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
            // Kept beyond the close: a consumer that is dropped is cancelled, and then the order is lost.
            let consumers = std::mem::replace(&mut self.way, Way::Get);
            self.looks.add(runtime.spawn(async move {
                let _ = tokio::time::timeout(CLOSE_LIMIT, channel.close(200, "looked".into())).await;
                wire.close(CLOSE_LIMIT).await;
                drop(consumers);
            }));
        }
    }
}
