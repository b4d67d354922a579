use super::*;
use crate::message::ID_HEADER;
use crate::transport::OVERSIZED_HEADER;

struct Room {
    _folder: tempfile::TempDir,
    path: PathBuf,
    local: Local,
}

fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    Room { path: folder.path().join("store.db"), _folder: folder, local: Local::default() }
}

impl Room {
    fn url(&self, options: &str) -> Url {
        url(&self.path, &format!("queue=orders{options}"))
    }

    async fn publish(&self, messages: impl IntoIterator<Item = Message>) {
        assert_eq!(publish(&self.local, &self.url(""), messages).await, 0);
    }

    async fn reader(&self, options: &str) -> Reader {
        Reader::open(&self.local, &self.url(options), &spec()).await
    }

    async fn inspect(&self, group: &str) -> (u64, u64, u64, u64) {
        let seen = self.local.inspect(&self.url(""), group).await.unwrap();
        assert_eq!(seen.lag, Some(seen.waiting.unwrap() + seen.delayed.unwrap() + seen.in_flight.unwrap()));
        (seen.waiting.unwrap(), seen.delayed.unwrap(), seen.in_flight.unwrap(), seen.dead.unwrap())
    }
}

#[tokio::test]
async fn messages_come_whole_and_in_order() {
    let room = room();
    let sent: Vec<Message> = vec![
        Message {
            timestamp_ms: Some(7),
            ..Message::new("one").with_key("k").with_header("a", "1").with_header("a", "2")
        },
        Message::tombstone("gone"),
        Message::new(""),
    ];
    room.publish(sent.clone()).await;
    let mut reader = room.reader("").await;
    let got = reader.take(3).await;
    assert_eq!(got.iter().map(|(_, message)| message.clone()).collect::<Vec<_>>(), sent);
    assert!(got.is_sorted_by_key(|(at, _)| at.position));
}

#[tokio::test]
async fn a_settled_message_never_comes_again_and_its_row_is_gone() {
    let room = room();
    room.publish(numbered(0..10)).await;
    let mut reader = room.reader("").await;
    let got = reader.take(10).await;
    reader.settle(ats(&got[..4]), Verdict::Acked);
    reader.settle(ats(&got[6..8]), Verdict::Discarded);
    let (proven, stale) = reader.flush().await;
    assert_eq!((proven, stale), (Tally { acked: 4, discarded: 2, ..Tally::default() }, Tally::default()));
    assert_eq!(room.inspect("app").await, (0, 0, 4, 0));
    assert_eq!(reader.close().await, (4, Tally::default()));
    assert_eq!(room.inspect("app").await, (4, 0, 0, 0));
    let mut reader = room.reader("").await;
    assert_eq!(texts(&reader.take(4).await), ["4", "5", "8", "9"]);
    let mut shelf = room.local.shelf(&room.url("")).await.unwrap();
    assert_eq!(shelf.read(100).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_settlement_told_twice_counts_once() {
    let room = room();
    room.publish(numbered(0..1)).await;
    let mut reader = room.reader("").await;
    let got = ats(&reader.take(1).await);
    reader.settle([got[0], got[0]], Verdict::Acked);
    assert_eq!(reader.flush().await, (acked(1), acked(1)));
    reader.settle(got, Verdict::Acked);
    assert_eq!(reader.flush().await, (Tally::default(), acked(1)));
}

#[tokio::test]
async fn what_is_given_back_comes_again_in_its_old_order_before_the_rest() {
    let room = room();
    room.publish(numbered(0..8)).await;
    let mut reader = room.reader("").await;
    let got = ats(&reader.take(4).await);
    reader.source.tell(Ask::Return(vec![got[3], got[1]]));
    reader.flush().await;
    assert_eq!(texts(&reader.take(6).await), ["1", "3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn a_delayed_retry_waits_and_carries_its_attempts() {
    let room = room();
    room.publish(numbered(0..2)).await;
    let mut reader = room.reader("").await;
    let got = ats(&reader.take(2).await);
    reader.settle([got[0]], Verdict::Retry { after: Duration::from_secs(3600), attempts: 1 });
    reader.settle([got[1]], Verdict::Retry { after: Duration::from_millis(30), attempts: 4 });
    let (proven, _) = reader.flush().await;
    assert_eq!(proven, Tally { retried: 2, ..Tally::default() });
    reader.source.tell(Ask::Demand { messages: 5, bytes: 1 << 20 });
    let again = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert_eq!((again.len(), again.heads()[0].at, again.heads()[0].attempts), (1, got[1], 4));
    reader.source.tell(Ask::Measure);
    let backlog = reader.wait(|event| if let Event::Measured(backlog) = event { Some(backlog) } else { None }).await;
    assert_eq!((backlog.waiting, backlog.delayed), (Some(0), Some(1)));
    reader.close().await;
    assert_eq!(room.inspect("app").await, (1, 1, 0, 0));
}

#[tokio::test]
async fn a_mark_is_counted_before_it_is_said_and_survives_a_crash() {
    let room = room();
    room.publish(numbered(0..1)).await;
    let mut reader = room.reader("").await;
    let at = reader.take(1).await[0].0;
    reader.source.tell(Ask::Mark(at));
    let marked = reader.wait(|event| if let Event::Marked(at) = event { Some(at) } else { None }).await;
    assert_eq!(marked, at);
    drop(reader);
    let mut reader = room.reader("").await;
    reader.source.tell(Ask::Demand { messages: 5, bytes: 1 << 20 });
    let again = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert_eq!((again.heads()[0].attempts, again.heads()[0].unclean), (1, 1));
    reader.settle([again.heads()[0].at], Verdict::Acked);
    assert_eq!(reader.flush().await.0, acked(1));
    assert_eq!(room.inspect("app").await, (0, 0, 0, 0));
}

#[tokio::test]
async fn a_source_that_is_dropped_gives_up_its_claims_at_once_and_that_is_counted() {
    let room = room();
    room.publish(numbered(0..3)).await;
    for unclean in 0..3 {
        let mut reader = room.reader("").await;
        reader.source.tell(Ask::Demand { messages: 5, bytes: 1 << 20 });
        let slab = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
        assert!(slab.heads().iter().all(|head| head.unclean == unclean), "{:?}", slab.heads());
    }
}

#[tokio::test]
async fn every_group_sees_every_message_and_the_last_to_settle_deletes_it() {
    let room = room();
    room.publish(numbered(0..4)).await;
    let mut a = room.reader("&group=a").await;
    let mut b = room.reader("&group=b").await;
    let of_a = a.take(4).await;
    a.settle(ats(&of_a), Verdict::Acked);
    a.flush().await;
    let mut c = room.reader("&group=c").await;
    assert_eq!(texts(&c.take(4).await), ["0", "1", "2", "3"], "a new group starts at the earliest");
    c.close().await;
    let of_b = b.take(4).await;
    b.settle(ats(&of_b[1..]), Verdict::Acked);
    b.flush().await;
    let mut c = room.reader("&group=c").await;
    let of_c = c.take(4).await;
    c.settle(ats(&of_c[..3]), Verdict::Acked);
    c.flush().await;
    let mut shelf = room.local.shelf(&room.url("")).await.unwrap();
    let left: Vec<_> = shelf.read(10).await.unwrap().iter().map(|one| one.payload().unwrap().to_vec()).collect();
    assert_eq!(left, [b"0", b"3"], "0 is unsettled in b, 3 in c");
    assert_eq!(room.inspect("a").await, (0, 0, 0, 0));
}

#[tokio::test]
async fn retention_keeps_what_is_settled_and_a_shorter_one_lets_it_go() {
    let room = room();
    publish(&room.local, &room.url("&retain=1h"), numbered(0..3)).await;
    let mut reader = room.reader("").await;
    let got = reader.take(3).await;
    reader.settle(ats(&got), Verdict::Acked);
    reader.flush().await;
    let mut shelf = room.local.shelf(&room.url("")).await.unwrap();
    assert_eq!(shelf.read(10).await.unwrap().len(), 3);
    let mut late = room.reader("&group=late").await;
    let got = late.take(3).await;
    assert_eq!(texts(&got), ["0", "1", "2"], "what is retained is seen by a new group");
    late.settle(ats(&got), Verdict::Acked);
    late.flush().await;
    late.close().await;
    reader.close().await;
    let mut reader = room.reader("&retain=0s").await;
    reader.source.tell(Ask::Demand { messages: 1, bytes: 1 });
    let gone = async {
        while !room.local.shelf(&room.url("")).await.unwrap().read(10).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn an_id_that_waits_or_is_in_flight_is_stored_once() {
    let room = room();
    let message = || Message::new("x").with_id("order-1");
    room.publish([message(), message(), Message::new("y")]).await;
    let mut reader = room.reader("").await;
    let got = reader.take(2).await;
    assert_eq!(texts(&got), ["x", "y"]);
    room.publish([message()]).await;
    assert_eq!(room.inspect("app").await, (0, 0, 2, 0), "it is in flight");
    reader.settle(ats(&got), Verdict::Acked);
    reader.flush().await;
    room.publish([message()]).await;
    let got = reader.take(1).await;
    assert_eq!(got[0].1.headers.get(ID_HEADER), Some(b"order-1".as_slice()), "it is settled: a new one is stored");
}

#[tokio::test]
async fn an_id_that_is_only_retained_can_be_published_again() {
    let room = room();
    let message = || Message::new("x").with_id("order-1");
    publish(&room.local, &room.url("&retain=1h"), [message()]).await;
    let mut reader = room.reader("").await;
    let got = reader.take(1).await;
    reader.settle(ats(&got), Verdict::Acked);
    reader.flush().await;
    room.publish([message()]).await;
    assert_eq!(texts(&reader.take(1).await), ["x"]);
}

#[tokio::test]
async fn a_payload_over_the_limit_comes_without_it_and_says_its_size() {
    let room = room();
    room.publish([Message::new(vec![b'x'; (1 << 20) + 1]).with_key("k"), Message::new("small")]).await;
    let mut reader = room.reader("").await;
    let got = reader.take(2).await;
    assert_eq!((got[0].1.payload.clone(), got[0].1.key.as_deref()), (None, Some(b"k".as_slice())));
    assert_eq!(got[0].1.headers.get(OVERSIZED_HEADER), Some(b"1048577".as_slice()));
    assert_eq!(got[1].1.headers.get(OVERSIZED_HEADER), None);
}

#[tokio::test]
async fn demand_bounds_messages_and_bytes() {
    let room = room();
    room.publish((0..6).map(|_| Message::new(vec![0; 1_000]))).await;
    let mut reader = room.reader("").await;
    reader.source.tell(Ask::Demand { messages: 10, bytes: 2_500 });
    let first = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert_eq!(first.len(), 2);
    // More than is wanted is given only when nothing else is out.
    reader.source.tell(Ask::Demand { messages: 10, bytes: 100 });
    reader.flush().await;
    assert_eq!(room.inspect("app").await, (4, 0, 2, 0));
    reader.settle(first.heads().iter().map(|head| head.at), Verdict::Acked);
    let next = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert_eq!(next.len(), 1);
}

#[tokio::test]
async fn nothing_is_delivered_while_paused_or_after_intake_was_stopped() {
    let room = room();
    let mut reader = room.reader("").await;
    reader.source.tell(Ask::Demand { messages: 10, bytes: 1 << 20 });
    reader.source.tell(Ask::Pause(None));
    room.publish(numbered(0..2)).await;
    reader.flush().await;
    assert_eq!(room.inspect("app").await, (2, 0, 0, 0));
    reader.source.tell(Ask::Resume(None));
    let slab = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert_eq!(slab.len(), 2);
    reader.source.tell(Ask::StopIntake);
    reader.wait(|event| matches!(event, Event::IntakeStopped).then_some(())).await;
    room.publish(numbered(2..4)).await;
    reader.settle(slab.heads().iter().map(|head| head.at), Verdict::Acked);
    assert_eq!(reader.flush().await.0, acked(2), "settlement goes on");
    assert_eq!(room.inspect("app").await, (2, 0, 0, 0));
    assert_eq!(reader.close().await, (0, Tally::default()));
}

#[tokio::test]
async fn what_was_claimed_and_not_yet_delivered_goes_back_when_intake_stops() {
    let room = room();
    room.publish(numbered(0..600)).await;
    let mut reader = room.reader("").await;
    reader.source.tell(Ask::Demand { messages: 600, bytes: 1 << 20 });
    let first = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert!(first.len() < 600, "more than one slab");
    reader.source.tell(Ask::StopIntake);
    reader.flush().await;
    let delivered = first.len() as u64;
    assert_eq!(room.inspect("app").await, (600 - delivered, 0, delivered, 0));
    assert_eq!(reader.close().await, (delivered, Tally::default()), "only what was delivered counts as returned");
    let mut reader = room.reader("").await;
    let wanted: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    assert_eq!(texts(&reader.take(600).await), wanted);
}

#[tokio::test]
async fn a_smaller_demand_cuts_what_was_claimed_for_a_larger_one() {
    let room = room();
    room.publish(numbered(0..20)).await;
    let mut reader = room.reader("").await;
    reader.source.tell(Ask::Demand { messages: 20, bytes: 1 << 20 });
    while room.inspect("app").await.2 == 0 {}
    reader.source.tell(Ask::Demand { messages: 3, bytes: 1 << 20 });
    let slab = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    assert_eq!(slab.len(), 3);
    let rest = reader.take(17).await;
    assert_eq!(texts(&rest).first().map(String::as_str), Some("3"));
}

#[tokio::test]
async fn a_dropped_wait_loses_no_event() {
    let room = room();
    room.publish(numbered(0..200)).await;
    let mut reader = room.reader("").await;
    reader.source.tell(Ask::Demand { messages: 200, bytes: 1 << 20 });
    let mut got = 0;
    let start = Instant::now();
    while got < 200 {
        assert!(start.elapsed() < PATIENCE);
        // Polled once and dropped, again and again.
        tokio::select! {
            biased;
            event = reader.source.next() => if let Event::Batch(slab) = event {
                got += slab.len();
                reader.settle(slab.heads().iter().map(|head| head.at), Verdict::Acked);
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(reader.close().await, (0, Tally::default()));
}

#[tokio::test]
async fn two_sources_of_a_group_share_its_messages_and_no_key_is_with_both() {
    let room = room();
    let keyed = (0..400).map(|number| Message::new(number.to_string()).with_key(format!("k{}", number % 7)));
    room.publish(keyed).await;
    let mut readers = [room.reader("").await, room.reader("").await];
    let mut last_of_key = std::collections::HashMap::new();
    let mut handled = 0;
    let mut turn = 0;
    while handled < 400 {
        turn += 1;
        let reader = &mut readers[turn % 2];
        reader.source.tell(Ask::Demand { messages: 25, bytes: 1 << 20 });
        // Where the other one has every key, this one gets nothing: then it is the other's turn.
        let got = tokio::time::timeout(Duration::from_millis(60), async {
            reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await
        })
        .await;
        reader.source.tell(Ask::Demand { messages: 0, bytes: 0 });
        let Ok(slab) = got else { continue };
        for message in slab.iter() {
            let number: u32 = std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap();
            let before = last_of_key.insert(message.key().unwrap().to_vec(), number);
            assert!(before.is_none_or(|before| before + 7 == number), "{before:?} then {number}");
        }
        handled += slab.len();
        reader.settle(slab.heads().iter().map(|head| head.at), Verdict::Acked);
        reader.flush().await;
    }
}

#[tokio::test]
async fn the_key_is_found_where_the_url_says() {
    let room = room();
    room.publish([Message::new(r#"{"customer":7}"#), Message::new("no json")]).await;
    let mut reader = room.reader("&key=/customer").await;
    let got = reader.take(2).await;
    assert_eq!((got[0].1.key.as_deref(), got[1].1.key.as_deref()), (Some(b"7".as_slice()), None));
}

#[tokio::test]
async fn dead_letters_lie_in_the_same_file_and_can_be_taken_off_one_by_one() {
    let room = room();
    room.publish(numbered(0..1)).await;
    let DeadPlace::At(place) = room.local.dead_letters(&room.url("&claim=5s"), "app") else {
        panic!("there is a place")
    };
    assert_eq!(place.to_string(), format!("local:{}?queue=orders.app.dead", room.path.display()));
    assert!(room.local.shelf(&place).await.is_err(), "looking makes nothing");
    assert_eq!(publish(&room.local, &place, numbered(0..5)).await, 0);
    assert_eq!(room.inspect("app").await, (1, 0, 0, 5));
    let mut shelf = room.local.shelf(&place).await.unwrap();
    let first = shelf.read(2).await.unwrap();
    let rest = shelf.read(10).await.unwrap();
    assert_eq!((first.len(), rest.len(), shelf.read(10).await.unwrap().len()), (2, 3, 0));
    let these = vec![first.heads()[0].at, rest.heads()[2].at];
    assert_eq!(shelf.remove(these.clone()).await.unwrap(), 2);
    assert_eq!(shelf.remove(these).await.unwrap(), 0, "it was not there any more");
    assert_eq!(room.inspect("app").await, (1, 0, 0, 3));
}

#[tokio::test]
async fn nothing_is_made_where_declare_is_false() {
    let room = room();
    let declared = |error: Error| (error.exit_code(), error.to_string());
    let source = room.local.source(&room.url("&declare=false"), &spec()).unwrap();
    let (code, text) = declared(source.open(SourceHooks::default()).await.err().unwrap());
    assert!(code == 78 && text.contains("store.db' does not exist"), "{text}");
    assert!(!room.path.exists());
    publish(&room.local, &url(&room.path, "queue=other"), numbered(0..1)).await;
    let (code, text) = declared(source.open(SourceHooks::default()).await.err().unwrap());
    assert!(code == 78 && text.contains("queue 'orders' does not exist"), "{text}");
    room.publish(numbered(0..1)).await;
    let (code, text) = declared(source.open(SourceHooks::default()).await.err().unwrap());
    assert!(code == 78 && text.contains("group 'app' does not exist"), "{text}");
    room.reader("").await.close().await;
    assert!(source.open(SourceHooks::default()).await.is_ok());
}

#[test]
fn wrong_options_are_told_all_at_once_before_anything_opens() {
    let url = Url::parse("local:a.db?queu=x&claim=1ms&key=routing-key&retain=soon").unwrap();
    let text = Local::default().source(&url, &spec()).err().unwrap().to_string();
    for wrong in ["'queue' is missing", "'claim' is below", "no routing keys", "'retain'", "did you mean 'queue'"] {
        assert!(text.contains(wrong), "{wrong} in {text}");
    }
}

#[tokio::test]
async fn an_owner_that_leaves_takes_its_file_along() {
    let room = room();
    let owners = || {
        let files = std::fs::read_dir(room.path.parent().unwrap()).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().contains("-owner-")).count()
    };
    let reader = room.reader("").await;
    assert_eq!(owners(), 1);
    reader.close().await;
    assert_eq!(owners(), 0);
    drop(room.reader("").await);
    room.reader("").await.close().await;
    let freed = async {
        while owners() > 0 {
            room.reader("").await.close().await;
        }
    };
    within(freed).await;
}

#[tokio::test]
async fn a_sink_confirms_every_send_and_its_demand_opens_again() {
    let room = room();
    let mut sink = room.local.sink(&room.url(""), &sink_spec()).unwrap().open().await.unwrap();
    let mut left = 0u32;
    let (mut sent, mut confirmed) = (0u64, 0);
    while confirmed < 100 {
        while left >= 256 && sent < 100 {
            sink.tell(SinkAsk::Send { batch: sent, slab: slab(numbered(0..256)) });
            sent += 1;
            left -= 256;
        }
        match within(sink.next()).await {
            SinkEvent::Demand { messages, .. } => left = messages,
            SinkEvent::Confirmed { batch, range, failed } => {
                assert_eq!((batch, range, failed.len()), (confirmed, 0..256, 0));
                confirmed += 1;
            }
            SinkEvent::Connected => {}
            other => panic!("{other:?}"),
        }
    }
    sink.tell(SinkAsk::Flush { by: Instant::now() + PATIENCE });
    loop {
        if let SinkEvent::Flushed { unconfirmed } = within(sink.next()).await {
            assert_eq!(unconfirmed, 0);
            break;
        }
    }
    assert_eq!(room.inspect("app").await.0, 25_600);
}
