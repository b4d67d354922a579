//! The command line of the quickstart.

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Orders through a durable queue: interrupt it, start it again, and nothing is lost.

usage: quickstart [--store PATH] [--orders N] [--forever] [--reset]

  --store PATH   where the queues are kept (./quickstart.db); the ledger lies beside it
  --orders N     orders of a new run (1000)
  --forever      places orders until it is stopped
  --reset        forgets the store and the ledger first

example: quickstart --store /tmp/orders.db --orders 200
";

#[derive(Clone)]
pub struct Options {
    pub store: PathBuf,
    pub orders: u32,
    pub forever: bool,
    pub reset: bool,
}

impl Options {
    /// Reads the command line; or the exit code, where there is nothing to do but to end.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, ExitCode> {
        let mut options = Self { store: "quickstart.db".into(), orders: 1_000, forever: false, reset: false };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--store" => options.store = args.next().ok_or_else(|| wrong("--store needs a path"))?.into(),
                "--orders" => {
                    let number = args.next().and_then(|number| number.parse().ok());
                    options.orders = number.ok_or_else(|| wrong("--orders needs a number"))?;
                }
                "--forever" => options.forever = true,
                "--reset" => options.reset = true,
                "--help" | "-h" => {
                    print!("{HELP}");
                    return Err(ExitCode::SUCCESS);
                }
                other => return Err(wrong(&format!("unknown option '{other}'"))),
            }
        }
        options.store = std::path::absolute(&options.store).map_err(|error| wrong(&format!("--store: {error}")))?;
        Ok(options)
    }

    /// The URL of a queue in the store.
    pub fn url(&self, queue: &str) -> String {
        // What a URL gives a meaning of its own.
        let path = self.store.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('$', "%24");
        format!("local:{path}?queue={queue}&group=quickstart")
    }

    pub fn ledger(&self) -> PathBuf {
        let mut path = self.store.clone().into_os_string();
        path.push(".ledger");
        path.into()
    }
}

fn wrong(what: &str) -> ExitCode {
    eprintln!("error: {what}\n\n{HELP}");
    ExitCode::from(64)
}
