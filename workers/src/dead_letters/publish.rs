//! Messages into a sink, one batch after the other, each confirmed before the next.

use longshore::message::{Message, SlabBuilder};
use longshore::transport::{Sink, SinkAsk, SinkEvent, SinkPlan, SinkSpec, Transport, Url};
use longshore::{Error, ErrorKind, Failure};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flow::PATIENCE;

/// A sink that is connected and says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(30);
/// A sink may take so long to close.
const CLOSE: Duration = Duration::from_secs(5);

/// An open sink.
pub struct Publisher {
    sink: Box<dyn Sink>,
    url: Url,
    messages: u32,
    /// Since when it is not connected.
    away: Option<Instant>,
    trouble: Option<Error>,
    next_batch: u64,
}

impl Publisher {
    /// Plans the sink; opens nothing.
    pub fn plan(transport: &Arc<dyn Transport>, url: &Url) -> Result<Box<dyn SinkPlan>, Error> {
        transport.sink(url, &SinkSpec::new("redrive", PATIENCE))
    }

    /// Opens it.
    pub async fn open(plan: &dyn SinkPlan, url: &Url) -> Result<Self, Error> {
        let sink = plan.open().await.map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(Self { sink, url: url.clone(), messages: 0, away: Some(Instant::now()), trouble: None, next_batch: 0 })
    }

    /// Sends these and waits for every confirm; those that the sink does not take, by index.
    pub async fn publish(&mut self, all: &[Message]) -> Result<Vec<(usize, Failure)>, Error> {
        let mut refused = Vec::new();
        // Batch number to the index of its first message.
        let mut sent: HashMap<u64, usize> = HashMap::new();
        let (mut next, mut open) = (0, all.len());
        while open > 0 {
            if next < all.len() && self.messages > 0 {
                let many = (self.messages as usize).min(all.len() - next);
                let mut slab = SlabBuilder::new();
                for message in &all[next..next + many] {
                    slab.push_message(message);
                }
                let slab = Arc::new(slab.finish(self.url.to_string().into()));
                self.sink.tell(SinkAsk::Send { batch: self.next_batch, slab });
                sent.insert(self.next_batch, next);
                self.next_batch += 1;
                self.messages -= many as u32;
                next += many;
            }
            if let SinkEvent::Confirmed { batch, range, failed } = self.happens().await? {
                let Some(first) = sent.get(&batch) else { continue };
                open = open.saturating_sub(range.len());
                refused.extend(failed.into_iter().map(|(index, failure)| (first + index as usize, failure)));
            }
        }
        Ok(refused)
    }

    /// What happens next at the sink.
    async fn happens(&mut self) -> Result<SinkEvent, Error> {
        let patience = match self.away {
            Some(since) => PATIENCE.saturating_sub(since.elapsed()),
            None => SILENCE,
        };
        let Ok(event) = tokio::time::timeout(patience, self.sink.next()).await else {
            let what = if self.away.is_some() { "cannot be reached" } else { "confirms nothing" };
            let error = Error::new(ErrorKind::Unreachable, format!("'{}' {what}", self.url));
            return Err(match self.trouble.take() {
                Some(trouble) => error.caused_by(trouble),
                None => error,
            });
        };
        match event {
            SinkEvent::Demand { messages, .. } => self.messages = messages,
            SinkEvent::Connected => self.away = None,
            SinkEvent::Disconnected(error) => {
                self.away.get_or_insert_with(Instant::now);
                self.trouble = Some(error);
            }
            SinkEvent::Trouble(error) => {
                tracing::warn!("'{}': {error}", self.url);
                self.trouble = Some(error);
            }
            SinkEvent::Failed(error) => return Err(error.of(format_args!("'{}'", self.url))),
            SinkEvent::Closed { .. } => {
                return Err(Error::new(ErrorKind::Io, format!("'{}' has closed", self.url)));
            }
            other => return Ok(other),
        }
        Ok(SinkEvent::Connected)
    }

    /// Releases what is behind it.
    pub async fn close(mut self) {
        self.sink.tell(SinkAsk::Close { by: Instant::now() + CLOSE });
        let closed =
            async { while !matches!(self.sink.next().await, SinkEvent::Closed { .. } | SinkEvent::Failed(_)) {} };
        // Everything was confirmed: what a close that hangs holds is nothing of ours.
        let _ = tokio::time::timeout(CLOSE * 2, closed).await;
    }
}
