//! `longshore consume`: messages out of a source, as lines.

use crate::ending::Ending;
use crate::flow::Flow;
use crate::place::file_url;
use longshore::Bridge;

const EXAMPLES: &str = "\
Takes the messages: each is acked once its line is written, on the disk where it is a file. To
count them without taking any there is 'longshore inspect'.

Examples:
  longshore consume 'local:orders.db?queue=orders&group=me' --until-idle 1s
  longshore consume 'local:orders.db?queue=orders&group=me' --limit 10 | jq .id
  longshore consume 'local:orders.db?queue=orders&group=all' -o 'file:all.ndjson?format=record'";

/// Take messages off a source and write them as lines.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// URL that messages are taken from
    source: String,
    /// Path or file: URL that lines are appended to; - is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-", value_parser = file_url, hide_default_value = true)]
    output: String,
    #[command(flatten)]
    flow: Flow,
}

/// Runs it.
pub fn run(args: Args) -> Ending {
    let bridge = args.flow.set(Bridge::new("consume", &args.source, &args.output));
    args.flow.run(bridge, &args.source, &args.output)
}
