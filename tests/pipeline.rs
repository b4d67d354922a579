//! Whole apps on in-process queues: what a user writes, from publish to report.

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

#[derive(Serialize, Deserialize)]
struct Order_ {
    id: u32,
}

#[derive(Serialize, Deserialize)]
struct Shipped {
    id: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_received_handled_sent_on_and_settled() {
    let memory = Memory::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    async fn ship(Json(order): Json<Order_>, shipped: To<Shipped>) -> Result<(), Failure> {
        shipped.send(&Shipped { id: order.id }).await
    }
    let mut app = App::new("orders")
        .transport(memory.clone())
        .producer(Producer::<Shipped>::new("shipped", "memory:shipped"))
        .consumer(Consumer::new("ship", "memory:orders", ship))
        .consumer(Consumer::new("note", "memory:shipped", move |Json(shipped): Json<Shipped>| {
            let into = into.clone();
            async move { into.lock().unwrap().push(shipped.id) }
        }))
        .start(&Handle::current())
        .await
        .unwrap();
    assert!(app.ready().await);
    let orders = (0..1_000).map(|id| Message::new(format!("{{\"id\":{id}}}")).with_key(format!("{}", id % 10)));
    memory.publish("orders", orders).await.unwrap();
    app.stop();
    let stopped = app.wait().await;
    println!("{}", stopped.table());
    assert_eq!(stopped.exit_code(), 0);
    let mut ids = seen.lock().unwrap().clone();
    ids.sort_unstable();
    assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
    assert_eq!(stopped.report()["total"]["acked"], 2_000);
    assert_eq!(stopped.report()["total"]["unaccounted"], 0);
}
