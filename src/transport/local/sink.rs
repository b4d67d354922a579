//! A sink: sends that wait are written together, one commit for all of them.

use super::Place;
use super::neighbours::{Neighbourhoods, lock};
use super::publish::publish;
use super::source::{BACK_OFF, REPEAT_TROUBLE};
use super::statements::QueueStatements;
use super::store::{Access, Store, declare};
use crate::error::{Error, ErrorKind};
use crate::message::Slab;
use crate::transport::{BoxFuture, Sink, SinkAsk, SinkEvent, SinkSpec};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What may be sent and not confirmed.
const WINDOW: (u32, u64) = (8_192, 16 << 20);

/// Most messages of one commit; a send is never split.
const COMMIT: usize = 4_096;

pub(super) struct LocalSink {
    tray: Arc<Tray>,
    /// Sent and not confirmed.
    open: Counted,
    /// What the engine believes that it may still send.
    said: (u32, u64),
    greeted: bool,
    sent: u64,
    confirmed: u64,
    /// Flushes that wait: how much must be confirmed, and until when.
    flushes: VecDeque<(u64, Instant)>,
    close_by: Option<Instant>,
    over: bool,
}

/// Sizes of open sends by their number.
#[derive(Default)]
struct Counted {
    sizes: std::collections::HashMap<u64, (u32, u64)>,
    messages: u32,
    bytes: u64,
}

/// Between the task that owns a sink and the thread that owns its connection.
#[derive(Default)]
struct Tray {
    state: Mutex<State>,
    sends: Condvar,
    news: Notify,
}

#[derive(Default)]
struct State {
    sends: VecDeque<Send>,
    events: VecDeque<SinkEvent>,
    /// The sink was dropped, or closed: the thread ends.
    gone: bool,
    /// The thread has left the store.
    ended: bool,
}

struct Send {
    batch: u64,
    slab: Arc<Slab>,
}

impl LocalSink {
    pub(super) async fn open(place: Place, spec: SinkSpec, all: Arc<Neighbourhoods>) -> Result<Self, Error> {
        let (told, opened) = tokio::sync::oneshot::channel();
        let worker = spec.worker.clone();
        std::thread::Builder::new()
            .name(format!("local-{worker}"))
            .spawn(move || match Press::open(&place, &spec, &all) {
                Ok(press) => {
                    let _ = told.send(Ok(Self::on(press.tray.clone())));
                    press.serve();
                }
                Err(error) => drop(told.send(Err(error))),
            })
            .map_err(|why| Error::new(ErrorKind::Start, format!("worker '{worker}': no thread")).caused_by(why))?;
        opened
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Start, format!("worker '{worker}': its store panicked"))))
    }

    fn on(tray: Arc<Tray>) -> Self {
        Self {
            tray,
            open: Counted::default(),
            said: (0, 0),
            greeted: false,
            sent: 0,
            confirmed: 0,
            flushes: VecDeque::new(),
            close_by: None,
            over: false,
        }
    }

    /// What can be said at once.
    fn say(&mut self) -> Option<SinkEvent> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(SinkEvent::Connected);
        }
        if let Some(demand) = self.demand() {
            return Some(demand);
        }
        let event = lock(&self.tray.state).events.pop_front();
        if let Some(event) = event {
            match &event {
                SinkEvent::Confirmed { batch, .. } => {
                    if let Some((messages, bytes)) = self.open.sizes.remove(batch) {
                        self.open.messages -= messages;
                        self.open.bytes -= bytes;
                        self.confirmed += u64::from(messages);
                    }
                }
                SinkEvent::Failed(_) => self.over = true,
                _ => {}
            }
            return Some(event);
        }
        let now = Instant::now();
        if let Some((until, by)) = self.flushes.front().copied()
            && (self.confirmed >= until || now >= by)
        {
            self.flushes.pop_front();
            return Some(SinkEvent::Flushed { unconfirmed: until.saturating_sub(self.confirmed) });
        }
        if let Some(by) = self.close_by {
            if self.confirmed == self.sent || now >= by {
                self.tray.leave();
            }
            // Closed means that the file is closed, too.
            if now >= by || lock(&self.tray.state).ended {
                self.over = true;
                return Some(SinkEvent::Closed { unconfirmed: self.sent - self.confirmed });
            }
        }
        None
    }

    /// A new demand, once enough room is free to be worth saying.
    fn demand(&mut self) -> Option<SinkEvent> {
        let messages = WINDOW.0.saturating_sub(self.open.messages);
        let bytes = WINDOW.1.saturating_sub(self.open.bytes);
        let more = messages.saturating_sub(self.said.0) >= WINDOW.0 / 4
            || bytes.saturating_sub(self.said.1) >= WINDOW.1 / 4
            || (self.open.messages == 0 && self.said != (messages, bytes));
        if !more || self.close_by.is_some() {
            return None;
        }
        self.said = (messages, bytes);
        Some(SinkEvent::Demand { messages, bytes })
    }
}

impl Sink for LocalSink {
    fn tell(&mut self, ask: SinkAsk) {
        match ask {
            SinkAsk::Send { batch, slab } => {
                let messages = slab.len() as u32;
                let bytes = slab.iter().map(|message| message.size() as u64).sum::<u64>();
                self.open.messages += messages;
                self.open.bytes += bytes;
                self.open.sizes.insert(batch, (messages, bytes));
                self.said = (self.said.0.saturating_sub(messages), self.said.1.saturating_sub(bytes));
                self.sent += u64::from(messages);
                lock(&self.tray.state).sends.push_back(Send { batch, slab });
                self.tray.sends.notify_one();
            }
            SinkAsk::Flush { by } => self.flushes.push_back((self.sent, by)),
            // What is stored is worked off by whoever consumes it, in this process or after it.
            SinkAsk::StopIntake => {}
            SinkAsk::Close { by } => self.close_by = Some(by),
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.say() {
                    return event;
                }
                let until = self.flushes.front().map(|(_, by)| *by).into_iter().chain(self.close_by).min();
                match until {
                    None => self.tray.news.notified().await,
                    // Time that is up is seen at the next turn of the loop.
                    Some(by) => drop(tokio::time::timeout_at(by.into(), self.tray.news.notified()).await),
                }
            }
        })
    }
}

impl Drop for LocalSink {
    fn drop(&mut self) {
        self.tray.leave();
    }
}

impl Tray {
    fn leave(&self) {
        lock(&self.state).gone = true;
        self.sends.notify_one();
    }

    fn say(&self, event: SinkEvent) {
        lock(&self.state).events.push_back(event);
        self.news.notify_one();
    }

    /// Waits for sends, and takes as many as one commit may hold; `None` where the sink is gone.
    fn wait(&self) -> Option<Vec<Send>> {
        let state = lock(&self.state);
        let waited = self.sends.wait_while(state, |state| state.sends.is_empty() && !state.gone);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.gone {
            return None;
        }
        let mut taken = Vec::new();
        let mut messages = 0;
        while let Some(next) = state.sends.front() {
            messages += next.slab.len();
            if messages > COMMIT && !taken.is_empty() {
                break;
            }
            taken.extend(state.sends.pop_front());
        }
        Some(taken)
    }

    /// Sleeps; whether the sink is still there then.
    fn nap(&self, time: Duration) -> bool {
        let waited = self.sends.wait_timeout_while(lock(&self.state), time, |state| !state.gone);
        !waited.unwrap_or_else(PoisonError::into_inner).0.gone
    }
}

/// The thread's side.
struct Press {
    store: Store,
    queue: i64,
    statements: QueueStatements,
    tray: Arc<Tray>,
    worker: Arc<str>,
}

/// Says that the sink failed, should the thread panic.
struct LastWord(Arc<Tray>, Arc<str>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = format!("worker '{}': its store panicked", self.1);
            self.0.say(SinkEvent::Failed(Error::new(ErrorKind::Start, text)));
        }
    }
}

impl Press {
    fn open(place: &Place, spec: &SinkSpec, all: &Neighbourhoods) -> Result<Self, Error> {
        let access = if place.declare { Access::Declare } else { Access::Write };
        let store = Store::open(&place.path, access, all, spec.patience)?;
        let found = declare(&store, &place.queue, place.group.as_deref(), place.retain, place.declare)?;
        Ok(Self {
            store,
            queue: found.queue,
            statements: QueueStatements::of(found.queue),
            tray: Arc::default(),
            worker: spec.worker.clone(),
        })
    }

    fn serve(mut self) {
        let _last_word = LastWord(self.tray.clone(), self.worker.clone());
        while let Some(sends) = self.tray.wait() {
            if !self.store_all(&sends) {
                break;
            }
        }
        let Self { store, tray, .. } = self;
        drop(store);
        lock(&tray.state).ended = true;
        tray.news.notify_one();
    }

    /// Writes some sends and confirms them; tries until it succeeds, the sink is gone, or it never can.
    fn store_all(&mut self, sends: &[Send]) -> bool {
        let (queue, statements) = (self.queue, &self.statements);
        let mut pause = BACK_OFF.0;
        let mut say_at = Instant::now();
        loop {
            match self.store.write(true, |tx| publish(tx, queue, statements, sends.iter().map(|send| &*send.slab))) {
                Ok(refused) => {
                    for (send, failed) in sends.iter().zip(refused) {
                        let range = 0..send.slab.len() as u32;
                        self.tray.say(SinkEvent::Confirmed { batch: send.batch, range, failed });
                    }
                    self.store.neighbours().ring(queue, None);
                    return true;
                }
                Err(error) if error.is_retryable() => {
                    if Instant::now() >= say_at {
                        say_at = Instant::now() + REPEAT_TROUBLE;
                        self.tray.say(SinkEvent::Trouble(error));
                    }
                    if !self.tray.nap(pause) {
                        return false;
                    }
                    pause = (pause * 2).min(BACK_OFF.1);
                }
                Err(error) => {
                    self.tray.say(SinkEvent::Failed(error));
                    return false;
                }
            }
        }
    }
}
