//! The worker under test: a real `App::run` with a consumer by key that reports what it does, and the bridge.

use crate::effects::{Effect, Effects};
use crate::ids::Id;
use crate::plant::{NOW_AND_THEN, Plant};
use clap::Args;
use longshore::admin::AdminListen;
use longshore::prelude::*;
use std::path::PathBuf;
use std::str::FromStr;

/// How much longer than its deadline a planted bug keeps the process.
const LINGERS: Duration = Duration::from_secs(2);

/// How much later than its ack a planted bug handles a message: longer than an ack takes to be stored on a busy machine,
/// so that each kill finds some, and not so long that the rest is too little to go on with.
const LATER: Duration = Duration::from_millis(100);

/// How long a handler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerTime {
    /// Something from the first to the second.
    Between(Duration, Duration),
    /// For ever.
    Hang,
}

impl FromStr for HandlerTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "hang" {
            return Ok(Self::Hang);
        }
        let (from, to) = text.split_once("..").ok_or("'hang', or two durations such as 0ms..2ms")?;
        let (from, to) = (longshore::duration::parse(from)?, longshore::duration::parse(to)?);
        if from > to { Err(format!("{text} ends before it begins")) } else { Ok(Self::Between(from, to)) }
    }
}

impl HandlerTime {
    async fn pass(self) {
        match self {
            Self::Hang => std::future::pending().await,
            Self::Between(_, to) if to.is_zero() => {}
            Self::Between(from, to) => {
                let micros = fastrand::u64(from.as_micros() as u64..=to.as_micros() as u64);
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
        }
    }
}

/// The worker, as its command line says.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// Where messages come from.
    source: String,
    /// The collector's socket.
    #[arg(long)]
    collector: PathBuf,
    /// Which start of this worker it is.
    #[arg(long, default_value_t = 1)]
    boot: u32,
    /// Handlers at a time.
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Messages that may be delivered and unsettled.
    #[arg(long, default_value_t = 256)]
    look_ahead: u32,
    /// How long a handler takes: `hang`, or a range such as `0ms..2ms`.
    #[arg(long, default_value = "0ms..2ms")]
    handler: HandlerTime,
    /// The whole time of a stop.
    #[arg(long, default_value = "10s", value_parser = longshore::duration::parse)]
    deadline: Duration,
    /// End once nothing has come for so long.
    #[arg(long, value_parser = longshore::duration::parse)]
    until_idle: Option<Duration>,
    #[arg(long, hide = true)]
    plant: Option<Plant>,
}

impl Work {
    /// Lives.
    pub fn run(self) -> ExitCode {
        let (collector, work) = (self.collector.clone(), self.clone());
        let order = if self.plant == Some(Plant::NoOrder) { Order::None } else { Order::ByKey };
        let handle = move |delivery: Delivery, effects: Res<Effects>| {
            let work = work.clone();
            async move { work.handle(delivery, effects).await }
        };
        let mut consumer = Consumer::new("note", self.source, handle)
            .concurrency(self.concurrency)
            .look_ahead(self.look_ahead)
            .order(order);
        if let Some(idle) = self.until_idle {
            consumer = consumer.until_idle(idle);
        }
        let app = App::new("ledger")
            .admin(AdminListen::Off)
            .stop_deadline(self.deadline)
            .resource("effects", move || Effects::open(collector.clone()))
            .consumer(consumer);
        let Some(plant @ (Plant::LingerAtTheEnd | Plant::WrongExit)) = self.plant else { return app.run() };
        let stopped = app.run_to_end().expect("an app that is right");
        stopped.print();
        if plant == Plant::LingerAtTheEnd {
            std::thread::sleep(self.deadline + LINGERS);
            return ExitCode::from(stopped.exit_code());
        }
        ExitCode::from(if stopped.exit_code() == 0 { 75 } else { 0 })
    }

    async fn handle(&self, delivery: Delivery, effects: Res<Effects>) -> Result<(), Failure> {
        let mut effect = self.effect_of(&delivery);
        let now_and_then = fastrand::u32(..NOW_AND_THEN) == 0;
        match self.plant {
            Some(Plant::AckBeforeHandler) => {
                let handler = self.handler;
                tokio::spawn(async move {
                    tokio::time::sleep(LATER).await;
                    handler.pass().await;
                    effects.report(effect).await
                });
                return Ok(());
            }
            Some(Plant::SkipEffect) if now_and_then => return Ok(()),
            Some(Plant::EffectTwice) if now_and_then => effects.report(effect).await?,
            Some(Plant::Damage) if now_and_then => effect.whole = false,
            _ => {}
        }
        self.handler.pass().await;
        // On record before this returns, and so before the message is acked.
        effects.report(effect).await
    }

    fn effect_of(&self, delivery: &Delivery) -> Effect {
        let (id, whole) = Id::of_payload(delivery.payload().unwrap_or_default());
        let head = delivery.message().head();
        Effect {
            id,
            attempt: delivery.attempt(),
            redelivered: head.attempts > 0 || head.unclean > 0,
            pid: std::process::id(),
            boot: self.boot,
            whole: whole && delivery.key() == Some(id.key_name().as_bytes()),
        }
    }
}

/// The bridge, as its command line says.
#[derive(Debug, Clone, Args)]
pub struct Carry {
    /// Where messages come from.
    source: String,
    /// Where they go.
    sink: String,
    /// Messages that may be on their way.
    #[arg(long, default_value_t = 256)]
    look_ahead: u32,
    /// The whole time of a stop.
    #[arg(long, default_value = "10s", value_parser = longshore::duration::parse)]
    deadline: Duration,
    /// End once nothing has come for so long.
    #[arg(long, value_parser = longshore::duration::parse)]
    until_idle: Option<Duration>,
}

impl Carry {
    /// Lives.
    pub fn run(self) -> ExitCode {
        let mut bridge = Bridge::new("carry", self.source, self.sink).look_ahead(self.look_ahead);
        if let Some(idle) = self.until_idle {
            bridge = bridge.until_idle(idle);
        }
        App::new("ledger").admin(AdminListen::Off).stop_deadline(self.deadline).bridge(bridge).run()
    }
}
