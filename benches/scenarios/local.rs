//! The embedded queue: published, handled and settled durably, beside a bare loop of the same statements.

use crate::measure::{Lap, Scenario, Stopwatch};
use longshore::prelude::*;
use longshore::transport::local::statements::{self as sql, QueueStatements};
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const COUNT: u64 = 200_000;
const BATCH: u64 = 256;
const PAYLOAD: usize = 256;
const KEYS: u64 = 1_000;

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "local_publish_handle_settle",
        goal: ">= 0.7 x bare rusqlite at batch 256",
        run: Box::new(ours),
        bare: Some(Box::new(bare)),
    }]
}

fn key(n: u64) -> String {
    format!("customer-{}", n % KEYS)
}

/// A bridge from memory publishes into the store, a consumer takes it out again, at the same time.
fn ours() -> Lap {
    let dir = tempfile::tempdir_in(".").expect("a folder on this disk");
    let url = format!("local:{}?queue=orders&group=ship", dir.path().join("orders.db").display());
    let memory = longshore::transport::memory::Memory::new();
    let handled = Arc::new(AtomicU64::new(0));
    let done = Arc::new(tokio::sync::Notify::new());
    let (counts, rings) = (handled.clone(), done.clone());
    let handler = move |Raw(payload): Raw| {
        std::hint::black_box(&payload);
        if counts.fetch_add(1, Ordering::Relaxed) + 1 == COUNT {
            rings.notify_one();
        }
        async {}
    };
    let app = App::new("bench")
        .transport(memory.clone())
        .bridge(Bridge::new("publish", "memory:in", url.clone()).order(Order::None).look_ahead(8_192))
        .consumer(Consumer::new("handle", url, handler).concurrency(64).look_ahead(4_096));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lap = runtime.block_on(async {
        let mut running = app.start(runtime.handle()).await.expect("it starts");
        assert!(running.ready().await);
        let watch = Stopwatch::start();
        crate::memory::publish(&memory, COUNT, KEYS as usize, &[b'x'; PAYLOAD]).await;
        done.notified().await;
        running.stop();
        let stopped = running.wait().await;
        let lap = watch.stop(COUNT);
        assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
        lap
    });
    runtime.shutdown_background();
    lap
}

/// The same statements in the same transactions, one after the other: insert a batch, claim it, settle it.
fn bare() -> Lap {
    let dir = tempfile::tempdir_in(".").expect("a folder on this disk");
    let path = dir.path().join("orders.db");
    prepare(&path);
    let db = Connection::open(&path).expect("it opens");
    db.execute_batch(sql::CONNECTION).expect("settings");
    let statements = QueueStatements::of(1);
    let payload = [b'x'; PAYLOAD];
    let watch = Stopwatch::start();
    let mut next = 1u64;
    while next <= COUNT {
        let last = (next + BATCH - 1).min(COUNT);
        let (first, end) = (next as i64, last as i64);
        db.execute_batch("BEGIN IMMEDIATE").expect("begin");
        {
            let mut insert = db.prepare_cached(&statements.insert).expect("insert");
            for id in next..=last {
                let key = key(id);
                insert
                    .execute(params![id as i64, key.as_bytes(), payload.as_slice(), None::<Vec<u8>>, None::<i64>, 0])
                    .expect("a row");
            }
            db.prepare_cached(sql::SET_NEXT).expect("next").execute([1, end + 1]).expect("next");
        }
        db.execute_batch("COMMIT").expect("commit");

        db.execute_batch(sql::NORMAL).expect("claims need not wait for the disk");
        db.execute_batch("BEGIN IMMEDIATE").expect("begin");
        {
            let mut fresh = db.prepare_cached(&statements.fresh).expect("fresh");
            let mut rows = fresh.query(params![first - 1, i64::MAX]).expect("rows");
            let mut read = 0;
            while let Some(row) = rows.next().expect("a row") {
                std::hint::black_box(row.get_ref(8).expect("a payload").as_blob().expect("bytes"));
                read += 1;
            }
            assert_eq!(read, last - next + 1);
            db.prepare_cached(sql::SET_CURSOR).expect("cursor").execute([1, end]).expect("cursor");
            let open = vec![0u8; (last - next + 1).div_ceil(8) as usize];
            db.prepare_cached(sql::ADD_RANGE).expect("range").execute(params![1, first, end, 1, open]).expect("range");
        }
        db.execute_batch("COMMIT").expect("commit");

        db.execute_batch(sql::FULL).expect("settlements wait for the disk");
        db.execute_batch("BEGIN IMMEDIATE").expect("begin");
        db.prepare_cached(sql::REMOVE_RANGE).expect("range").execute([1, first]).expect("range");
        db.prepare_cached(&statements.delete).expect("delete").execute([first, end]).expect("rows");
        db.execute_batch("COMMIT").expect("commit");
        next = last + 1;
    }
    watch.stop(COUNT)
}

fn prepare(path: &Path) {
    let db = Connection::open(path).expect("it opens");
    db.execute_batch("PRAGMA journal_mode = WAL").expect("write-ahead log");
    for step in sql::STEPS {
        db.execute_batch(step).expect("schema");
    }
    db.execute(sql::ADD_QUEUE, ["orders"]).expect("queue");
    db.execute(sql::ADD_GROUP, params![1, "ship"]).expect("group");
    db.execute(sql::ADD_OWNER, params!["bench", "boot", 0, 30_000]).expect("owner");
    db.execute_batch(&sql::create_table(1)).expect("table");
}
