//! Batches: many messages in one call, an outcome for each; as a function, and as a worker actor with state.
//!
//!     cargo run --example batches

use longshore::admin::AdminListen;
use longshore::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Reading {
    sensor: u32,
    celsius: f64,
}

/// Tells the two producers of readings apart.
struct Good;

/// As one statement would store them: all, but for those that no table takes.
async fn store(readings: Batch<Json<Reading>>, good: To<Reading, Good>) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::with_capacity(readings.len());
    for Json(reading) in readings {
        outcomes.push(if reading.celsius < -273.15 {
            Err(Failure::reject(format!("sensor {} is colder than anything", reading.sensor)))
        } else {
            good.send(&reading).await
        });
    }
    println!("store: a batch of {}", outcomes.len());
    // An error instead of this list would be the outcome of every message of the batch.
    Ok(outcomes)
}

/// State from batch to batch.
#[derive(Default)]
struct Warmest {
    celsius: Option<f64>,
}

impl BatchWorker for Warmest {
    type Item = Json<Reading>;

    async fn handle(&mut self, batch: Batch<Json<Reading>>, _: &Context) -> Result<BatchDone, Failure> {
        let warmest = batch.iter().map(|reading| reading.celsius).chain(self.celsius).reduce(f64::max);
        self.celsius = warmest;
        Ok(BatchDone::All)
    }

    async fn stopped(&mut self, _: Why) {
        println!("warmest: {:?}", self.celsius);
    }
}

async fn refused(headers: Headers) {
    let error = headers.as_ref().text("longshore-error").unwrap_or_default();
    println!("refused: {error}");
}

async fn measure(readings: Publisher<Reading>) -> Result<(), Failure> {
    let mut confirms = Vec::new();
    for index in 0..200 {
        let celsius = if index == 77 { -300.0 } else { f64::from(index % 30) };
        // Sends go out together; each future waits for its confirm.
        let reading = Reading { sensor: index % 10, celsius };
        confirms.push(readings.enqueue(&reading, &longshore::message::Headers::new()).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    App::from_env("batches")
        .admin(AdminListen::Off)
        .producer(Producer::<Reading>::new("readings", "memory:readings").key(|reading| reading.sensor.to_string()))
        .producer(Producer::<Reading, Good>::new("good", "memory:good"))
        .service("measure", measure)
        .consumer(
            Consumer::batch("store", "memory:readings", store)
                .batches(50, 1 << 20, Duration::from_millis(20)) // at 50 messages, 1 MiB, or after 20 ms
                .concurrency(1)
                .dead_letter("memory:refused")
                .limit(200), // so that the example ends: an app stops when all its sources have ended
        )
        .consumer(
            Consumer::batch_worker("warmest", "memory:good", || async { Ok::<_, BoxError>(Warmest::default()) })
                .limit(199),
        )
        .consumer(Consumer::new("refused", "memory:refused", refused).limit(1))
        .run()
}
