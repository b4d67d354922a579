//! The other end of a case: an open sink, sent to within its demand.

use super::cases::{Stop, Tried, check};
use super::reader::polled;
use crate::message::{Message, SlabBuilder};
use crate::transport::{Sink, SinkAsk, SinkEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// An open sink, and everything that it has said.
pub(super) struct Writer {
    sink: Box<dyn Sink>,
    patience: Duration,
    room: u32,
    batches: u64,
    /// How often each message, by batch and index, was confirmed.
    confirms: BTreeMap<(u64, u32), u32>,
    sent: usize,
    flushed: Option<u64>,
    pub closed: Option<u64>,
}

impl Writer {
    pub(super) fn new(sink: Box<dyn Sink>, patience: Duration) -> Self {
        let (room, batches, sent) = (0, 0, 0);
        Self { sink, patience, room, batches, confirms: BTreeMap::new(), sent, flushed: None, closed: None }
    }

    /// How many messages are confirmed.
    pub(super) fn confirmed(&self) -> usize {
        self.confirms.len()
    }

    /// Stops the case unless everything sent is confirmed, each once.
    pub(super) fn all_confirmed_once(&self) -> Tried {
        let (sent, confirmed) = (self.sent, self.confirmed());
        check(sent == confirmed, format_args!("{confirmed} of {sent} messages are confirmed"))?;
        let twice = self.confirms.iter().find(|(_, count)| **count != 1);
        check(twice.is_none(), format_args!("confirmed not once, as ((batch, index), times): {twice:?}"))
    }

    /// Sends these as the sink asks for them, and waits for no confirm.
    pub(super) async fn send(&mut self, messages: Vec<Message>) -> Tried {
        let mut rest = messages.as_slice();
        while !rest.is_empty() {
            self.until("the sink to ask for messages", |writer| writer.room > 0).await?;
            let (now, later) = rest.split_at(rest.len().min(self.room as usize));
            self.room -= now.len() as u32;
            self.sent += now.len();
            let mut builder = SlabBuilder::new();
            for message in now {
                builder.push_message(message);
            }
            self.batches += 1;
            let slab = Arc::new(builder.finish("conformance".into()));
            self.sink.tell(SinkAsk::Send { batch: self.batches, slab });
            rest = later;
        }
        Ok(())
    }

    /// Sends these and waits until each is confirmed.
    pub(super) async fn publish(&mut self, messages: Vec<Message>) -> Tried {
        self.send(messages).await?;
        self.until("every confirm", |writer| writer.confirmed() == writer.sent).await
    }

    /// Waits until what was sent is confirmed; how much is not.
    pub(super) async fn flush(&mut self) -> Tried<u64> {
        self.flushed = None;
        self.sink.tell(SinkAsk::Flush { by: (Instant::now() + self.patience).into_std() });
        self.until("the flush of the sink", |writer| writer.flushed.is_some()).await?;
        Ok(self.flushed.expect("was just waited for"))
    }

    /// Says that the drain has begun.
    pub(super) fn stop_intake(&mut self) {
        self.sink.tell(SinkAsk::StopIntake);
    }

    /// Closes in an orderly way; how many messages are not confirmed.
    pub(super) async fn close(&mut self) -> Tried<u64> {
        self.sink.tell(SinkAsk::Close { by: (Instant::now() + self.patience).into_std() });
        self.until("the sink to close", |writer| writer.closed.is_some()).await?;
        Ok(self.closed.expect("was just waited for"))
    }

    async fn step(&mut self) -> Tried {
        let event = self.sink.next().await;
        self.take_in(event)
    }

    fn take_in(&mut self, event: SinkEvent) -> Tried {
        match event {
            SinkEvent::Demand { messages, .. } => self.room = messages,
            SinkEvent::Confirmed { batch, range, failed } => {
                if let Some((index, why)) = failed.first() {
                    return Err(Stop::Fault(format!("message {index} of batch {batch} was not stored: {why}")));
                }
                for index in range {
                    *self.confirms.entry((batch, index)).or_default() += 1;
                }
            }
            SinkEvent::Flushed { unconfirmed } => self.flushed = Some(unconfirmed),
            SinkEvent::Closed { unconfirmed } => self.closed = Some(unconfirmed),
            SinkEvent::Failed(error) => return Err(Stop::Fault(format!("the sink failed: {error}"))),
            SinkEvent::Connected | SinkEvent::Disconnected(_) | SinkEvent::Trouble(_) => {}
        }
        Ok(())
    }

    /// Listens until something is so, no longer than patience.
    pub(super) async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Tried {
        let patience = self.patience;
        let listening = async {
            while !so(self) {
                check(self.closed.is_none(), format_args!("the sink closed before {what}"))?;
                self.step().await?;
            }
            Ok(())
        };
        match timeout(patience, listening).await {
            Ok(done) => done,
            Err(_) => Err(Stop::Fault(format!(
                "waited {patience:?} for {what} in vain; sent {}, confirmed {}",
                self.sent,
                self.confirmed()
            ))),
        }
    }

    /// Polls the wait for an event so often and then drops it.
    pub(super) async fn glance(&mut self, polls: u32) -> Tried {
        let event = polled(self.sink.next(), polls).await;
        event.map_or(Ok(()), |event| self.take_in(event))
    }
}
