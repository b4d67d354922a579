//! Handlers: async functions of what they need of a message.
//!
//!     cargo run --example handlers

use longshore::admin::AdminListen;
use longshore::prelude::*;
use serde::{Deserialize, Serialize};
use tower::util::MapErrLayer;

#[derive(Serialize, Deserialize)]
struct NewOrder {
    id: u32,
    customer: String,
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct Invoice {
    order: u32,
    cents: i64,
}

/// Up to eight extractors, in any order. What it sends by `To` is confirmed before its message is acked.
async fn bill(
    Json(order): Json<NewOrder>,
    Attempt(attempt): Attempt,
    cx: Context,
    invoices: To<Invoice>,
) -> Result<(), Failure> {
    println!("{}: order {} of {}, attempt {attempt}", cx.worker(), order.id, order.customer);
    // Permanent: trying again cannot help. A plain error, such as that of a `?`, is tried again.
    let cents = u32::try_from(order.cents).map_err(Failure::reject)?;
    invoices.send(&Invoice { order: order.id, cents: i64::from(cents) }).await
}

/// The bytes as they are, and the key, which the invoice has inherited from its order. Returning nothing is an ack.
async fn archive(Raw(bytes): Raw, key: Key) {
    println!("archive: {} for {}", String::from_utf8_lossy(&bytes), key.text().unwrap_or("nobody"));
}

async fn place(orders: Publisher<NewOrder>) -> Result<(), Failure> {
    for (id, (customer, cents)) in (1..).zip([("ada", 1_200), ("bob", 300), ("ada", -5), ("bob", 80)]) {
        orders.publish(&NewOrder { id, customer: customer.to_owned(), cents }).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    App::from_env("handlers")
        .admin(AdminListen::Off)
        .producer(Producer::<NewOrder>::new("orders", "memory:orders").key(|order| order.customer.clone()))
        .producer(Producer::<Invoice>::new("invoices", "memory:invoices"))
        .service("place", place)
        .consumer(
            Consumer::new("bill", "memory:orders", bill)
                .limit(4) // so that the example ends: an app stops when all its sources have ended
                .concurrency(8) // handlers at a time; orders of one customer still come one after the other
                .timeout(Duration::from_secs(2))
                // A tower layer, inside the ack boundary: what it returns is settled. Here, a failure is not kept.
                .layer(MapErrLayer::new(|error: BoxError| {
                    let failure = Failure::from(error);
                    println!("bill: dropped: {failure}");
                    Failure::discard(failure.chain()).into_error()
                })),
        )
        .consumer(Consumer::new("archive", "memory:invoices", archive).limit(3))
        .run()
}
