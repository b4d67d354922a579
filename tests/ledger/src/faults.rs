//! The faults: each is done to a world at work, and says when it was over.

use crate::clock::now_ms;
use crate::exits::Exit;
use crate::setup::Carrier;
use crate::world::{Trouble, World};
use rustix::process::Signal;
use std::thread::sleep;
use std::time::Duration;

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGTERM to the worker, which is started again.
    Terminate,
    /// SIGKILL to the worker, which is started again.
    Kill,
    /// SIGTERM to the bridge, which is started again.
    TerminateBridge,
    /// SIGKILL to the bridge, which is started again.
    KillBridge,
    /// The broker is killed and started again.
    BrokerKill,
    /// The broker closes every connection.
    CloseConnections,
    /// The broker takes no publishes for a while.
    MemoryAlarm,
    /// The broker does not answer for a while.
    Freeze,
    /// SIGTERM to the worker while the broker does not answer.
    StopWhileFrozen,
    /// SIGTERM to the worker while the broker is down.
    StopWhileDown,
    /// SIGTERM to the bridge while the broker takes no publishes.
    StopWhileBlocked,
    /// SIGTERM to the worker while the broker comes back.
    StopWhileReconnecting,
}

/// When a fault was over, and what shows that messages flow again.
pub struct Healed {
    /// By the common clock.
    pub at_ms: u64,
    /// New messages that must be done: more than could have been buffered before.
    pub shown_by: u32,
}

/// A share of memory that every broker is over.
const NO_MEMORY: &str = "0.000001";
/// The share of memory that brokers may use by default.
const USUAL_MEMORY: &str = "0.4";
/// The longest time from the broker's coming back to SIGTERM: reconnecting takes about as long.
const WHILE_RECONNECTING: Duration = Duration::from_secs(1);
/// The longest time from the broker's death to SIGTERM.
const WHILE_DOWN: Duration = Duration::from_secs(3);

/// RabbitMQ 3.10.8 may bring a quorum queue back without a leader where the node is killed within about a second of its
/// being declared: a bug of its own.
const OLD_ENOUGH: Duration = Duration::from_secs(2);

impl Fault {
    /// How old the queues must be.
    pub fn needs_age(self) -> Duration {
        match self {
            Self::BrokerKill | Self::StopWhileDown | Self::StopWhileReconnecting => OLD_ENOUGH,
            _ => Duration::ZERO,
        }
    }

    /// Whether it is done to a broker.
    pub fn is_of_broker(self) -> bool {
        !matches!(self, Self::Terminate | Self::Kill | Self::TerminateBridge | Self::KillBridge)
    }

    /// Whether messages go by a bridge before they come to the worker.
    pub fn needs_bridge(self) -> bool {
        matches!(self, Self::TerminateBridge | Self::KillBridge | Self::StopWhileBlocked)
    }

    /// Whether it may make what was delivered come again.
    pub fn redelivers(self) -> bool {
        !matches!(self, Self::Terminate | Self::TerminateBridge | Self::KillBridge)
    }

    /// Whether it may make somebody publish again what was published: who cannot know whether it arrived.
    pub fn republishes(self) -> bool {
        self.is_of_broker() || self == Self::KillBridge
    }

    /// Does it.
    pub fn strike(self, world: &mut World, outage: Duration) -> Result<Healed, Trouble> {
        let window = world.window();
        match self {
            Self::Terminate | Self::TerminateBridge => {
                let carrier = if self == Self::Terminate { Carrier::Worker } else { Carrier::Bridge };
                world.terminate(carrier, Exit::Drained)?;
                world.begin(carrier)?;
                Ok(Healed { at_ms: now_ms(), shown_by: 1 })
            }
            Self::Kill | Self::KillBridge => {
                let carrier = if self == Self::Kill { Carrier::Worker } else { Carrier::Bridge };
                world.kill(carrier)?;
                world.begin(carrier)?;
                Ok(Healed { at_ms: now_ms(), shown_by: 1 })
            }
            Self::BrokerKill => {
                world.kill_broker()?;
                sleep(world.up_to(outage));
                world.broker()?.restart()?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::CloseConnections => {
                world.broker()?.ctl(&["-q", "close_all_connections", "ledger"])?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::MemoryAlarm => {
                world.broker()?.ctl(&["-q", "set_vm_memory_high_watermark", NO_MEMORY])?;
                sleep(outage);
                world.broker()?.ctl(&["-q", "set_vm_memory_high_watermark", USUAL_MEMORY])?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::Freeze => {
                world.broker()?.freeze()?;
                sleep(outage);
                world.broker()?.thaw()?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::StopWhileFrozen => {
                world.broker()?.freeze()?;
                sleep(world.up_to(outage / 2));
                world.terminate(Carrier::Worker, Exit::AfterAnOutage)?;
                world.broker()?.thaw()?;
                world.begin(Carrier::Worker)?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::StopWhileDown => {
                world.kill_broker()?;
                sleep(world.up_to(WHILE_DOWN));
                world.terminate(Carrier::Worker, Exit::AsReported)?;
                world.broker()?.restart()?;
                world.begin(Carrier::Worker)?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::StopWhileReconnecting => {
                world.kill_broker()?;
                world.broker()?.restart()?;
                sleep(world.up_to(WHILE_RECONNECTING));
                world.terminate(Carrier::Worker, Exit::AfterAnOutage)?;
                world.begin(Carrier::Worker)?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
            Self::StopWhileBlocked => {
                world.broker()?.ctl(&["-q", "set_vm_memory_high_watermark", NO_MEMORY])?;
                sleep(world.up_to(outage));
                world.terminate(Carrier::Bridge, Exit::AsReported)?;
                world.broker()?.ctl(&["-q", "set_vm_memory_high_watermark", USUAL_MEMORY])?;
                world.begin(Carrier::Bridge)?;
                Ok(Healed { at_ms: now_ms(), shown_by: window + 1 })
            }
        }
    }
}

impl Carrier {
    /// The signal that asks for a stop.
    pub const STOP: Signal = Signal::TERM;
}
