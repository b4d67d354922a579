//! The scenarios: what is done to a run, how often, and what must hold.

use crate::faults::Fault;
use clap::ValueEnum;
use std::time::Duration;

/// The type of RabbitMQ's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// Not replicated.
    Classic,
}

use QueueType::{Classic, Quorum};

/// What a scenario does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Messages flow, and at random points of their progress this happens.
    Traffic(Fault),
    /// The empty queue is deleted; the worker declares it anew, and messages flow.
    QueueDeleted,
    /// A worker whose window is full of messages that wait for slow handlers is stopped and started.
    FullWindow,
}

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// As the command line knows it.
    pub name: &'static str,
    /// What it does.
    pub shape: Shape,
    /// How often.
    pub times: u32,
    /// How long an outage lasts, where it does not end by itself.
    pub outage: Duration,
    /// How many messages, unless the command line says otherwise.
    pub messages: u32,
}

const MESSAGES: u32 = 200_000;

const fn traffic(name: &'static str, fault: Fault, times: u32, outage_ms: u64) -> Scenario {
    let outage = Duration::from_millis(outage_ms);
    Scenario { name, shape: Shape::Traffic(fault), times, outage, messages: MESSAGES }
}

/// All of them.
pub const ALL: [Scenario; 14] = [
    traffic("sigterm", Fault::Terminate, 50, 0),
    traffic("sigkill", Fault::Kill, 20, 0),
    traffic("broker-kill", Fault::BrokerKill, 10, 2_000),
    traffic("close-connections", Fault::CloseConnections, 20, 0),
    Scenario {
        name: "queue-deleted",
        shape: Shape::QueueDeleted,
        times: 10,
        outage: Duration::ZERO,
        messages: MESSAGES,
    },
    traffic("memory-alarm", Fault::MemoryAlarm, 5, 10_000),
    traffic("broker-frozen", Fault::Freeze, 1, 60_000),
    traffic("broker-frozen-stop", Fault::StopWhileFrozen, 1, 60_000),
    // The slow handlers get through some hundreds of messages; the rest waits in the window and behind it.
    Scenario { name: "full-window", shape: Shape::FullWindow, times: 25, outage: Duration::ZERO, messages: 5_000 },
    traffic("stop-while-down", Fault::StopWhileDown, 10, 0),
    traffic("stop-while-blocked", Fault::StopWhileBlocked, 10, 2_000),
    traffic("stop-while-reconnecting", Fault::StopWhileReconnecting, 10, 0),
    traffic("bridge-stops", Fault::TerminateBridge, 50, 0),
    traffic("bridge-kills", Fault::KillBridge, 20, 0),
];

impl Scenario {
    /// Looks one up.
    pub fn named(name: &str) -> Result<Self, String> {
        let names = || ALL.map(|scenario| scenario.name).join(", ");
        ALL.into_iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("there are {}", names()))
    }

    /// A tenth of it: of the repeats, the outages and the messages.
    #[must_use]
    pub fn tenth(self) -> Self {
        let times = self.times.div_ceil(10);
        Self { times, outage: self.outage / 10, messages: self.messages / 10, ..self }
    }

    /// The types of queues of a tenth where the command line names none: both for what happens every day, one for what
    /// costs more than it tells apart.
    pub fn types_of_tenth(&self) -> &'static [QueueType] {
        match self.shape {
            Shape::FullWindow => &[Quorum, Classic],
            Shape::QueueDeleted => &[Classic],
            Shape::Traffic(fault) => match fault {
                Fault::Terminate | Fault::Kill | Fault::BrokerKill | Fault::CloseConnections => &[Quorum, Classic],
                Fault::Freeze | Fault::StopWhileFrozen | Fault::StopWhileDown | Fault::TerminateBridge => &[Quorum],
                Fault::MemoryAlarm | Fault::StopWhileBlocked | Fault::StopWhileReconnecting | Fault::KillBridge => {
                    &[Classic]
                }
            },
        }
    }

    /// Whether it needs a broker that can be ill-treated.
    pub fn needs_broker(&self) -> bool {
        match self.shape {
            Shape::Traffic(fault) => fault.is_of_broker(),
            Shape::QueueDeleted => true,
            Shape::FullWindow => false,
        }
    }
}
