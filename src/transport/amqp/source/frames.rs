//! Acks and nacks on their way to the socket.
//!
//! The client library sends a frame when its future is first polled, and says on it when it is on the socket. Such a
//! future that is dropped unawaited was measured to cost a quarter of the rate.

use super::ledger::Ack;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// What the broker, or the client library, will say.
pub(super) type BoxedAnswer<T> = Pin<Box<dyn Future<Output = Result<T, lapin::Error>> + Send>>;

/// Frames that are sent together; of more the next ones wait until these are on the socket.
const TOGETHER: usize = 64;

/// Sends these acks, in order.
pub(super) fn acks(channel: &Channel, frames: Vec<Ack>) -> impl Future<Output = Result<(), lapin::Error>> + use<> {
    let channel = channel.clone();
    async move {
        let one = |ack: &Ack| {
            let (tag, multiple) = match *ack {
                Ack::UpTo(tag) => (tag, true),
                Ack::One(tag) => (tag, false),
            };
            channel.basic_ack(tag, BasicAckOptions { multiple })
        };
        if let [only] = frames.as_slice() {
            return one(only).await;
        }
        for part in frames.chunks(TOGETHER) {
            in_order(part.iter().map(one)).await?;
        }
        Ok(())
    }
}

/// Gives these back one by one, in order.
pub(super) fn nacks(channel: &Channel, tags: Vec<u64>) -> impl Future<Output = Result<(), lapin::Error>> + use<> {
    let channel = channel.clone();
    async move {
        let options = BasicNackOptions { multiple: false, requeue: true };
        for part in tags.chunks(TOGETHER) {
            in_order(part.iter().map(|tag| channel.basic_nack(*tag, options))).await?;
        }
        Ok(())
    }
}

/// Polls all of them, always in their order, until all are done; ends with the first error.
async fn in_order<F: Future<Output = Result<(), E>>, E>(futures: impl Iterator<Item = F>) -> Result<(), E> {
    let mut open: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    poll_fn(|cx| {
        let mut failed = None;
        open.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                failed.get_or_insert(error);
                false
            }
            Poll::Pending => true,
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if open.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn frames_are_sent_in_order_whatever_answers_first() {
        let sent = Mutex::new(Vec::new());
        let (mut answers, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (answer, waits) = tokio::sync::oneshot::channel::<()>();
            answers.push(answer);
            waiting.push(waits);
        }
        let futures = waiting.into_iter().enumerate().map(|(n, waits)| {
            let sent = &sent;
            async move {
                sent.lock().unwrap().push(n);
                waits.await.map_err(|_| n)
            }
        });
        let sending = in_order(futures);
        let answering = async {
            tokio::task::yield_now().await;
            answers.into_iter().rev().for_each(|answer| answer.send(()).unwrap());
        };
        let (sending, ()) = tokio::join!(sending, answering);
        assert_eq!((sending, sent.into_inner().unwrap()), (Ok(()), vec![0, 1, 2]));
    }
}
