//! A sink: a handle, which keeps the time, and a thread, which owns the producer.
//!
//! The producer is idempotent and waits for every replica in sync; a record waits for the end of an outage inside of it,
//! in its order, and is stored once. Whatever librdkafka is stuck in, flush and close are answered in time: the handle
//! answers them, and the thread may be left behind.
//!
//! The rooms: `book` is the account of the engine, `window` that of the producer; `press` is the thread, `link` knows
//! whether the cluster can be reached; `record` and `verdict` turn a message and its report over.

mod book;
mod link;
mod press;
mod record;
mod verdict;
mod window;

use super::place::Place;
use super::{client, topics};
use crate::error::{Error, ErrorKind};
use crate::failure::Failure;
use crate::transport::{BoxFuture, Sink, SinkAsk, SinkEvent, SinkSpec};
use book::Book;
use press::{LastWord, Press, Send};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

/// What the thread tells the handle.
enum Told {
    /// The topic has these, except for those that failed; so many bytes are free by that.
    Confirmed { batch: u64, range: Range<u32>, failed: Vec<(u32, Failure)>, bytes: u64 },
    /// To be said as it is.
    Event(SinkEvent),
    /// The producer is about to go, and stores nothing any more.
    Released,
}

/// The handle. What it sends lies in an unbounded queue, and what it is told in another, which the demand bounds: see
/// [`book::WINDOW`].
pub(super) struct KafkaSink {
    /// Gone once it is closed: the thread ends by that.
    sends: Option<Sender<Send>>,
    told: UnboundedReceiver<Told>,
    book: Book,
    worker: Arc<str>,
    /// The thread has let go of its producer.
    released: bool,
}

impl KafkaSink {
    /// Waits for the cluster, within the patience of `spec`, and finds or creates the topic.
    ///
    /// # Errors
    /// At once for what no patience can mend; [`ErrorKind::Unreachable`] once patience is over.
    pub(super) async fn open(place: Place, spec: SinkSpec) -> Result<Self, Error> {
        client::warn_of_plain_login(&place, &spec.worker);
        let largest = topics::ready_to_write(&place, &spec.worker, spec.patience).await?;
        let (sends, taken) = channel();
        let (tell, told) = unbounded_channel();
        let (made, make) = oneshot::channel();
        let worker = spec.worker.clone();
        let pressing = move || {
            let _last_word = LastWord(tell.clone(), spec.worker.clone());
            match Press::new(place, &spec, largest, taken, tell) {
                Ok(press) => {
                    let _ = made.send(Ok(()));
                    press.run();
                }
                Err(error) => drop(made.send(Err(error))),
            }
        };
        let no_thread = |why| Error::new(ErrorKind::Start, format!("worker '{worker}': no thread")).caused_by(why);
        std::thread::Builder::new().name(format!("kafka-{worker}")).spawn(pressing).map_err(no_thread)?;
        let panicked = |_| Error::new(ErrorKind::Start, format!("worker '{worker}': its producer panicked"));
        make.await.map_err(panicked)??;
        Ok(Self { sends: Some(sends), told, book: Book::new(), worker, released: false })
    }

    /// What follows from what the thread told.
    fn hear(&mut self, told: Told) -> Option<SinkEvent> {
        match told {
            Told::Confirmed { batch, range, failed, bytes } => {
                self.book.confirm(batch, range.len() as u32, bytes);
                Some(SinkEvent::Confirmed { batch, range, failed })
            }
            // Whoever closes is told how many are not confirmed, whatever happens.
            Told::Event(SinkEvent::Failed(error)) if self.book.closes_by().is_some() => {
                tracing::warn!(worker = &*self.worker, "failed while it was closed: {error}");
                self.released = true;
                None
            }
            Told::Event(event) => Some(event),
            Told::Released => {
                self.released = true;
                None
            }
        }
    }

    /// Lets go of the producer once there is nothing to wait for; the last word once it is gone, or time is up.
    fn close(&mut self, now: Instant) -> Option<SinkEvent> {
        if self.book.may_close(now) {
            self.sends = None;
        }
        let by = self.book.closes_by()?;
        let over = self.released || now >= by;
        over.then(|| SinkEvent::Closed { unconfirmed: self.book.open() })
    }
}

impl Sink for KafkaSink {
    fn tell(&mut self, ask: SinkAsk) {
        match ask {
            SinkAsk::Send { batch, slab } => {
                let bytes = slab.iter().map(|message| message.size() as u64).sum();
                self.book.send(batch, slab.len() as u32, bytes);
                if let Some(sends) = &self.sends {
                    // A thread that is gone has said its last word.
                    let _ = sends.send(Send { batch, slab });
                }
            }
            SinkAsk::Flush { by } => self.book.flush(by),
            // What is stored is worked off by whoever consumes it.
            SinkAsk::StopIntake => {}
            SinkAsk::Close { by } => self.book.close(Instant::now(), by),
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(async move {
            loop {
                // What was told comes first, so that a flush whose time is up counts what is confirmed.
                while let Ok(told) = self.told.try_recv() {
                    if let Some(event) = self.hear(told) {
                        return event;
                    }
                }
                let now = Instant::now();
                if let Some(event) = self.book.say(now).or_else(|| self.close(now)) {
                    return event;
                }
                let heard = match self.book.due() {
                    None => self.told.recv().await,
                    Some(due) => match tokio::time::timeout_at(due.into(), self.told.recv()).await {
                        Ok(heard) => heard,
                        Err(_) => continue,
                    },
                };
                match heard {
                    Some(told) => {
                        if let Some(event) = self.hear(told) {
                            return event;
                        }
                    }
                    // The thread says `Released` or `Failed` before it ends, and a close is over by that; it says so, too,
                    // if it panics.
                    None => {
                        let text = format!("worker '{}': its producer is gone", self.worker);
                        return SinkEvent::Failed(Error::new(ErrorKind::Start, text));
                    }
                }
            }
        })
    }
}
