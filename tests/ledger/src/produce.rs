//! The producer: publishes by Longshore, and logs what it means to send before it does.

use crate::ids::Id;
use crate::intents::{Intents, Word};
use clap::Args;
use longshore::admin::AdminListen;
use longshore::prelude::*;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Instant;

/// Messages that are meant, then sent, in one go.
const TOGETHER: usize = 64;
/// The pause between two sends while the destination does not take any.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a destination that takes nothing is tried.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The producer, as its command line says.
#[derive(Debug, Clone, Args)]
pub struct Produce {
    /// Where messages go.
    sink: String,
    /// The log of intents.
    #[arg(long)]
    log: PathBuf,
    /// The number of this run.
    #[arg(long)]
    run: u32,
    /// The number of this producer.
    #[arg(long, default_value_t = 0)]
    producer: u16,
    /// How many messages.
    #[arg(long, default_value_t = 200_000)]
    messages: u32,
    /// How many keys.
    #[arg(long, default_value_t = 1_000)]
    keys: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Messages a second, at most.
    #[arg(long)]
    rate: Option<f64>,
    /// Sends whose word is not known yet, at most, and at least 64.
    #[arg(long, default_value_t = 1_024)]
    underway: usize,
    /// The seed of the sequence of keys.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

type Confirm = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Sends on their way, oldest first, and the log.
struct Sending {
    log: Intents,
    underway: VecDeque<(Id, Confirm)>,
    /// Since when nothing was confirmed, where the last word was not *ok*.
    refused_since: Option<Instant>,
}

impl Sending {
    fn word(&mut self, id: Id, said: &Result<(), Failure>) {
        let word = match said {
            Ok(()) => Word::Ok,
            Err(failure) if matches!(failure.class(), "stopping" | "unencodable") => Word::Failed,
            Err(_) => Word::Unknown,
        };
        self.refused_since = if word == Word::Ok { None } else { self.refused_since.or(Some(Instant::now())) };
        self.log.note(word, id);
    }

    /// Waits for words until no more than so many sends are on their way.
    async fn settle(&mut self, at_most: usize) {
        while self.underway.len() > at_most {
            let (id, confirm) = self.underway.pop_front().expect("there are more than none");
            let said = confirm.await;
            self.word(id, &said);
        }
    }
}

impl Produce {
    /// Lives: ends by itself when every message has its word.
    pub fn run(self) -> ExitCode {
        let bytes = self.bytes;
        let encode = move |id: &Id, into: &mut Vec<u8>| {
            into.extend_from_slice(&id.payload(bytes));
            Ok(())
        };
        let orders = Producer::<Id>::with("orders", self.sink.clone(), encode).key(|id| id.key_name());
        let publish = move |orders: Publisher<Id>, cx: Context| {
            let this = self.clone();
            async move { this.publish(orders, cx).await }
        };
        App::new("produce").admin(AdminListen::Off).producer(orders).service("publish", publish).run()
    }

    async fn publish(&self, orders: Publisher<Id>, cx: Context) -> Result<(), Failure> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut last = vec![0; self.keys as usize];
        let mut ids = (0..self.messages).map(|_| {
            let key = random.u32(..self.keys);
            last[key as usize] += 1;
            Id { run: self.run, producer: self.producer, key, seq: last[key as usize] }
        });
        let mut sending = Sending { log: Intents::open(&self.log)?, underway: VecDeque::new(), refused_since: None };
        let began = Instant::now();
        let mut sent = 0;
        loop {
            // While nothing is taken, one at a time: what is unknown stays countable.
            let together = if sending.refused_since.is_some() { 1 } else { TOGETHER };
            let ids: Vec<Id> = ids.by_ref().take(together).collect();
            if ids.is_empty() {
                break;
            }
            ids.iter().for_each(|id| sending.log.note(Word::Intent, *id));
            // On record before the first of them is sent, together with the words that came meanwhile.
            sending.log.write()?;
            for id in ids {
                match orders.enqueue(&id, &Default::default()).await {
                    Ok(confirm) => sending.underway.push_back((id, Box::pin(confirm))),
                    Err(failure) => sending.word(id, &Err(failure)),
                }
                sent += 1;
            }
            sending.settle(self.underway.saturating_sub(TOGETHER)).await;
            if let Some(since) = sending.refused_since {
                sending.settle(0).await;
                if cx.stopping() != Stopping::No {
                    break;
                }
                if sending.refused_since.is_some() {
                    if since.elapsed() > PATIENCE {
                        return Err(Failure::reject("the destination has taken nothing for 5 min"));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if let Some(rate) = self.rate {
                tokio::time::sleep_until((began + Duration::from_secs_f64(f64::from(sent) / rate)).into()).await;
            }
        }
        sending.settle(0).await;
        sending.log.write()?;
        cx.request_stop();
        Ok(())
    }
}
