//! The programs under test. Each is what a user would write: an app, and `run`.

use crate::support::{Life, given, say};
use longshore::prelude::*;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

pub const ALL: [Life; 13] = [
    ("works", works),
    ("blocks", blocks),
    ("leaks a thread", leaks_a_thread),
    ("leaks tasks", leaks_tasks),
    ("hangs at close", hangs_at_close),
    ("fails at close", fails_at_close),
    ("closes slowly", closes_slowly),
    ("starts slowly", starts_slowly),
    ("is all wrong", is_all_wrong),
    ("cannot open", cannot_open),
    ("keeps dying", keeps_dying),
    ("reads lines", reads_lines),
    ("has secrets", has_secrets),
];

#[derive(Deserialize)]
struct Line {
    n: u64,
}

#[derive(Serialize)]
struct Shipped {
    n: u64,
}

/// Says when it is opened and closed; one type each, since resources are told apart by it.
struct Db;
struct Cache;
struct Pool;

type Opened<T> = Result<T, Infallible>;

fn closed<T>(name: &'static str) -> impl FnOnce(std::sync::Arc<T>) -> std::future::Ready<Result<(), BoxError>> {
    move |_| {
        say(format_args!("closed {name}"));
        std::future::ready(Ok(()))
    }
}

async fn db() -> Opened<Db> {
    say("opened db");
    Ok(Db)
}

fn app() -> App {
    App::from_env("orders").resource_with("db", db, closed("db"))
}

/// Handles a message in `HANDLE_MS`.
fn works() -> ExitCode {
    let handling = Duration::from_millis(given("HANDLE_MS").parse().expect("a number"));
    let ship = move |Json(line): Json<Line>, _db: Res<Db>| async move {
        say(format_args!("started {}", line.n));
        tokio::time::sleep(handling).await;
        say(format_args!("finished {}", line.n));
    };
    app().consumer(Consumer::new("ship", given("SOURCE"), ship).concurrency(64)).run()
}

/// Its handlers keep every thread of the runtime.
fn blocks() -> ExitCode {
    async fn ship() {
        say("blocked");
        for _ in 0..64 {
            tokio::spawn(async {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
        loop {
            std::hint::spin_loop();
        }
    }
    app().consumer(Consumer::new("ship", given("SOURCE"), ship)).run()
}

async fn idle() {}

fn leaks_a_thread() -> ExitCode {
    async fn leak() -> Opened<Cache> {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        Ok(Cache)
    }
    app().resource_with("cache", leak, closed("cache")).consumer(Consumer::new("ship", "memory:orders", idle)).run()
}

fn leaks_tasks() -> ExitCode {
    async fn leak() -> Opened<Cache> {
        tokio::spawn(tokio::time::sleep(Duration::from_secs(3_600)));
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(3_600)));
        Ok(Cache)
    }
    app().resource_with("cache", leak, closed("cache")).consumer(Consumer::new("ship", "memory:orders", idle)).run()
}

async fn cache() -> Opened<Cache> {
    say("opened cache");
    Ok(Cache)
}

async fn pool() -> Opened<Pool> {
    say("opened pool");
    Ok(Pool)
}

/// The second of three resources closes like this.
fn three(
    close: impl FnOnce(std::sync::Arc<Cache>) -> longshore::transport::BoxFuture<'static, Result<(), BoxError>>
    + Send
    + 'static,
) -> ExitCode {
    app()
        .resource_with("cache", cache, close)
        .resource_with("pool", pool, closed("pool"))
        .consumer(Consumer::new("ship", "memory:orders", idle))
        .run()
}

fn hangs_at_close() -> ExitCode {
    three(|_| Box::pin(std::future::pending()))
}

fn fails_at_close() -> ExitCode {
    three(|_| Box::pin(async { Err("disk gone".into()) }))
}

fn closes_slowly() -> ExitCode {
    three(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(2_300)).await;
            Ok(())
        })
    })
}

fn starts_slowly() -> ExitCode {
    async fn slow_cache() -> Opened<Cache> {
        tokio::time::sleep(Duration::from_millis(400)).await;
        cache().await
    }
    async fn slow_pool() -> Opened<Pool> {
        tokio::time::sleep(Duration::from_millis(400)).await;
        pool().await
    }
    async fn ship(Json(line): Json<Line>, shipped: To<Shipped>) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        shipped.send(&Shipped { n: line.n }).await
    }
    let out = given("OUT");
    app()
        .resource_with("cache", slow_cache, closed("cache"))
        .resource_with("pool", slow_pool, closed("pool"))
        .producer(Producer::<Shipped>::new("shipped", &*out))
        .consumer(Consumer::new("ship", given("SOURCE"), ship))
        .bridge(Bridge::new("archive", out, "memory:archive"))
        .run()
}

fn is_all_wrong() -> ExitCode {
    struct Nowhere;
    async fn lost(_: To<Shipped>) {}
    async fn homeless(_: Res<Nowhere>) {}
    App::from_env("orders")
        .consumer(Consumer::new("ship", "memory:orders", idle))
        .consumer(Consumer::new("ship", "memory:returns", idle))
        .consumer(Consumer::new("pack", "memory:packed", lost))
        .consumer(Consumer::new("bill", "memory:bills", homeless))
        .consumer(Consumer::new("count", "lokal:orders.db?queue=q", idle))
        .consumer(Consumer::new("weigh", "memory:scales?capacity=0", idle).concurrency(0))
        .consumer(Consumer::new("mark", "memory:marks?capcity=5", idle))
        .run()
}

fn cannot_open() -> ExitCode {
    async fn refused() -> Result<Cache, BoxError> {
        Err("no such host".into())
    }
    app().resource_with("cache", refused, closed("cache")).consumer(Consumer::new("ship", "memory:orders", idle)).run()
}

fn keeps_dying() -> ExitCode {
    async fn dies() -> Result<(), BoxError> {
        say("died");
        Err("socket gone".into())
    }
    app().service("watch", dies).consumer(Consumer::new("ship", "memory:orders", idle)).run()
}

fn reads_lines() -> ExitCode {
    async fn ship(Json(line): Json<Line>) {
        say(format_args!("started {}", line.n));
    }
    app().consumer(Consumer::new("ship", given("SOURCE"), ship)).run()
}

/// Every place where a URL may stand has the one of the environment.
fn has_secrets() -> ExitCode {
    async fn send(_: To<Shipped>) {}
    let url = given("URL");
    app()
        .producer(Producer::<Shipped>::new("shipped", &*url))
        .consumer(Consumer::new("ship", &*url, send))
        .consumer(Consumer::new("pack", "memory:packed", idle).dead_letter(&*url))
        .bridge(Bridge::new("archive", &*url, &*url))
        .run()
}
