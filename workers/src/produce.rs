//! `longshore produce`: lines into a sink.

use crate::ending::Ending;
use crate::flow::Flow;
use crate::place::file_url;
use longshore::Bridge;

const EXAMPLES: &str = "\
Each line is a payload and has to be JSON. A line that is none goes to FILE.dead with its number;
on standard input, which has no such place, it ends the command with 65. A FILE is read from its
start each time, unless a group remembers the place.

Examples:
  longshore produce 'local:orders.db?queue=orders' orders.ndjson
  longshore produce 'local:orders.db?queue=orders' 'file:orders.ndjson?key=/id&group=once'
  tail -F app.ndjson | longshore produce 'local:logs.db?queue=logs' 'file:-?key=/host'";

/// Send lines of a file or of standard input to a sink.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// URL that messages go to
    sink: String,
    /// Path or file: URL of the lines; - is standard input
    #[arg(default_value = "-", value_parser = file_url, hide_default_value = true)]
    file: String,
    #[command(flatten)]
    flow: Flow,
}

/// Runs it.
pub fn run(args: Args) -> Ending {
    let bridge = args.flow.set(Bridge::new("produce", &args.file, &args.sink));
    args.flow.run(bridge, &args.file, &args.sink)
}
