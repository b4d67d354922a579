//! Longshore on RabbitMQ beside bare lapin and RustStream.
//!
//! ```sh
//! cargo run --release --manifest-path benches/rabbitmq/Cargo.toml -- [CASE …] \
//!     [--rounds 5] [--messages 100000] [--types quorum,classic] [--url amqp://…] [--through amqps://…]
//!     [--only CONTENDER,…]
//! ```
//!
//! Without a case all of them: consume, publish, bridge. Without `--url` it starts a broker by `scripts/broker`, and
//! stops it. With `--through` the contenders connect to it by that URL: for what TLS costs, with `SSL_CERT_FILE` naming
//! the authority of its certificate.
//!
//! In each round all contenders run one after the other, each in a process of its own with two worker threads, on a
//! queue of its own; a ratio is that of two laps of the same round. Messages of 256 bytes, persistent, in durable
//! queues; a window of 1,000 unacked deliveries or unconfirmed messages.

mod case;
mod contender;
mod lap;
mod node;
mod payload;
mod queue;
mod report;
mod run;

use case::Case;
use contender::Result;
use node::Node;
use queue::{QueueType, Queues};
use report::Laps;
use run::{FROM, TO, Task};

struct Options {
    cases: Vec<Case>,
    rounds: usize,
    messages: u64,
    kinds: Vec<QueueType>,
    url: Option<String>,
    through: Option<String>,
    only: Option<Vec<String>>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let kinds = vec![QueueType::Quorum, QueueType::Classic];
        let (cases, url, through, only) = (Vec::new(), None, None, None);
        let mut options = Self { cases, rounds: 5, messages: 100_000, kinds, url, through, only };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--messages" => options.messages = value()?.parse()?,
                "--types" => {
                    options.kinds = value()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?
                }
                "--url" => options.url = Some(value()?),
                "--through" => options.through = Some(value()?),
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                case => options.cases.push(case.parse()?),
            }
        }
        if options.cases.is_empty() {
            options.cases.extend(Case::ALL);
        }
        if options.rounds == 0 || options.messages == 0 {
            return Err("at least one round of one message".into());
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("--lap").is_some() {
        return run::contend(Task::parse(arguments)?);
    }
    let options = Options::parse(arguments)?;
    let node = match &options.url {
        Some(url) => Node::at(url.clone()),
        None => Node::start()?,
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(compare(&node.url, &options))
}

async fn compare(url: &str, options: &Options) -> Result<()> {
    let queues = Queues::open(url).await?;
    for case in &options.cases {
        for kind in &options.kinds {
            println!("{case}, {kind} queue: {} rounds of {} messages", options.rounds, options.messages);
            report::print(&rounds(&queues, url, *case, *kind, options).await?);
        }
    }
    queues.remove(FROM).await?;
    queues.remove(TO).await?;
    Ok(())
}

async fn rounds(queues: &Queues, url: &str, case: Case, kind: QueueType, options: &Options) -> Result<Vec<Laps>> {
    let takes_part = |name: &&&str| options.only.as_ref().is_none_or(|only| only.iter().any(|each| each == **name));
    let mut all: Vec<Laps> = case
        .contenders()
        .iter()
        .filter(takes_part)
        .map(|&contender| Laps { contender, laps: Vec::with_capacity(options.rounds) })
        .collect();
    for _ in 0..options.rounds {
        for Laps { contender, laps } in &mut all {
            let (url, messages) = (options.through.as_deref().unwrap_or(url).to_owned(), options.messages);
            let task = Task { case, contender: (*contender).to_owned(), url, kind, messages };
            laps.push(run::round(queues, &task).await.map_err(|error| format!("{contender}: {error}"))?);
        }
    }
    Ok(all)
}
