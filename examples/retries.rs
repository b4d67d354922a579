//! Retries: what becomes of a message whose handler fails, in each way in which it can.
//!
//!     cargo run --example retries

use longshore::admin::AdminListen;
use longshore::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Job {
    Works,
    /// The third attempt succeeds.
    WorksLater,
    /// Every attempt fails.
    NeverWorks,
    IsWrong,
    IsUnwanted,
    Panics,
    Hangs,
}

async fn work(Json(job): Json<Job>, Attempt(attempt): Attempt) -> Result<(), Failure> {
    println!("{job:?}, attempt {attempt}");
    match job {
        Job::Works => Ok(()),
        Job::WorksLater if attempt == 3 => Ok(()),
        // Any error by `?` is taken for transient: it is tried again, after the delays of the worker.
        Job::WorksLater => Ok(std::fs::read_to_string("/nowhere").map(drop)?),
        // Or after a delay of your own, such as what a server said in `Retry-After`.
        Job::NeverWorks => Err(Failure::retry_after(Duration::from_millis(100), "the server is busy")),
        // Permanent: to the dead letters at once.
        Job::IsWrong => Err(Failure::reject("there is no such customer")),
        // Acked, kept nowhere, counted.
        Job::IsUnwanted => Err(Failure::discard("that was done yesterday")),
        // Both are failures of this one message, and are tried again like others.
        Job::Panics => panic!("a bug"),
        Job::Hangs => std::future::pending().await,
    }
}

/// Dead letters keep payload, key and headers, and say why they are dead.
async fn dead(Raw(job): Raw, headers: Headers) {
    let say = |name: &str| headers.as_ref().text(name).unwrap_or("-").to_owned();
    let (reason, attempts) = (say("longshore-reason"), say("longshore-attempts"));
    println!("dead: {} ({reason} after {attempts}: {})", String::from_utf8_lossy(&job), say("longshore-error"));
}

async fn place(jobs: Publisher<Job>) -> Result<(), Failure> {
    use Job::{Hangs, IsUnwanted, IsWrong, NeverWorks, Panics, Works, WorksLater};
    for job in [Works, WorksLater, NeverWorks, IsWrong, IsUnwanted, Panics, Hangs] {
        jobs.publish(&job).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    App::from_env("retries")
        .admin(AdminListen::Off)
        .producer(Producer::<Job>::new("jobs", "memory:jobs"))
        .service("place", place)
        .consumer(
            Consumer::new("work", "memory:jobs", work)
                .retry(Retry::exponential(Duration::from_millis(50), Duration::from_millis(200)).attempts(3))
                .timeout(Duration::from_millis(100))
                // Durable queues have a place of their own beside them; a queue in memory has to be told one.
                .dead_letter("memory:dead")
                .limit(7), // so that the example ends: an app stops when all its sources have ended
        )
        .consumer(Consumer::new("dead", "memory:dead", dead).limit(4))
        .run()
}
