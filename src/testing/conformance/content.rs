//! What a message carries comes out as it went in.

use super::bench::{Bench, message};
use super::cases::{Tried, cases, same};
use crate::message::Message;
use crate::transport::OVERSIZED_HEADER;

cases! {
    a_payload_comes_back_byte_for_byte: [];
    any_bytes_come_back_as_they_were: [AnyBytes];
    keys_come_back_and_absent_ones_stay_absent: [Keys];
    headers_come_back_in_order_with_repeats_and_any_value: [Headers];
    a_tombstone_is_not_an_empty_payload: [Tombstones, EmptyPayloads, Keys];
    a_timestamp_comes_back: [Timestamps];
    a_payload_over_the_limit_comes_empty_and_marked: [];
}

/// The messages as they come out; these cases publish few and let order be.
async fn through(bench: &mut Bench, messages: Vec<Message>) -> Tried<Vec<Message>> {
    let (place, count) = (bench.place(), messages.len());
    bench.publish(&place, messages).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(count).await?;
    reader.settle(&all);
    reader.close().await?;
    Ok(all.into_iter().map(|got| got.message).collect())
}

/// One message as it comes out.
async fn one_through(bench: &mut Bench, message: Message) -> Tried<Message> {
    Ok(through(bench, vec![message]).await?.remove(0))
}

async fn a_payload_comes_back_byte_for_byte(bench: &mut Bench) -> Tried {
    // Spaces, an escape, more than one buffer's worth, and an order of fields that no reprinting would keep.
    let payload = format!(r#"{{ "z": "{}" ,"a":1.0e1, "key":"a","é":"\u00e9"}}"#, "x".repeat(200_000));
    let back = one_through(bench, Message::new(payload.clone()).with_key("a")).await?;
    same("its length", back.payload.as_ref().map(|bytes| bytes.len()), Some(payload.len()))?;
    super::cases::check(back.payload.as_deref() == Some(payload.as_bytes()), "its bytes differ")
}

async fn any_bytes_come_back_as_they_were(bench: &mut Bench) -> Tried {
    let every: Vec<u8> = (0..=255).collect();
    let back = one_through(bench, Message::new(every.clone()).with_key(every.clone())).await?;
    same("payload", back.payload.as_deref(), Some(&every[..]))?;
    let key = bench.subject.carries.keys.then_some(&every[..]);
    same("key", back.key.as_deref(), key)
}

async fn keys_come_back_and_absent_ones_stay_absent(bench: &mut Bench) -> Tried {
    let back = one_through(bench, message("m000", "customer-7")).await?;
    same("key", back.key.as_deref(), Some(&b"customer-7"[..]))?;
    let back = one_through(bench, Message::new(r#"{"id":"m001"}"#)).await?;
    same("key of a message without", back.key, None)
}

async fn headers_come_back_in_order_with_repeats_and_any_value(bench: &mut Bench) -> Tried {
    let headers: [(&str, &[u8]); 6] =
        [("b", b"1"), ("a", b"\x00\xff\r\n"), ("b", b"2"), ("empty", b""), ("traceparent", b"00-4b"), ("b", b"1")];
    let mut sent = message("m000", "a");
    headers.iter().for_each(|(name, value)| sent.headers.push(name, value));
    let back = one_through(bench, sent).await?;
    // A transport may add headers of its own, named as ours are.
    let ours: Vec<_> = back.headers.iter().filter(|(name, _)| !name.starts_with("longshore-")).collect();
    same("headers", ours, headers.to_vec())
}

async fn a_tombstone_is_not_an_empty_payload(bench: &mut Bench) -> Tried {
    let back = one_through(bench, Message::tombstone("a")).await?;
    same("key and payload of a tombstone", (back.key.as_deref(), back.payload.as_deref()), (Some(&b"a"[..]), None))?;
    let back = one_through(bench, Message::new("").with_key("a")).await?;
    same("an empty payload", back.payload.as_deref(), Some(&b""[..]))
}

async fn a_timestamp_comes_back(bench: &mut Bench) -> Tried {
    let made = Some(1_700_000_000_123);
    let back = one_through(bench, Message { timestamp_ms: made, ..message("m000", "a") }).await?;
    same("timestamp", back.timestamp_ms, made)
}

async fn a_payload_over_the_limit_comes_empty_and_marked(bench: &mut Bench) -> Tried {
    let place = bench.place();
    let fits = message("fits", "a");
    let limit = fits.payload.as_ref().map_or(0, |payload| payload.len());
    let over = Message::new(format!(r#"{{"id":"over","key":"a","text":"{}"}}"#, "x".repeat(200))).with_key("a");
    let size = over.payload.as_ref().map_or(0, |payload| payload.len());
    bench.publish(&place, vec![fits.clone(), over]).await?;
    let mut spec = bench.spec();
    spec.max_message = limit as u64;
    let mut reader = bench.reader_as(&place, super::bench::GROUP, &spec).await?;
    let all = reader.take(2).await?;
    reader.settle(&all);
    reader.close().await?;
    for got in all {
        let mark = got.message.headers.as_ref().text(OVERSIZED_HEADER).map(str::to_owned);
        if got.name == "fits" {
            same("the payload at the limit", got.message.payload, fits.payload.clone())?;
            same("the mark at the limit", mark, None)?;
        } else {
            same("the payload over the limit", got.message.payload.unwrap_or_default().len(), 0)?;
            same("the mark over the limit", mark, Some(size.to_string()))?;
        }
    }
    Ok(())
}
