//! What a sink must do with what it is sent.

use super::bench::{Bench, message, named};
use super::cases::{Tried, cases, check, same};
use super::writer::Writer;
use crate::error::ErrorKind;
use crate::message::Message;

cases! {
    an_unknown_option_is_refused_by_its_name: [];
    every_message_is_confirmed_once: [];
    a_confirmed_message_outlives_its_sink: [Keeps];
    a_flush_waits_for_every_confirm: [];
    a_closing_sink_stores_and_confirms_what_it_was_sent: [];
    a_sink_that_drains_stores_what_it_was_sent: [];
    a_dropped_wait_of_a_sink_loses_no_confirm: [];
    an_id_that_waits_or_is_in_flight_is_stored_once: [Ids, Headers];
}

/// Ten messages and a sink that they can be sent to.
async fn ten(bench: &mut Bench) -> Tried<(super::Place, Writer, Vec<Message>)> {
    // Also makes the group known where it has to be.
    let place = bench.stocked(0).await?;
    let writer = bench.writer(&place).await?;
    Ok((place, writer, named(0..10).iter().map(|name| message(name, "a")).collect()))
}

async fn an_unknown_option_is_refused_by_its_name(bench: &mut Bench) -> Tried {
    let place = bench.place().with_nonsense("no-such-option");
    let source = bench.subject.transport.source(&place.source("crew")?, &bench.spec()).map(|_| ());
    let sink = bench.subject.transport.sink(&place.sink()?, &bench.sink_spec()).map(|_| ());
    for (end, planned) in [("source", source), ("sink", sink)] {
        match planned {
            Ok(()) => check(false, format_args!("the {end} takes an option that does not exist"))?,
            Err(error) => {
                same(format_args!("what the {end} calls it"), error.kind(), ErrorKind::Configuration)?;
                let text = error.to_string();
                check(text.contains("no-such-option"), format_args!("the {end} does not name the option: {text}"))?;
            }
        }
    }
    Ok(())
}

async fn every_message_is_confirmed_once(bench: &mut Bench) -> Tried {
    let (_, mut writer, messages) = ten(bench).await?;
    for part in messages.chunks(3) {
        writer.publish(part.to_vec()).await?;
    }
    same("unconfirmed at the close", writer.close().await?, 0)?;
    writer.all_confirmed_once()
}

async fn a_confirmed_message_outlives_its_sink(bench: &mut Bench) -> Tried {
    let (place, mut writer, messages) = ten(bench).await?;
    writer.publish(messages).await?;
    // No close and no further word: whatever was to be stored is stored.
    drop(writer);
    bench.left(&place, &named(0..10)).await
}

async fn a_flush_waits_for_every_confirm(bench: &mut Bench) -> Tried {
    let (_, mut writer, messages) = ten(bench).await?;
    writer.send(messages).await?;
    same("unconfirmed at the flush", writer.flush().await?, 0)?;
    writer.all_confirmed_once()?;
    writer.close().await?;
    Ok(())
}

async fn a_closing_sink_stores_and_confirms_what_it_was_sent(bench: &mut Bench) -> Tried {
    let (place, mut writer, messages) = ten(bench).await?;
    writer.send(messages).await?;
    same("unconfirmed at the close", writer.close().await?, 0)?;
    writer.all_confirmed_once()?;
    bench.left(&place, &named(0..10)).await
}

async fn a_sink_that_drains_stores_what_it_was_sent(bench: &mut Bench) -> Tried {
    let (place, mut writer, messages) = ten(bench).await?;
    writer.send(messages).await?;
    writer.stop_intake();
    same("unconfirmed at the flush", writer.flush().await?, 0)?;
    same("unconfirmed at the close", writer.close().await?, 0)?;
    writer.all_confirmed_once()?;
    bench.left(&place, &named(0..10)).await
}

async fn a_dropped_wait_of_a_sink_loses_no_confirm(bench: &mut Bench) -> Tried {
    let (place, mut writer, messages) = ten(bench).await?;
    for one in messages {
        writer.send(vec![one]).await?;
        for polls in [1, 2, 1, 3] {
            writer.glance(polls).await?;
        }
    }
    writer.until("every confirm", |writer| writer.confirmed() == 10).await?;
    writer.all_confirmed_once()?;
    writer.close().await?;
    bench.left(&place, &named(0..10)).await
}

async fn an_id_that_waits_or_is_in_flight_is_stored_once(bench: &mut Bench) -> Tried {
    let place = bench.place();
    let known = || message("m000", "a").with_id("order-17");
    bench.publish(&place, vec![known(), known()]).await?;
    bench.publish(&place, vec![known()]).await?;
    let mut reader = bench.reader(&place).await?;
    let one = reader.take(1).await?;
    bench.publish(&place, vec![known()]).await?;
    reader.settle(&one);
    reader.flush().await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}
