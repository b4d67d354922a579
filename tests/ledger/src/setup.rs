//! How a run is set up, and what its processes are told by it.

use crate::plant::Plant;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole time of a stop.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// A drain ends once nothing has come for so long.
const IDLE: &str = "3s";

/// Who carries messages, and is stopped and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The consumer under test.
    Worker,
    /// The bridge under test, where there is one.
    Bridge,
}

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where files lie.
    pub folder: PathBuf,
    /// Where messages are published.
    pub sink: String,
    /// Between two queues, where messages are bridged.
    pub bridge: Option<(String, String)>,
    /// Where the worker takes them.
    pub source: String,
    /// Number of the run.
    pub run: u32,
    /// Keys.
    pub keys: u32,
    /// Bytes of a payload.
    pub bytes: usize,
    /// Handlers at a time.
    pub concurrency: u32,
    /// Messages that may be delivered and unsettled.
    pub window: u32,
    /// How long a handler takes.
    pub handler: String,
    /// A bug in the worker.
    pub plant: Option<Plant>,
    /// Chance.
    pub seed: u64,
}

fn text(words: &[&dyn ToString]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

impl Setup {
    /// What the collector is told.
    pub fn collector(&self, socket: &Path, effects: &Path) -> Vec<String> {
        text(&[&"collector", &"--listen", &socket.display(), &"--file", &effects.display()])
    }

    /// What a producer of so many messages is told.
    pub fn producer(&self, producer: u16, log: &Path, messages: u32, rate: Option<f64>) -> Vec<String> {
        let Self { sink, run, keys, bytes, seed, window, .. } = self;
        let mut words = text(&[&"produce", sink, &"--log", &log.display(), &"--run", run]);
        words.extend(text(&[&"--producer", &producer, &"--messages", &messages]));
        words.extend(text(&[&"--keys", keys, &"--bytes", bytes, &"--seed", seed]));
        if let Some(rate) = rate {
            // What a fault may leave unconfirmed is bounded as what it may redeliver is.
            words.extend(text(&[&"--rate", &rate, &"--underway", window]));
        }
        words
    }

    /// What the worker or the bridge is told, in its so manyth start. Who drains is well, and takes its time for nothing.
    pub fn carrier(&self, carrier: Carrier, boot: u32, socket: &Path, drains: bool) -> Vec<String> {
        let mut words = match carrier {
            Carrier::Bridge => {
                let (from, to) = self.bridge.as_ref().expect("only a scenario with a bridge starts one");
                text(&[&"bridge", from, to])
            }
            Carrier::Worker => {
                let handler = if drains { "0ms..0ms" } else { &self.handler };
                let mut words = text(&[&"work", &self.source, &"--collector", &socket.display(), &"--boot", &boot]);
                words.extend(text(&[&"--concurrency", &self.concurrency, &"--handler", &handler]));
                if let (Some(plant), false) = (self.plant, drains) {
                    let name = clap::ValueEnum::to_possible_value(&plant).expect("every bug has a name");
                    words.extend(text(&[&"--plant", &name.get_name()]));
                }
                words
            }
        };
        words.extend(text(&[&"--look-ahead", &self.window, &"--deadline", &format!("{}ms", DEADLINE.as_millis())]));
        if drains {
            words.extend(text(&[&"--until-idle", &IDLE]));
        }
        words
    }
}
