//! Parts by themselves, with criterion: `cargo bench --bench parts`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use longshore::message::{Headers, Message, SlabBuilder, key_hash};
use longshore::transport::{KeyFrom, Url};
use std::hint::black_box;

fn slabs(c: &mut Criterion) {
    let mut group = c.benchmark_group("slab");
    group.throughput(Throughput::Elements(256));
    let message = Message::new(vec![b'x'; 256]).with_key("customer-1");
    group.bench_function("build 256", |b| {
        b.iter_batched(
            || SlabBuilder::with_capacity(256, 256 * 280),
            |mut slab| {
                for _ in 0..256 {
                    slab.push_message(&message);
                }
                slab.finish("in".into())
            },
            BatchSize::SmallInput,
        );
    });
    let mut slab = SlabBuilder::new();
    for _ in 0..256 {
        slab.push_message(&message);
    }
    let slab = slab.finish("in".into());
    group.bench_function("copy one out", |b| b.iter(|| black_box(&slab).only(17)));
    group.finish();
}

fn keys(c: &mut Criterion) {
    c.bench_function("key hash of 12 bytes", |b| b.iter(|| key_hash(black_box(b"customer-123"))));
    let headers = Headers::default();
    let payload = br#"{"id":7,"customer":{"name":"ann","city":"Ulm"},"lines":[1,2,3]}"#;
    let pointer = KeyFrom::parse(Some("/customer/name")).expect("a pointer");
    c.bench_function("key by JSON pointer", |b| {
        b.iter(|| pointer.find(None, None, headers.as_ref(), Some(black_box(payload))).map(|key| key.len()));
    });
    c.bench_function("parse a URL", |b| {
        b.iter(|| Url::parse(black_box("amqp://shop:secret@h1:5672,h2/orders?queue=a&key=/customer")));
    });
}

criterion_group!(benches, slabs, keys);
criterion_main!(benches);
