//! RabbitMQ: orders come in, confirmations go out, what fails for a moment is tried again, what cannot be done is kept
//! as dead letters.
//!
//! ```text
//!  place ────▶ shop.orders ────▶ confirm ────▶ shop.confirmations ────▶ tell
//!  service     queue             handler       queue                    handler
//!                                   └────────▶ shop.orders.dead ──────▶ bury
//!                                              queue                    handler
//! ```
//!
//!     docker compose up -d
//!     cargo run --example rabbitmq --features amqp
//!
//! Without Docker, with Debian's rabbitmq-server, the first is `export $(scripts/broker start shop)`. `AMQP_URL` says
//! where the broker is, unless it is amqp://guest:guest@localhost:5672.
//!
//! It takes some six seconds. Press Ctrl+C in the middle, or kill the broker: nothing is lost, and the next run goes on
//! with what is left.

use longshore::admin::AdminListen;
use longshore::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Orders that a run places.
const ORDERS: u64 = 200;
/// Slow enough that there is time to interrupt it.
const ORDERS_A_SECOND: f64 = 50.0;
/// Orders of one customer are confirmed one after the other, those of different ones at the same time.
const CUSTOMERS: u64 = 20;
/// Nothing came for so long: then everything is done.
const IDLE: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct Order {
    /// The run of this example that placed it.
    run: u64,
    id: u64,
    customer: String,
    product: String,
}

#[derive(Serialize, Deserialize)]
struct Confirmation {
    run: u64,
    id: u64,
    attempts: u32,
}

fn main() -> ExitCode {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@localhost:5672".to_owned());
    let queue = |name: &str| format!("{url}?queue=shop.{name}");
    // On a terminal the summary has the word, not a log line for every step. `LONGSHORE_LOG=info` brings them back.
    if std::io::stderr().is_terminal() && std::env::var_os("LONGSHORE_LOG").is_none() {
        let log = tracing_subscriber::fmt().with_env_filter("warn,lapin=off,longshore::app=info").with_target(false);
        log.without_time().with_writer(std::io::stderr).init();
    }
    App::from_env("shop")
        .admin(AdminListen::Off)
        .start_patience(Duration::from_secs(20))
        // Opened before every worker, and closed after every worker: then it says how the day was.
        .resource("day", || async { Ok::<_, BoxError>(Day::begin()) })
        // Queues that are absent are declared: durable, quorum, and so that a stop never costs a message its life.
        .producer(Producer::<Order>::new("orders", queue("orders")).key(|order| order.customer.clone()))
        .producer(Producer::<Value>::new("scribbles", queue("orders")))
        .producer(Producer::<Confirmation>::new("confirmations", queue("confirmations")))
        .service("place", place)
        .consumer(
            Consumer::new("confirm", queue("orders"), confirm)
                .concurrency(16)
                .rate(ORDERS_A_SECOND)
                // What is tried again waits here, and so do the later orders of that customer.
                .retry(Retry::exponential(Duration::from_millis(100), Duration::from_millis(400)).attempts(3))
                // An app stops when all its sources have ended. A worker of yours runs until it is told to stop.
                .until_idle(IDLE),
        )
        .consumer(Consumer::new("tell", queue("confirmations"), tell).until_idle(IDLE))
        // Beside every queue lie its dead letters.
        .consumer(Consumer::new("bury", queue("orders.dead"), bury).until_idle(IDLE))
        .run()
}

/// A service: a background task of ours. This one places the orders, and something that is none.
async fn place(
    orders: Publisher<Order>,
    scribbles: Publisher<Value>,
    day: Res<Day>,
    cx: Context,
) -> Result<(), Failure> {
    for id in 1..=ORDERS {
        let sent = if id == 42 {
            scribbles.publish(&json!({ "run": day.run, "id": id, "note": "the one as always, please" })).await
        } else {
            let product = if id % 70 == 7 { "unicorn" } else { "lamp" };
            let (customer, product) = (format!("customer-{}", id % CUSTOMERS), product.to_owned());
            orders.publish(&Order { run: day.run, id, customer, product }).await
        };
        match sent {
            // RabbitMQ has confirmed it: from here on it is not lost.
            Ok(()) => day.count().placed += 1,
            // No new work is taken while the app stops.
            Err(_) if cx.stopping() != Stopping::No => return Ok(()),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// A handler: an async function of what it needs. It never acks; what it returns says what becomes of the message.
async fn confirm(
    Json(order): Json<Order>,
    Attempt(attempt): Attempt,
    day: Res<Day>,
    confirmations: To<Confirmation>,
) -> Result<(), Failure> {
    if order.product == "unicorn" {
        // Permanent: a dead letter at once.
        return Err(Failure::reject("there are no unicorns in stock"));
    }
    if order.id % 12 == 5 && attempt == 1 || order.id == 100 {
        // Transient: tried again, and a dead letter after the last attempt. Any error by `?` is taken for transient.
        day.count().failed += 1;
        return Err(Failure::retry("the bank does not answer"));
    }
    // The order is acked when RabbitMQ has confirmed the confirmation, not before.
    confirmations.send(&Confirmation { run: order.run, id: order.id, attempts: attempt }).await
}

async fn tell(Json(confirmed): Json<Confirmation>, day: Res<Day>) {
    let mut counts = day.count();
    if confirmed.run != day.run {
        counts.earlier += 1;
        return;
    }
    counts.confirmed += 1;
    counts.later += u64::from(confirmed.attempts > 1);
}

/// A dead letter has the payload, key and headers of its message, and says why it is dead.
async fn bury(Raw(payload): Raw, headers: Headers, day: Res<Day>) {
    let say = |name: &str| headers.as_ref().text(name).unwrap_or("-").to_owned();
    let order: Value = serde_json::from_slice(&payload).unwrap_or_default();
    let mut counts = day.count();
    if order["run"] != day.run {
        counts.earlier += 1;
        return;
    }
    let why = format!("{}, attempt {}: {}", say("longshore-reason"), say("longshore-attempts"), say("longshore-error"));
    counts.dead.insert(order["id"].as_u64().unwrap_or_default(), why);
}

/// What one run of this example has seen.
struct Day {
    run: u64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    placed: u64,
    /// Attempts that failed for a moment.
    failed: u64,
    confirmed: u64,
    later: u64,
    dead: BTreeMap<u64, String>,
    earlier: u64,
}

impl Day {
    fn begin() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { run: now.as_millis().try_into().unwrap_or(u64::MAX), counts: Mutex::default() }
    }

    fn count(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nobody panics while counting")
    }
}

impl Resource for Day {
    async fn close(&self) -> Result<(), BoxError> {
        let counts = self.count();
        let dead = counts.dead.len() as u64;
        let undone = counts.placed.saturating_sub(counts.confirmed + dead);
        say(format_args!("orders in         {:>4}", counts.placed));
        say(format_args!("confirmed         {:>4}   {} of them in a later attempt", counts.confirmed, counts.later));
        say(format_args!("failed attempts   {:>4}   \"the bank does not answer\"", counts.failed));
        say(format_args!("dead letters      {dead:>4}"));
        for (id, why) in &counts.dead {
            say(format_args!("  order {id:>3}: {why}"));
        }
        if counts.earlier > 0 {
            say(format_args!("of an earlier run {:>4}   it was interrupted, and now they are done", counts.earlier));
        }
        match undone {
            0 => say("nothing is left in the queues shop.*"),
            _ => say(format_args!("left in RabbitMQ  {undone:>4}   the next run goes on with them")),
        }
        Ok(())
    }
}

/// A line on stdout. `println!` would panic when nobody reads any more.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
