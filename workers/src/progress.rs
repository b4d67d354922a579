//! Progress: a line on a terminal, log lines elsewhere.

use crate::flow::APP;
use longshore::transport::{Transports, Url};
use longshore::{Progress, duration, logs};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The rate is that of the last so many looks, one a second.
const LOOKS: usize = 10;
/// Elsewhere than on a terminal, one line for so many looks.
const LOG_EVERY: u64 = 10;
/// What waits is counted at most this often …
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// … and so that counting takes no more than this part of the time.
const MEASURE_SHARE: u32 = 50;

/// What waits in the source.
#[derive(Debug, Clone, Copy)]
struct Lag {
    messages: u64,
    /// Settled here when it was counted.
    settled: u64,
    /// Whether the count does not fall by what is settled: a file that keeps no place.
    fixed: bool,
}

#[derive(Debug, Default)]
enum Measuring {
    #[default]
    Due,
    Running,
    Next(Instant),
    /// The source cannot tell.
    Never,
}

/// Shows how far a command is.
pub struct Meter {
    source: Option<Url>,
    limit: u64,
    terminal: bool,
    looks: VecDeque<(Instant, u64)>,
    count: u64,
    lag: Arc<Mutex<(Measuring, Option<Lag>)>>,
}

impl Meter {
    /// For a command that takes so many messages at most from this source.
    pub fn new(source: &str, limit: Option<u64>) -> Self {
        Self {
            source: Url::parse(source).ok(),
            limit: limit.unwrap_or(u64::MAX),
            terminal: std::io::stderr().is_terminal(),
            looks: VecDeque::new(),
            count: 0,
            lag: Arc::default(),
        }
    }

    /// Called once a second, inside the runtime.
    pub fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        self.looks.push_back((now, progress.settled));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        self.count += 1;
        let speaks = self.terminal || self.count.is_multiple_of(LOG_EVERY);
        if self.terminal || (self.count + 1).is_multiple_of(LOG_EVERY) {
            self.measure(progress.settled, now);
        }
        if !speaks {
            return;
        }
        let rate = self.rate();
        let lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner).1;
        let lag = lag.map(|lag| match lag.fixed {
            true => lag.messages.saturating_sub(progress.settled),
            false => lag.messages.saturating_sub(progress.settled.saturating_sub(lag.settled)),
        });
        let left = self.limit.saturating_sub(progress.settled);
        let eta = lag.and_then(|lag| eta(lag.min(left), rate));
        if self.terminal {
            logs::show_status(&line(progress, rate, lag, eta));
        } else {
            tracing::info!(
                event = "progress",
                settled = progress.settled,
                rate = (rate * 10.0).round() / 10.0,
                in_flight = progress.in_flight,
                lag,
                eta = eta.map(duration::short),
                "progress"
            );
        }
    }

    /// Messages a second, as of late.
    fn rate(&self) -> f64 {
        match (self.looks.front(), self.looks.back()) {
            (Some((began, before)), Some((now, settled))) if now > began => {
                settled.saturating_sub(*before) as f64 / now.duration_since(*began).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// Counts what waits, beside everything else, one count at a time.
    fn measure(&self, settled: u64, now: Instant) {
        let Some(source) = self.source.clone() else { return };
        {
            let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
            match lag.0 {
                Measuring::Due => {}
                Measuring::Next(at) if at <= now => {}
                _ => return,
            }
            lag.0 = Measuring::Running;
        }
        let lag = self.lag.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let transports = Transports::built_in();
            let group = source.option("group").unwrap_or(APP);
            let found = match transports.of(&source) {
                Ok(transport) => transport.inspect(&source, group).await.ok(),
                Err(_) => None,
            };
            let known =
                found.and_then(|found| Some(Lag { messages: found.lag?, settled, fixed: found.group.is_none() }));
            let mut lag = lag.lock().unwrap_or_else(PoisonError::into_inner);
            lag.0 = match known {
                None => Measuring::Never,
                // What was counted of a file without a place stays as it is.
                Some(Lag { fixed: true, .. }) => Measuring::Never,
                Some(_) => Measuring::Next(Instant::now() + MEASURE_EVERY.max(began.elapsed() * MEASURE_SHARE)),
            };
            lag.1 = known;
        });
    }
}

fn eta(lag: u64, rate: f64) -> Option<Duration> {
    (rate > 0.0).then(|| Duration::try_from_secs_f64((lag as f64 / rate).ceil()).ok()).flatten()
}

fn line(progress: Progress, rate: f64, lag: Option<u64>, eta: Option<Duration>) -> String {
    let mut line = format!("{} done  {rate:.0}/s  in flight {}", progress.settled, progress.in_flight);
    if let Some(lag) = lag {
        line.push_str(&format!("  lag {lag}"));
    }
    if let Some(eta) = eta.filter(|_| lag.is_some_and(|lag| lag > 0)) {
        line.push_str(&format!("  eta {}", duration::short(eta)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let progress = Progress { received: 120, settled: 100, in_flight: 20 };
        assert_eq!(line(progress, 49.6, None, None), "100 done  50/s  in flight 20");
        let full = line(progress, 50.0, Some(1_000), eta(1_000, 50.0));
        assert_eq!(full, "100 done  50/s  in flight 20  lag 1000  eta 20s");
        assert_eq!(eta(5, 0.0), None);
    }
}
