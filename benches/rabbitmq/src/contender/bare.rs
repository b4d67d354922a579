//! lapin by itself, as somebody writes it who knows it.

use super::WINDOW;
use crate::lap::Meter;
use crate::payload::Payloads;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use std::future::Future;
use std::hint::black_box;

/// Messages that one ack settles, and that a bridge has under way at once.
const BATCH: u64 = 64;

const PERSISTENT: u8 = 2;

async fn channel(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// The channel first: the broker takes the end of a connection before what its channels have not yet read.
async fn close(connection: Connection, channel: Channel) -> lapin::Result<()> {
    channel.close(200, "done".into()).await?;
    connection.close(200, "done".into()).await
}

async fn consumer(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
    channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// The idiom of lapin's documentation: each message is acked by itself.
pub async fn consume_one_ack_each(url: &str, queue: &str, messages: u64, meter: &Meter) -> lapin::Result<()> {
    let (connection, channel) = channel(url).await?;
    let mut deliveries = consumer(&channel, queue).await?;
    for _ in 0..messages {
        let delivery = deliveries.next().await.expect("the queue stays")?;
        black_box(&delivery.data);
        meter.one();
        delivery.ack(BasicAckOptions::default()).await?;
    }
    close(connection, channel).await
}

/// One ack for a batch.
pub async fn consume(url: &str, queue: &str, messages: u64, meter: &Meter) -> lapin::Result<()> {
    let (connection, channel) = channel(url).await?;
    let mut deliveries = consumer(&channel, queue).await?;
    for seen in 1..=messages {
        let delivery = deliveries.next().await.expect("the queue stays")?;
        black_box(&delivery.data);
        meter.one();
        if seen % BATCH == 0 || seen == messages {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    close(connection, channel).await
}

/// What becomes of a message that no queue takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// The broker drops it and confirms it.
    Lost,
    /// It comes back; by a number in its properties, for the confirm with which lapin hands it over may be another's.
    Told,
}

/// Publishes and waits for the confirm.
fn send(channel: &Channel, queue: &str, payload: &[u8]) -> impl Future<Output = lapin::Result<()>> {
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    publish_and_confirm(channel, queue, payload, properties, BasicPublishOptions::default())
}

fn send_mandatory(
    channel: &Channel,
    queue: &str,
    payload: &[u8],
    number: u64,
) -> impl Future<Output = lapin::Result<()>> {
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_cluster_id(number.to_string().into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    publish_and_confirm(channel, queue, payload, properties, options)
}

fn publish_and_confirm(
    channel: &Channel,
    queue: &str,
    payload: &[u8],
    properties: BasicProperties,
    options: BasicPublishOptions,
) -> impl Future<Output = lapin::Result<()>> {
    async move {
        let confirm = channel.basic_publish("".into(), queue.into(), options, payload, properties).await?;
        assert_eq!(confirm.await?, Confirmation::Ack(None), "the broker has it");
        Ok(())
    }
}

/// A window of confirms outstanding, in one task.
pub async fn publish(
    url: &str,
    queue: &str,
    payloads: &Payloads,
    meter: &Meter,
    returns: Returns,
) -> lapin::Result<()> {
    let (connection, channel) = channel(url).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    meter.begin();
    let mut outstanding = FuturesUnordered::new();
    for (number, payload) in (0..).zip(payloads.iter()) {
        outstanding.push(match returns {
            Returns::Lost => send(&channel, queue, payload.as_ref()).left_future(),
            Returns::Told => send_mandatory(&channel, queue, payload.as_ref(), number).right_future(),
        });
        if outstanding.len() >= WINDOW.into() {
            outstanding.next().await.expect("it is not empty")?;
            meter.one();
        }
    }
    while let Some(sent) = outstanding.next().await {
        sent?;
        meter.one();
    }
    drop(outstanding);
    close(connection, channel).await
}

/// A connection for each direction, so that a broker that blocks publishers does not hold up the acks.
struct Directions {
    from: (Connection, Channel),
    to: (Connection, Channel),
}

impl Directions {
    async fn open(url: &str) -> lapin::Result<Self> {
        let directions = Self { from: channel(url).await?, to: channel(url).await? };
        directions.to.1.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(directions)
    }

    async fn close(self) -> lapin::Result<()> {
        close(self.to.0, self.to.1).await?;
        close(self.from.0, self.from.1).await
    }
}

/// Consumes a batch, publishes it, waits for its confirms, acks it at once.
pub async fn bridge(url: &str, from: &str, to: &str, messages: u64) -> lapin::Result<()> {
    let directions = Directions::open(url).await?;
    let (taken, given) = (&directions.from.1, &directions.to.1);
    let mut batches = consumer(taken, from).await?.take(messages as usize).chunks(BATCH as usize);
    while let Some(batch) = batches.next().await {
        let batch: Vec<_> = batch.into_iter().collect::<lapin::Result<_>>()?;
        let mut outstanding: FuturesUnordered<_> =
            batch.iter().map(|delivery| send(given, to, &delivery.data)).collect();
        while let Some(sent) = outstanding.next().await {
            sent?;
        }
        let last = batch.last().expect("a batch has a message").delivery_tag;
        taken.basic_ack(last, BasicAckOptions { multiple: true }).await?;
    }
    drop(batches);
    directions.close().await
}

/// The same without a pause between batches: a window of messages is always under way, and what is confirmed without a
/// gap is acked by batches.
pub async fn bridge_sliding(url: &str, from: &str, to: &str, messages: u64) -> lapin::Result<()> {
    let directions = Directions::open(url).await?;
    let (taken, given) = (&directions.from.1, &directions.to.1);
    let deliveries = consumer(taken, from).await?.take(messages as usize);
    // In order of delivery, so an ack for one settles all before it.
    let mut confirmed = deliveries
        .map(|delivery| async move {
            let delivery = delivery?;
            send(given, to, &delivery.data).await?;
            lapin::Result::Ok(delivery.delivery_tag)
        })
        .buffered(WINDOW.into());
    let mut seen = 0;
    while let Some(tag) = confirmed.next().await {
        let tag = tag?;
        seen += 1;
        if seen % BATCH == 0 || seen == messages {
            taken.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    drop(confirmed);
    directions.close().await
}
