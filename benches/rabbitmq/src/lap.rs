//! One timed run of one contender, in a process of its own.

use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// What a lap took.
#[derive(Clone, Copy)]
pub struct Lap {
    pub messages: u64,
    pub seconds: f64,
    /// User and system time of the whole process, so of lapin's thread too.
    pub cpu_seconds: f64,
    /// Messages that were handled and are still in the queue after a stop in good order.
    pub unsettled: u64,
}

impl Lap {
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub fn cpu_per_million(&self) -> f64 {
        self.cpu_seconds / self.messages as f64 * 1e6
    }
}

/// A moment: on the wall, and in this process's CPU time.
struct Mark {
    at: Instant,
    cpu_seconds: f64,
}

impl Mark {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self { at: Instant::now(), cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9 }
    }
}

/// Counts messages from the first to the last, from any thread.
///
/// For those who consume, a message counts when its handler has it: a framework does not say when its acks are written.
/// So up to a prefetch window of acks is missing from the time of each contender; that all of them came is proven
/// afterwards, by a queue that is empty.
pub struct Meter {
    total: u64,
    seen: AtomicU64,
    began: OnceLock<Mark>,
    ended: OnceLock<Mark>,
    complete: Notify,
}

impl Meter {
    pub fn new(total: u64) -> Self {
        let seen = AtomicU64::new(0);
        Self { total, seen, began: OnceLock::new(), ended: OnceLock::new(), complete: Notify::new() }
    }

    /// Starts the clock by itself, for those who publish: their first message is not yet done then.
    pub fn begin(&self) {
        self.began.get_or_init(Mark::now);
    }

    /// Another message is done.
    pub fn one(&self) {
        let before = self.seen.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.begin();
        }
        if before + 1 == self.total {
            self.ended.get_or_init(Mark::now);
            self.complete.notify_one();
        }
    }

    /// Waits for the last message.
    pub async fn complete(&self) {
        if self.ended.get().is_none() {
            self.complete.notified().await;
        }
    }

    /// What it took, once complete.
    pub fn lap(&self) -> Lap {
        let (began, ended) = (self.began.get().expect("a lap has begun"), self.ended.get().expect("a lap is complete"));
        Lap {
            messages: self.total,
            seconds: (ended.at - began.at).as_secs_f64(),
            cpu_seconds: ended.cpu_seconds - began.cpu_seconds,
            unsettled: 0,
        }
    }
}

/// User and system time of another process, in steps of the kernel's tick of 10 ms.
pub fn cpu_seconds_of(pid: u32) -> std::io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything, the state is field 3; utime and stime are 14 and 15.
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
