//! What is published arrives: once, everywhere it should, and nowhere else.

use super::bench::{Bench, GROUP, message, named};
use super::cases::{Stop, Tried, cases, check, same};
use super::got::{names_of, sorted_names};
use super::reader::share;
use crate::failure::Tally;

cases! {
    what_is_published_arrives_once: [];
    what_is_published_to_an_open_source_arrives: [LivesOn];
    several_queues_do_not_mix: [];
    consumers_of_a_group_share_its_messages: [Shared];
    groups_each_see_every_message: [Groups];
    a_new_subscriber_sees_old_messages: [Replays];
    a_finite_source_ends_once_and_after_its_last_message: [Finite];
    an_empty_finite_source_ends: [Finite];
    a_dropped_wait_of_a_source_loses_and_doubles_nothing: [];
}

async fn what_is_published_arrives_once(bench: &mut Bench) -> Tried {
    let place = bench.stocked(20).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(20).await?;
    same("what arrived", sorted_names(&all), named(0..20))?;
    reader.settle(&all);
    reader.flush().await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn what_is_published_to_an_open_source_arrives(bench: &mut Bench) -> Tried {
    let place = bench.stocked(0).await?;
    let mut reader = bench.reader(&place).await?;
    reader.demand(3);
    // In a task of its own and told nothing more: the source itself must wake it.
    let waiting = tokio::spawn(async move {
        let arrived = reader.until("what is published meanwhile", |reader| reader.got.len() >= 3).await;
        arrived.map(|()| reader)
    });
    // It waits by now, in all likelihood. If not, the case only sees less.
    tokio::time::sleep(bench.subject.quiet).await;
    bench.stock(&place, 0..3).await?;
    let mut reader = waiting.await.map_err(|panic| Stop::Fault(panic.to_string()))??;
    let all = reader.untaken();
    same("what arrived", sorted_names(&all), named(0..3))?;
    reader.settle(&all);
    reader.close().await.map(|_| ())
}

async fn several_queues_do_not_mix(bench: &mut Bench) -> Tried {
    let (one, other) = (bench.place(), bench.place());
    bench.stock(&one, 0..5).await?;
    bench.stock(&other, 5..10).await?;
    bench.left(&one, &named(0..5)).await?;
    bench.left(&other, &named(5..10)).await
}

async fn consumers_of_a_group_share_its_messages(bench: &mut Bench) -> Tried {
    let place = bench.stocked(20).await?;
    let mut one = bench.reader(&place).await?;
    let mut other = one.alongside(bench.reader(&place)).await?;
    one.demand(10);
    other.demand(10);
    if bench.source.partitions {
        // Who owns which partition is the broker's affair: one of them may own them all.
        one.demand(20);
        other.demand(20);
    }
    share(&mut one, &mut other, 20).await?;
    let (ones, others) = (one.untaken(), other.untaken());
    let mut names = [names_of(&ones), names_of(&others)].concat();
    names.sort();
    same("what arrived at the two", names, named(0..20))?;
    one.settle(&ones);
    other.settle(&others);
    one.alongside(other.flush()).await?;
    other.alongside(one.flush()).await?;
    one.alongside(other.close()).await?;
    one.close().await?;
    bench.left(&place, &[]).await
}

async fn groups_each_see_every_message(bench: &mut Bench) -> Tried {
    let place = bench.place();
    bench.subscribe(&place, "audit").await?;
    bench.stock(&place, 0..6).await?;
    let mut crew = bench.reader_as(&place, GROUP, &bench.spec()).await?;
    let mut audit = bench.reader_as(&place, "audit", &bench.spec()).await?;
    for reader in [&mut crew, &mut audit] {
        let all = reader.take(6).await?;
        same("what a group saw", sorted_names(&all), named(0..6))?;
        reader.settle(&all);
        reader.flush().await?;
        reader.close().await?;
    }
    bench.left(&place, &[]).await
}

async fn a_new_subscriber_sees_old_messages(bench: &mut Bench) -> Tried {
    let place = bench.place();
    // No source has ever been here.
    let mut writer = bench.writer(&place).await?;
    writer.publish(named(0..4).iter().map(|name| message(name, "a")).collect()).await?;
    writer.close().await?;
    bench.left(&place, &named(0..4)).await
}

async fn a_finite_source_ends_once_and_after_its_last_message(bench: &mut Bench) -> Tried {
    let place = bench.stocked(5).await?;
    let mut reader = bench.reader(&place).await?;
    let some = reader.take(3).await?;
    reader.settle(&some);
    reader.flush().await?;
    reader.quiet().await?;
    same("times that it ended while two had not been delivered", reader.ended, 0)?;
    let others = reader.take(2).await?;
    reader.settle(&others);
    reader.until("the end", |reader| reader.ended > 0).await?;
    reader.demand(10);
    reader.flush().await?;
    reader.quiet().await?;
    same("times that it ended", reader.ended, 1)?;
    check(reader.untaken().is_empty(), "something came after the end")?;
    reader.counted(5, 0).await?;
    same("what was open at the close", reader.close().await?, (0, Tally::default()))
}

async fn an_empty_finite_source_ends(bench: &mut Bench) -> Tried {
    let place = bench.stocked(0).await?;
    let mut reader = bench.reader(&place).await?;
    reader.demand(10);
    reader.until("the end", |reader| reader.ended > 0).await?;
    reader.close().await.map(|_| ())
}

async fn a_dropped_wait_of_a_source_loses_and_doubles_nothing(bench: &mut Bench) -> Tried {
    let place = bench.stocked(20).await?;
    let mut reader = bench.reader(&place).await?;
    let mut rng = fastrand::Rng::with_seed(20);
    let limit = tokio::time::Instant::now() + bench.subject.patience;
    let mut all = Vec::new();
    while all.len() < 20 {
        let in_time = tokio::time::Instant::now() < limit;
        check(in_time, format_args!("after {:?} there were {:?}", bench.subject.patience, names_of(&all)))?;
        reader.demand(1);
        // The engine drops its wait whenever a handler ends: mostly at once, seldom at leisure.
        reader.glance(rng.u32(1..4)).await?;
        let got = reader.untaken();
        reader.settle(&got);
        reader.glance(rng.u32(1..4)).await?;
        all.extend(got);
        tokio::time::sleep(std::time::Duration::from_micros(rng.u64(0..300))).await;
        let late = reader.untaken();
        reader.settle(&late);
        all.extend(late);
    }
    same("what arrived", sorted_names(&all), named(0..20))?;
    reader.flush().await?;
    reader.counted(20, 0).await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}
