//! What is not settled comes again: after a failure, without a word, and after a crash.

use super::bench::{Bench, named};
use super::cases::{Tried, cases, check, same};
use super::got::sorted_names;

use super::reader::Reader;
use crate::transport::{Ask, DeliveryCount, Verdict};
use std::time::Duration;

cases! {
    what_is_given_back_comes_again: [GivesBack];
    what_was_not_settled_comes_again_after_a_close: [Keeps];
    what_was_not_settled_comes_again_after_a_crash: [Keeps];
    what_is_retried_comes_again_with_its_attempts: [Delayed];
    a_retry_waits_its_delay_and_holds_nobody_up: [Delayed];
    a_retry_outlives_a_crash: [Delayed, Durable];
    errors_then_success_is_one_success: [Delayed];
    a_delivery_count_is_never_too_low: [DeliveryCount, Keeps];
    a_message_that_outlives_two_owners_is_a_suspect: [Poison];
    an_orderly_end_makes_no_suspect: [Poison, GivesBack];
    a_mark_outlives_a_crash: [Poison];
}

/// How much a clock that counts whole milliseconds may seem to be early.
const CLOCK_GRAIN: Duration = Duration::from_millis(2);

async fn what_is_given_back_comes_again(bench: &mut Bench) -> Tried {
    let place = bench.stocked(6).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(6).await?;
    reader.give_back(&all[2..4]);
    let again = reader.take(2).await?;
    same("what came again", sorted_names(&again), sorted_names(&all[2..4]))?;
    reader.settle(&[&all[..2], &again, &all[4..]].concat());
    reader.flush().await?;
    reader.counted(6, 0).await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn what_was_not_settled_comes_again_after_a_close(bench: &mut Bench) -> Tried {
    let place = bench.stocked(6).await?;
    let mut reader = bench.reader(&place).await?;
    reader.take(4).await?;
    reader.close().await?;
    bench.left(&place, &named(0..6)).await
}

async fn what_was_not_settled_comes_again_after_a_crash(bench: &mut Bench) -> Tried {
    let place = bench.stocked(6).await?;
    let mut reader = bench.reader(&place).await?;
    reader.take(4).await?;
    bench.crash(reader).await?;
    bench.left(&place, &named(0..6)).await
}

/// Takes one message and tells it to come again.
async fn retried(reader: &mut Reader, after: Duration, attempts: u32) -> Tried<Vec<super::got::Got>> {
    let one = reader.take(1).await?;
    reader.settle_as(&one, Verdict::Retry { after, attempts });
    Ok(one)
}

async fn what_is_retried_comes_again_with_its_attempts(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    let mut reader = bench.reader(&place).await?;
    let first = retried(&mut reader, Duration::ZERO, 3).await?;
    same("attempts of the first delivery", first[0].attempts, 0)?;
    let again = reader.take(1).await?;
    same("attempts of the second delivery", again[0].attempts, 3)?;
    reader.settle(&again);
    reader.counted(2, 0).await?;
    same("retried and acked", (reader.proven.retried, reader.proven.acked), (1, 1))?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn a_retry_waits_its_delay_and_holds_nobody_up(bench: &mut Bench) -> Tried {
    let place = bench.stocked(2).await?;
    let mut reader = bench.reader(&place).await?;
    let delay = Duration::from_millis(300);
    let told = tokio::time::Instant::now();
    let first = retried(&mut reader, delay, 1).await?;
    let all = reader.take(2).await?;
    check(all[0].name != first[0].name, "the other message waited for the one that is retried")?;
    same("what came last", &all[1].name, &first[0].name)?;
    let waited = all[1].when - told;
    check(waited + CLOCK_GRAIN >= delay, format_args!("it came after {waited:?} and not after {delay:?}"))?;
    reader.settle(&all);
    reader.flush().await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn a_retry_outlives_a_crash(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    let mut reader = bench.reader(&place).await?;
    retried(&mut reader, Duration::from_millis(50), 2).await?;
    reader.flush().await?;
    bench.crash(reader).await?;
    let mut heir = bench.reader(&place).await?;
    let again = heir.take(1).await?;
    check(again[0].attempts >= 2, format_args!("{} attempts are left of 2", again[0].attempts))?;
    heir.settle(&again);
    heir.close().await?;
    bench.left(&place, &[]).await
}

async fn errors_then_success_is_one_success(bench: &mut Bench) -> Tried {
    let place = bench.stocked(5).await?;
    let mut reader = bench.reader(&place).await?;
    for attempts in 1..=2 {
        let all = reader.take(5).await?;
        let names = sorted_names(&all);
        same("what came", names, named(0..5))?;
        reader.settle_as(&all, Verdict::Retry { after: Duration::from_millis(5), attempts });
    }
    let all = reader.take(5).await?;
    reader.settle(&all);
    reader.counted(15, 0).await?;
    same("retried and acked", (reader.proven.retried, reader.proven.acked), (10, 5))?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn a_delivery_count_is_never_too_low(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    for starts in 0..3 {
        let mut reader = bench.reader(&place).await?;
        let got = reader.take(1).await?;
        check(got[0].attempts >= starts, format_args!("{} attempts after {starts} starts", got[0].attempts))?;
        bench.crash(reader).await?;
    }
    Ok(())
}

async fn a_message_that_outlives_two_owners_is_a_suspect(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    for deaths in 0..3 {
        let mut reader = bench.reader(&place).await?;
        let got = reader.take(1).await?;
        check(got[0].unclean >= deaths, format_args!("unclean is {} after {deaths} deaths", got[0].unclean))?;
        if bench.source.delivery_count == DeliveryCount::Exact {
            same("attempts, none of them marked", got[0].attempts, 0)?;
        }
        bench.crash(reader).await?;
    }
    Ok(())
}

async fn an_orderly_end_makes_no_suspect(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    for _ in 0..3 {
        let mut reader = bench.reader(&place).await?;
        for _ in 0..2 {
            let got = reader.take(1).await?;
            same("unclean", got[0].unclean, 0)?;
            reader.give_back(&got);
        }
        reader.take(1).await?;
        reader.close().await?;
    }
    Ok(())
}

async fn a_mark_outlives_a_crash(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    for marks in 0..3 {
        let mut reader = bench.reader(&place).await?;
        let got = reader.take(1).await?;
        check(got[0].attempts >= marks, format_args!("{} attempts after {marks} marks", got[0].attempts))?;
        if bench.source.delivery_count == DeliveryCount::Exact {
            same("attempts, each of them marked", got[0].attempts, marks)?;
        }
        let at = got[0].at;
        reader.tell(Ask::Mark(at));
        reader.until("the mark", |reader| reader.marked.contains(&at)).await?;
        bench.crash(reader).await?;
    }
    Ok(())
}
