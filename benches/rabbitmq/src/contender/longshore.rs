//! Longshore, by its public API alone: an app that is started, waited for, and stopped in good order.

use super::{Result, WINDOW};
use crate::lap::Meter;
use crate::payload::{Payload, Payloads};
use crate::queue::QueueType;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use longshore::message::Headers;
use longshore::prelude::*;
use longshore::{Running, Stopped};
use std::hint::black_box;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// A queue as a URL of Longshore's names it.
fn place(url: &str, queue: &str, kind: QueueType) -> String {
    format!("{url}?queue={queue}&type={kind}")
}

/// The same, to be consumed from with the window of everybody.
fn source(url: &str, queue: &str, kind: QueueType) -> String {
    format!("{}&prefetch={WINDOW}", place(url, queue, kind))
}

async fn start(app: App) -> Result<Running> {
    let running = app.start(&Handle::current()).await?;
    if !running.ready().await {
        return Err("it did not start".into());
    }
    Ok(running)
}

/// Everything that was handled is acked, and every account adds up.
async fn stop(mut running: Running) -> Result<()> {
    running.stop();
    drained(running.wait().await)
}

fn drained(stopped: Stopped) -> Result<()> {
    match stopped.exit_code() {
        0 => Ok(()),
        code => Err(format!("exit code {code}: {}\n{}", stopped.counts(), stopped.table()).into()),
    }
}

/// A handler of the payload as it is.
pub async fn consume(url: &str, queue: &str, kind: QueueType, meter: Arc<Meter>) -> Result<()> {
    let seen = meter.clone();
    let handler = move |Raw(payload): Raw| {
        black_box(&payload);
        seen.one();
        async {}
    };
    let consumer = Consumer::new("handle", source(url, queue, kind), handler).look_ahead(WINDOW.into());
    let running = start(App::new("bench").consumer(consumer)).await?;
    meter.complete().await;
    stop(running).await
}

/// A window of confirms outstanding, from one service.
pub async fn publish(
    url: &str,
    queue: &str,
    kind: QueueType,
    payloads: Arc<Payloads>,
    meter: Arc<Meter>,
) -> Result<()> {
    let published = Arc::new(Notify::new());
    let (tell, seen) = (published.clone(), meter);
    let service = move |publisher: Publisher<Payload>| {
        let (payloads, meter, tell) = (payloads.clone(), seen.clone(), tell.clone());
        async move {
            meter.begin();
            let none = Headers::default();
            let mut outstanding = FuturesUnordered::new();
            for payload in payloads.iter() {
                outstanding.push(publisher.enqueue(payload, &none).await?);
                if outstanding.len() >= WINDOW.into() {
                    outstanding.next().await.expect("it is not empty")?;
                    meter.one();
                }
            }
            while let Some(sent) = outstanding.next().await {
                sent?;
                meter.one();
            }
            tell.notify_one();
            std::result::Result::<(), Failure>::Ok(())
        }
    };
    let encode = |payload: &Payload, into: &mut Vec<u8>| {
        into.extend_from_slice(payload.as_ref());
        std::result::Result::<(), BoxError>::Ok(())
    };
    let producer = Producer::<Payload>::with("orders", place(url, queue, kind), encode);
    let app = App::new("bench").producer(producer).service("publish", service);
    let running = start(app).await?;
    published.notified().await;
    stop(running).await
}

/// As `longshore bridge` does.
pub async fn bridge(url: &str, from: &str, to: &str, kind: QueueType, messages: u64) -> Result<()> {
    let bridge =
        Bridge::new("bridge", source(url, from, kind), place(url, to, kind)).look_ahead(WINDOW.into()).limit(messages);
    let mut running = start(App::new("bench").bridge(bridge)).await?;
    drained(running.wait().await)
}
