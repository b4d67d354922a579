//! What is said of an app that is asked whether it is ready.

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Notify;

#[tokio::test]
async fn a_worker_that_says_so_is_not_ready_until_it_takes_that_back() {
    let (memory, said) = (Memory::new(), Arc::new(Notify::new()));
    let tells = said.clone();
    let ship = move |Raw(payload): Raw, cx: Context| {
        let tells = tells.clone();
        async move {
            match &*payload {
                b"full" => cx.report_not_ready("the warehouse is full"),
                _ => cx.report_ready(),
            }
            tells.notify_one();
        }
    };
    let app = App::new("orders").transport(memory.clone()).consumer(Consumer::new("ship", "memory:orders", ship));
    let mut running = app.start(&Handle::current()).await.unwrap();
    assert!(running.ready().await);
    memory.publish("orders", [Message::new("full")]).await.unwrap();
    said.notified().await;
    let readiness = running.readiness();
    assert_eq!((readiness.status, readiness.accepting_traffic), ("not_ready", false));
    assert!(readiness.reasons[0].contains("ship") && readiness.reasons[0].contains("the warehouse is full"));
    memory.publish("orders", [Message::new("empty")]).await.unwrap();
    said.notified().await;
    assert_eq!(running.readiness().status, "ready");
    running.stop();
    assert_eq!(running.wait().await.exit_code(), 0);
}
