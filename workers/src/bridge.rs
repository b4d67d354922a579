//! `longshore bridge`: from any source to any sink.

use crate::ending::Ending;
use crate::flow::{Flow, warn_of_passwords};
use crate::place::dead_letter_url;
use longshore::Bridge;

const EXAMPLES: &str = "\
Every message is acked at the source once the sink has confirmed it; key, headers and time go
along, and messages of one key keep their order. Stopped and started again it goes on where it was.

Examples:
  longshore bridge 'file:in.ndjson?key=/id&group=in' 'local:orders.db?queue=orders'
  longshore bridge 'local:orders.db?queue=orders&group=copy' 'file:orders.ndjson?format=record' --rate 100";

/// Take every message of a source to a sink.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// URL that messages are taken from
    source: String,
    /// URL that they go to
    sink: String,
    #[command(flatten)]
    flow: Flow,
    /// Messages that wait for room in the sink at a time [default: 16]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Where what cannot be taken over goes, instead of the source's own dead-letter place
    #[arg(long, value_name = "URL")]
    dead_letter: Option<String>,
}

/// Runs it.
pub fn run(args: Args) -> Ending {
    let mut bridge = args.flow.set(Bridge::new("bridge", &args.source, &args.sink));
    if let Some(concurrency) = args.concurrency {
        bridge = bridge.concurrency(concurrency);
    }
    if let Some(place) = args.dead_letter {
        warn_of_passwords([place.as_str()]);
        bridge = bridge.dead_letter(dead_letter_url(&place));
    }
    args.flow.run(bridge, &args.source, &args.sink)
}
