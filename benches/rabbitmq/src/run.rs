//! How a lap is run: the queues are made ready, a contender is started as a process of its own, and what it left is
//! looked at.

use crate::case::Case;
use crate::contender::bare::Returns;
use crate::contender::{Result, WINDOW, bare, longshore, ruststream};
use crate::lap::{Lap, Meter, cpu_seconds_of};
use crate::payload::Payloads;
use crate::queue::{QueueType, Queues};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

pub const FROM: &str = "longshore-bench-from";
pub const TO: &str = "longshore-bench-to";

/// The threads of a contender's runtime; lapin's own thread comes on top.
const WORKER_THREADS: usize = 2;

/// How often the destination of a bridge is looked at. A lap of a bridge takes seconds.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A contender that did not finish by then hangs.
const LAP_LIMIT: Duration = Duration::from_secs(120);

/// Everything that a contender is told.
#[derive(Clone)]
pub struct Task {
    pub case: Case,
    pub contender: String,
    pub url: String,
    pub kind: QueueType,
    pub messages: u64,
}

impl Task {
    /// As the arguments of the process that runs it.
    fn arguments(&self) -> [String; 6] {
        let (case, kind, messages) = (self.case.to_string(), self.kind.to_string(), self.messages.to_string());
        ["--lap".to_owned(), case, self.contender.clone(), self.url.clone(), kind, messages]
    }

    /// Reads what `arguments` wrote, behind the first.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut next = || arguments.next().ok_or("a lap has five arguments");
        Ok(Self {
            case: next()?.parse()?,
            contender: next()?,
            url: next()?,
            kind: next()?.parse()?,
            messages: next()?.parse()?,
        })
    }
}

/// In the process of the contender: runs it, and prints what it took by its own clock, if it has one.
pub fn contend(task: Task) -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    // As a task, for `block_on` would run it on this thread, a third one beside the workers.
    if let Some(lap) = runtime.block_on(runtime.spawn(lap(task)))?? {
        println!("{} {}", lap.seconds, lap.cpu_seconds);
    }
    Ok(())
}

async fn lap(task: Task) -> Result<Option<Lap>> {
    let Task { case, contender, url, kind, messages } = task;
    let meter = Arc::new(Meter::new(messages));
    match (case, contender.as_str()) {
        (Case::Consume, "bare") => bare::consume(&url, FROM, messages, &meter).await?,
        (Case::Consume, "bare-one-ack-each") => bare::consume_one_ack_each(&url, FROM, messages, &meter).await?,
        (Case::Consume, "ruststream") => return Ok(Some(ruststream::consume(&url, FROM, kind, messages).await?.lap())),
        (Case::Consume, "longshore") => longshore::consume(&url, FROM, kind, meter.clone()).await?,
        (Case::Publish, "longshore") => {
            longshore::publish(&url, TO, kind, Arc::new(Payloads::new(messages)), meter.clone()).await?;
        }
        (Case::Bridge, "longshore") => longshore::bridge(&url, FROM, TO, kind, messages).await?,
        (Case::Publish, "bare") => bare::publish(&url, TO, &Payloads::new(messages), &meter, Returns::Lost).await?,
        (Case::Publish, "bare-mandatory") => {
            bare::publish(&url, TO, &Payloads::new(messages), &meter, Returns::Told).await?;
        }
        (Case::Bridge, "bare") => bare::bridge(&url, FROM, TO, messages).await?,
        (Case::Bridge, "bare-sliding") => bare::bridge_sliding(&url, FROM, TO, messages).await?,
        (case, other) => return Err(format!("nobody called {other} takes part in {case}").into()),
    }
    Ok((case != Case::Bridge).then(|| meter.lap()))
}

/// In the process that compares: one lap on fresh queues.
pub async fn round(queues: &Queues, task: &Task) -> Result<Lap> {
    queues.make(FROM, task.kind).await?;
    queues.make(TO, task.kind).await?;
    if task.case.starts_full() {
        queues.fill(FROM, task.messages).await?;
    }
    let lap = timeout(LAP_LIMIT, race(queues, task)).await.map_err(|_| "it hangs")??;
    let (left, given) = (queues.ready(FROM).await?, queues.ready(TO).await?);
    let wanted = if task.case.ends_full() { task.messages } else { 0 };
    // What was handled and not settled at the end is a repeat for whoever comes next: a figure, not a failure.
    if left > WINDOW.into() || given != wanted {
        return Err(format!("{left} messages were not settled, {given} of {wanted} arrived").into());
    }
    Ok(Lap { unsettled: left, ..lap })
}

async fn race(queues: &Queues, task: &Task) -> Result<Lap> {
    let mut process = Command::new(std::env::current_exe()?);
    let child = process.args(task.arguments()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let observed = match task.case {
        Case::Bridge => Some(observe(queues, task.messages, child.id().ok_or("it has ended")?).await?),
        Case::Consume | Case::Publish => None,
    };
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        return Err(format!("it ended with {}", output.status).into());
    }
    if let Some(lap) = observed {
        return Ok(lap);
    }
    let said = String::from_utf8(output.stdout)?;
    let (seconds, cpu_seconds) = said.trim().split_once(' ').ok_or("it says how long it took")?;
    Ok(Lap { messages: task.messages, seconds: seconds.parse()?, cpu_seconds: cpu_seconds.parse()?, unsettled: 0 })
}

/// Times a bridge from outside, by what its destination has: the one clock that is the same for all.
async fn observe(queues: &Queues, messages: u64, pid: u32) -> Result<Lap> {
    let mut began = None;
    loop {
        let (arrived, at) = (queues.ready(TO).await?, Instant::now());
        match began {
            None if arrived > 0 => began = Some((arrived, at, cpu_seconds_of(pid)?)),
            Some((before, since, cpu)) if arrived >= messages => {
                return Ok(Lap {
                    messages: arrived - before,
                    seconds: (at - since).as_secs_f64(),
                    cpu_seconds: cpu_seconds_of(pid)? - cpu,
                    unsettled: 0,
                });
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
