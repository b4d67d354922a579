//! Handlers that wait, handlers that compute, and what is kept in memory meanwhile.

use crate::measure::{self, Lap, Scenario, Stopwatch};
use longshore::message::SlabBuilder;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "cpu_bound",
            goal: ">= 1.9 x one lane on two cores; bare is one at a time",
            run: Box::new(|| cpu_bound(64)),
            bare: Some(Box::new(|| cpu_bound(1))),
        },
        Scenario {
            name: "by_key",
            goal: ">= 30 x one at a time at concurrency 64; bare is one at a time, a tenth of it",
            run: Box::new(|| by_key(64, 10_000)),
            bare: Some(Box::new(|| by_key(1, 1_000))),
        },
        Scenario { name: "rss_slow_handler", goal: "RSS <= 150 MB and flat", run: Box::new(slow_handler), bare: None },
        Scenario {
            name: "rss_stuck_key",
            goal: "RSS <= 2 x the byte budget of 64 MiB",
            run: Box::new(stuck_key),
            bare: None,
        },
    ]
}

fn lap<B: longshore::handler::Bind>(count: u64, keys: usize, consumer: Consumer<B>) -> Lap {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let memory = Memory::new();
    let app = App::new("bench").transport(memory.clone()).consumer(consumer);
    let lap = runtime.block_on(async {
        let mut running = app.stop_deadline(Duration::from_secs(600)).start(runtime.handle()).await.expect("it starts");
        assert!(running.ready().await);
        let watch = Stopwatch::start();
        crate::memory::publish(&memory, count, keys, b"x").await;
        running.stop();
        let stopped = running.wait().await;
        let lap = watch.stop(count);
        assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
        lap
    });
    runtime.shutdown_background();
    lap
}

/// 1 ms of CPU a message.
fn cpu_bound(concurrency: u32) -> Lap {
    let handler = || async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
    };
    lap(2_000, 1_000, Consumer::new("handle", "memory:in", handler).concurrency(concurrency))
}

/// 0 to 5 ms of waiting a message.
fn by_key(concurrency: u32, count: u64) -> Lap {
    let turn = std::sync::Arc::new(AtomicU64::new(0));
    let handler = move || {
        let wait = turn.fetch_add(7_919, Ordering::Relaxed) % 5_001;
        async move { tokio::time::sleep(Duration::from_micros(wait)).await }
    };
    lap(count, 1_000, Consumer::new("handle", "memory:in", handler).concurrency(concurrency))
}

/// A million messages wait in a file-backed queue while handlers take their time.
fn slow_handler() -> Lap {
    const COUNT: u64 = 1_000_000;
    let dir = tempfile::tempdir_in(".").expect("a folder on this disk");
    let url = format!("local:{}?queue=in&group=g", dir.path().join("in.db").display());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lap = runtime.block_on(async {
        let memory = Memory::new();
        let fill = App::new("fill")
            .transport(memory.clone())
            .bridge(Bridge::new("fill", "memory:in", url.clone()).order(Order::None).look_ahead(8_192));
        let mut filling = fill.start(runtime.handle()).await.expect("it starts");
        assert!(filling.ready().await);
        crate::memory::publish(&memory, COUNT, 1_000, &[b'x'; 256]).await;
        filling.stop();
        assert_eq!(filling.wait().await.exit_code(), 0);
        drop(memory);
        measure::reset_peak();
        let handler = || async { tokio::time::sleep(Duration::from_millis(20)).await };
        let app = App::new("slow").consumer(Consumer::new("handle", url, handler).concurrency(64));
        let mut running = app.start(runtime.handle()).await.expect("it starts");
        assert!(running.ready().await);
        let watch = Stopwatch::start();
        let mut seen = Vec::new();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            seen.push(measure::now_mb());
        }
        let settled = running.progress().settled;
        println!("  RSS every 2 s: {seen:.0?} MB, peak {:.0} MB, {settled} settled", measure::peak_mb());
        running.stop();
        let stopped = running.wait().await;
        assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
        watch.stop(settled.max(1))
    });
    runtime.shutdown_background();
    lap
}

/// One key never ends, and has one message in each batch: it must not keep the batches.
fn stuck_key() -> Lap {
    const BATCHES: u64 = 1_500;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lap = runtime.block_on(async {
        let memory = Memory::new();
        let handler = |delivery: Delivery| {
            let stuck = delivery.key() == Some(b"stuck");
            async move {
                if stuck {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            }
        };
        let app = App::new("stuck")
            .transport(memory.clone())
            .stop_deadline(Duration::from_millis(500))
            .consumer(Consumer::new("handle", "memory:in?bytes=256000000", handler).concurrency(64));
        let mut running = app.start(runtime.handle()).await.expect("it starts");
        assert!(running.ready().await);
        measure::reset_peak();
        let before = measure::now_mb();
        let watch = Stopwatch::start();
        for batch in 0..BATCHES {
            let mut slab = SlabBuilder::with_capacity(256, 256 * 1_100);
            for n in 0..256u64 {
                let key = if n == 0 { "stuck".to_owned() } else { format!("{}", batch * 256 + n) };
                slab.push(Some(key.as_bytes()), Some(&[b'x'; 1_024]), Default::default(), None);
            }
            memory.publish_batch("in", slab).await.expect("it is published");
        }
        while running.progress().settled < (BATCHES - 8) * 255 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!(
            "  {:.0} MB passed, RSS {before:.0} MB before, peak {:.0} MB",
            (BATCHES * 256) as f64 / 1e3,
            measure::peak_mb()
        );
        running.stop();
        running.wait().await;
        watch.stop(BATCHES * 256)
    });
    runtime.shutdown_background();
    lap
}
