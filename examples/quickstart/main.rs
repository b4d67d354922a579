//! The quickstart: orders lie in a durable queue, worker actors ring them up, receipts go out by a second queue.
//!
//! ```text
//!  place ────▶ orders ────▶ ring-up ────▶ receipts ────▶ mail        watch
//!  service     queue        4 tills       queue          handler     service: stops the app when all is done
//!              └───────── one file: quickstart.db ────┘
//!                     everyone notes in the ledger, a resource, what they did
//! ```
//!
//! Run it. Press Ctrl+C in the middle, or `kill -9` it, and run it again: no order is lost, and it says so.

mod ledger;
mod options;

use ledger::{Books, Ledger};
use longshore::admin::AdminListen;
use longshore::message::{Headers, ID_HEADER};
use longshore::prelude::*;
use options::Options;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};

/// Orders that may be with the tills and unsettled: what a `kill -9` can make them do twice, at most.
const WINDOW: u32 = 64;
/// Customers; the orders of one customer are rung up one after the other.
const CUSTOMERS: u32 = 50;

#[derive(Serialize, Deserialize)]
struct NewOrder {
    /// The run of this example that it belongs to.
    run: u64,
    id: u32,
    customer: u32,
    cents: u64,
}

#[derive(Serialize, Deserialize)]
struct Receipt {
    run: u64,
    id: u32,
    customer: u32,
    /// All that this customer has bought in this run.
    total_cents: u64,
}

fn main() -> ExitCode {
    let options = match Options::from_args(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(code) => return code,
    };
    // On a terminal the ledger has the word, not a log line for every step. `LONGSHORE_LOG=info` brings them back.
    if std::io::stderr().is_terminal() && std::env::var_os("LONGSHORE_LOG").is_none() {
        let log = tracing_subscriber::fmt().with_env_filter("warn,longshore::app=info").with_target(false);
        log.without_time().with_writer(std::io::stderr).init();
    }
    say(format_args!("store: {}", options.store.display()));
    // Building an app opens nothing and starts nothing.
    let mut app = App::from_env("quickstart")
        .admin(AdminListen::Off)
        .resource("ledger", {
            let options = options.clone();
            move || open_ledger(options.clone())
        })
        .producer(Producer::<NewOrder>::new("orders", options.url("orders")).key(|order| order.customer.to_string()))
        // Without `key`, a receipt inherits the key of the order that caused it.
        .producer(Producer::<Receipt>::new("receipts", options.url("receipts")))
        .service("place", place)
        .consumer(
            Consumer::worker("ring-up", options.url("orders"), Till::open)
                .instances(4)
                .look_ahead(WINDOW)
                // Slow enough that there is time to interrupt it.
                .rate(100.0),
        )
        .consumer(Consumer::new("mail", options.url("receipts"), mail));
    if !options.forever {
        app = app.service("watch", watch);
    }
    // Blocks until everything is done, or until a signal: then what has started is finished, and nothing else begun.
    let stopped = match app.run_to_end() {
        Ok(stopped) => stopped,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    stopped.print();
    let books = match Books::read(&options) {
        Ok(books) => books,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    say(&books);
    say(match books.is_finished() {
        true => "next: run it again, and press Ctrl+C in the middle (or: kill -9 it)",
        false => "next: run it again, and it goes on where it stopped",
    });
    if books.lost() > 0 { ExitCode::FAILURE } else { ExitCode::from(stopped.exit_code()) }
}

/// A resource is opened before every worker and closed after every worker.
async fn open_ledger(options: Options) -> Result<Ledger, BoxError> {
    let (ledger, before) = Ledger::open(&options).await?;
    if let Some(before) = before {
        say(format_args!("resuming: {}", before.standing()));
    }
    Ok(ledger)
}

/// A service: a background task of ours. This one places the orders.
async fn place(orders: Publisher<NewOrder>, ledger: Res<Ledger>, cx: Context) -> Result<(), Failure> {
    for id in ledger.not_yet_sent() {
        let order = NewOrder { run: ledger.run(), id, customer: id % CUSTOMERS, cents: 100 + u64::from(id % 900) };
        // With an id of our own the queue takes a second send for done: we may die before we note the first one.
        let sent = orders.publish_with(&order, &same_id(order.run, id)).await;
        match sent {
            // It is on disk now.
            Ok(()) => ledger.sent(id)?,
            // No new work is taken while the app stops. The next start sends the rest.
            Err(_) if cx.stopping() != Stopping::No => return Ok(()),
            Err(failure) => return Err(failure),
        }
        if ledger.is_endless() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// A worker actor: each of the four has some of the customers to itself, and handles one order at a time.
struct Till {
    totals: HashMap<u32, u64>,
    ledger: Res<Ledger>,
}

impl Till {
    /// Makes a till: at the start, and anew after a panic. State that can be lost comes from where it is kept.
    async fn open(ledger: Res<Ledger>) -> Result<Self, BoxError> {
        Ok(Self { totals: ledger.totals()?, ledger })
    }
}

impl Worker for Till {
    type Input = (Json<NewOrder>, To<Receipt>);

    async fn handle(&mut self, (Json(order), receipts): Self::Input, _: &Context) -> Outcome {
        // The card terminal takes its time.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let total = self.totals.entry(order.customer).or_default();
        // Delivery is at least once: after a crash an order may come again. The ledger knows it: nobody pays twice.
        if self.ledger.handled(&order)? {
            *total += order.cents;
        }
        let NewOrder { run, id, customer, .. } = order;
        let receipt = Receipt { run, id, customer, total_cents: *total };
        // The order is acked when the receipt is on disk, not before.
        receipts.send_with(&receipt, &same_id(run, id)).await
    }
}

/// A handler: an async function of what it needs.
async fn mail(Json(receipt): Json<Receipt>, ledger: Res<Ledger>) -> Result<(), Failure> {
    ledger.mailed(&receipt)?;
    Ok(())
}

/// Says how far it is, and asks the app to stop when every order is handled and every receipt mailed.
async fn watch(ledger: Res<Ledger>, cx: Context) -> Result<(), Failure> {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = cx.until(Stopping::Draining) => return Ok(()),
            () = ledger.all_done() => {
                cx.request_stop();
                return Ok(());
            }
            _ = every.tick() => say(ledger.progress()),
        }
    }
}

fn same_id(run: u64, id: u32) -> Headers {
    Headers::from_iter([(ID_HEADER, format!("{run}-{id}"))])
}

/// A line on stdout. `println!` would panic when nobody reads any more.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
