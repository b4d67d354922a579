//! Never more than was asked for.

use super::bench::{Bench, message, named};
use super::cases::{Tried, cases, check, same};
use super::got::{names_of, sorted_names};
use crate::message::Message;
use crate::transport::Ask;

cases! {
    no_more_messages_come_than_were_asked_for: [];
    what_is_asked_for_replaces_what_was_asked_before: [];
    no_more_bytes_come_than_were_asked_for: [BytesBounded];
    a_message_over_the_bytes_comes_alone: [BytesBounded];
    a_paused_source_delivers_nothing_and_settles_on: [];
}

async fn no_more_messages_come_than_were_asked_for(bench: &mut Bench) -> Tried {
    let place = bench.stocked(10).await?;
    let mut reader = bench.reader(&place).await?;
    reader.quiet().await?;
    same("delivered before anything was asked for", reader.got.len(), 0)?;
    for (ask, sum) in [(3, 3), (0, 3), (4, 7)] {
        reader.demand(ask);
        reader.until("what was asked for", |reader| reader.got.len() >= sum).await?;
        reader.quiet().await?;
        same("delivered", reader.got.len(), sum)?;
        // What is settled asks for nothing by itself.
        let got = reader.untaken();
        reader.settle(&got);
        reader.flush().await?;
        reader.quiet().await?;
        same("delivered after the settlement", reader.got.len(), sum)?;
    }
    reader.close().await.map(|_| ())
}

async fn what_is_asked_for_replaces_what_was_asked_before(bench: &mut Bench) -> Tried {
    let place = bench.stocked(10).await?;
    let mut reader = bench.reader(&place).await?;
    reader.demand(8);
    reader.demand(2);
    reader.until("what was asked for", |reader| reader.got.len() >= 2).await?;
    reader.quiet().await?;
    same("delivered", reader.got.len(), 2)?;
    reader.close().await.map(|_| ())
}

async fn no_more_bytes_come_than_were_asked_for(bench: &mut Bench) -> Tried {
    let place = bench.stocked(10).await?;
    let mut reader = bench.reader(&place).await?;
    let one = reader.take(1).await?;
    let bytes = one[0].size * 5 / 2;
    reader.tell(Ask::Demand { messages: 10, bytes });
    reader.until("what fits", |reader| reader.got.len() >= 3).await?;
    reader.quiet().await?;
    let sum: u64 = reader.untaken().iter().map(|got| got.size).sum();
    check(sum <= bytes, format_args!("{sum} bytes came, {bytes} were asked for"))?;
    reader.close().await.map(|_| ())
}

async fn a_message_over_the_bytes_comes_alone(bench: &mut Bench) -> Tried {
    let place = bench.place();
    let big = Message::new(format!(r#"{{"id":"big","key":"a","text":"{}"}}"#, "x".repeat(5_000))).with_key("a");
    bench.publish(&place, vec![message("m000", "a"), big, message("m001", "a")]).await?;
    let mut reader = bench.reader(&place).await?;
    let mut seen = Vec::new();
    // The messages have one key, so they come in order whatever the transport.
    for _ in 0..3 {
        reader.tell(Ask::Demand { messages: 10, bytes: 1_000 });
        let before = reader.got.len();
        reader.until("a message", |reader| reader.got.len() > before).await?;
        reader.quiet().await?;
        let got = reader.untaken();
        let alone = got.len() == 1 || got.iter().all(|got| got.name != "big");
        check(alone, format_args!("the big one came in company: {:?}", names_of(&got)))?;
        // What is left of the demand must not let the next one in before this one is looked at.
        reader.demand(0);
        reader.settle(&got);
        reader.flush().await?;
        seen.extend(names_of(&got));
        if seen.len() == 3 {
            break;
        }
    }
    same("what arrived", seen, ["m000", "big", "m001"].map(str::to_owned).to_vec())?;
    reader.close().await.map(|_| ())
}

async fn a_paused_source_delivers_nothing_and_settles_on(bench: &mut Bench) -> Tried {
    let place = bench.stocked(10).await?;
    let mut reader = bench.reader(&place).await?;
    let some = reader.take(3).await?;
    let before = reader.got.len();
    reader.demand(100);
    reader.tell(Ask::Pause(None));
    reader.settle(&some);
    reader.flush().await?;
    reader.counted(3, 0).await?;
    reader.quiet().await?;
    same("delivered while paused", reader.got.len() - before, 0)?;
    reader.tell(Ask::Resume(None));
    let others = reader.take(7).await?;
    same("what arrived", sorted_names(&[some, others.clone()].concat()), named(0..10))?;
    reader.settle(&others);
    reader.flush().await?;
    reader.close().await.map(|_| ())
}
