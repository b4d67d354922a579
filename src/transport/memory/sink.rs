//! A sink: one publisher into a queue.

use super::queue::{From, Queue, Refused};
use crate::failure::Failure;
use crate::message::Slab;
use crate::transport::{BoxFuture, Sink, SinkAsk, SinkEvent};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// What one sink may have open at most: messages and bytes that wait for room in the queue.
pub const SINK_WINDOW: (u32, u64) = (1024, 8 << 20);

/// What is asked for at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Flush,
    Close,
}

/// An open sink.
pub(super) struct MemorySink {
    queue: Arc<Queue>,
    id: u64,
    /// Sent, and without room in the queue yet.
    pending: VecDeque<(u64, Arc<Slab>)>,
    /// What the engine may still send.
    granted: (u32, u64),
    window: (u32, u64),
    out: VecDeque<SinkEvent>,
    last: Option<(Last, Pin<Box<Sleep>>)>,
    closed: bool,
}

impl MemorySink {
    pub(super) fn open(queue: Arc<Queue>) -> Self {
        let mut state = queue.lock();
        let id = state.new_id();
        // A part of a small queue, so that a batch need not wait until the whole queue is empty.
        let window = (
            SINK_WINDOW.0.min(u32::try_from(state.limits.messages / 4).unwrap_or(u32::MAX)).max(1),
            SINK_WINDOW.1.min(state.limits.bytes / 4).max(1),
        );
        drop(state);
        let granted = SinkEvent::Demand { messages: window.0, bytes: window.1 };
        Self {
            queue,
            id,
            pending: VecDeque::new(),
            granted: window,
            window,
            out: VecDeque::from([SinkEvent::Connected, granted]),
            last: None,
            closed: false,
        }
    }

    /// Puts a batch into the queue, or answers for it; false when it has to wait.
    fn push(&mut self, batch: u64, slab: &Arc<Slab>, cx: Option<&Context<'_>>) -> bool {
        let messages = slab.len() as u32;
        let waiter = cx.map(|cx| (self.id, cx.waker()));
        let failed = match self.queue.push(slab, From::Sink, waiter) {
            Ok(()) => Vec::new(),
            Err(Refused::Full) => return false,
            Err(why) => {
                let failure = || Failure::reject(self.queue.refusal(why)).classed("closed");
                (0..messages).map(|index| (index, failure())).collect()
            }
        };
        self.out.push_back(SinkEvent::Confirmed { batch, range: 0..messages, failed });
        true
    }

    fn unconfirmed(&self) -> u64 {
        self.pending.iter().map(|(_, slab)| slab.len() as u64).sum()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<SinkEvent> {
        while let Some((batch, slab)) = self.pending.front().cloned() {
            if !self.push(batch, &slab, Some(cx)) {
                break;
            }
            self.pending.pop_front();
        }
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(event);
        }
        if let Some((last, alarm)) = &mut self.last {
            let last = *last;
            if self.pending.is_empty() || alarm.as_mut().poll(cx).is_ready() {
                self.last = None;
                let unconfirmed = self.unconfirmed();
                return Poll::Ready(match last {
                    Last::Flush => SinkEvent::Flushed { unconfirmed },
                    Last::Close => {
                        self.leave();
                        SinkEvent::Closed { unconfirmed }
                    }
                });
            }
        }
        // What waits for room counts against the window; the rest is granted again once half of it is used.
        if self.pending.is_empty() && (self.granted.0 <= self.window.0 / 2 || self.granted.1 <= self.window.1 / 2) {
            self.granted = self.window;
            return Poll::Ready(SinkEvent::Demand { messages: self.window.0, bytes: self.window.1 });
        }
        Poll::Pending
    }

    fn leave(&mut self) {
        if !self.closed {
            self.closed = true;
            self.pending.clear();
            self.queue.lock().forget(self.id);
        }
    }
}

impl Sink for MemorySink {
    fn tell(&mut self, ask: SinkAsk) {
        if self.closed {
            return;
        }
        match ask {
            SinkAsk::Send { batch, slab } => {
                self.granted.0 = self.granted.0.saturating_sub(slab.len() as u32);
                self.granted.1 = self.granted.1.saturating_sub(slab.buffer_len());
                // At once where there is room, which waits for nobody; else in `next`, behind what waits already.
                if !self.pending.is_empty() || !self.push(batch, &slab, None) {
                    self.pending.push_back((batch, slab));
                }
            }
            SinkAsk::Flush { by } => {
                self.last = Some((Last::Flush, Box::pin(tokio::time::sleep_until(Instant::from_std(by)))));
            }
            SinkAsk::StopIntake => self.queue.drain(self.id),
            SinkAsk::Close { by } => {
                self.last = Some((Last::Close, Box::pin(tokio::time::sleep_until(Instant::from_std(by)))));
            }
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(poll_fn(|cx| self.poll_event(cx)))
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        self.leave();
    }
}
