use super::*;
use crate::failure::Tally;
use crate::message::{At, Headers, Message, Slab, SlabBuilder};
use crate::transport::{Ask, Event, OVERSIZED_HEADER, Settlement, SinkAsk, SinkEvent, UNDECODABLE_HEADER, Verdict};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MAX_MESSAGE: u64 = 200;

fn spec() -> SourceSpec {
    SourceSpec {
        worker: "w".into(),
        default_group: "app".into(),
        concurrency: 16,
        by_key: false,
        max_message: MAX_MESSAGE,
        patience: Duration::from_secs(1),
    }
}

fn url(dir: &TempDir, name: &str) -> Url {
    Url::parse(&format!("file:{}/{name}", dir.path().display())).unwrap()
}

fn file(dir: &TempDir, name: &str, text: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn lines(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|number| format!("{{\"n\":{number}}}\n")).collect::<String>().into_bytes()
}

async fn opened(dir: &TempDir, name: &str) -> Result<Box<dyn Source>, Error> {
    let mut source = File::default().source(&url(dir, name), &spec()).unwrap().open(SourceHooks::default()).await?;
    assert!(matches!(source.next().await, Event::Connected));
    source.tell(Ask::Demand { messages: 100_000, bytes: 1 << 30 });
    Ok(source)
}

async fn source(dir: &TempDir, name: &str) -> Box<dyn Source> {
    opened(dir, name).await.unwrap()
}

/// So many deliveries, or all until the end.
async fn deliveries(source: &mut Box<dyn Source>, count: usize) -> Vec<(At, Message)> {
    let mut all = Vec::new();
    while all.len() < count {
        match source.next().await {
            Event::Batch(slab) => all.extend(slab.iter().map(|each| (each.head().at, each.to_message()))),
            Event::Ended => break,
            Event::Settled { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    all
}

fn payloads(all: &[(At, Message)]) -> Vec<String> {
    all.iter().map(|(_, message)| String::from_utf8(message.payload.clone().unwrap().to_vec()).unwrap()).collect()
}

fn acked(these: impl IntoIterator<Item = At>) -> Ask {
    Ask::Settle(these.into_iter().map(|at| Settlement { at, verdict: Verdict::Acked }).collect())
}

async fn flush(source: &mut Box<dyn Source>) -> Tally {
    source.tell(Ask::Flush { by: std::time::Instant::now() + std::time::Duration::from_secs(5) });
    let mut proven = Tally::default();
    loop {
        match source.next().await {
            Event::Settled { proven: more, .. } => proven += more,
            Event::Flushed => return proven,
            Event::Batch(_) | Event::Ended => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn sink(dir: &TempDir, name: &str) -> Box<dyn Sink> {
    let spec = SinkSpec { worker: "w".into(), patience: Duration::from_secs(1) };
    let mut sink = File::default().sink(&url(dir, name), &spec).unwrap().open().await.unwrap();
    assert!(matches!(sink.next().await, SinkEvent::Connected));
    assert!(matches!(sink.next().await, SinkEvent::Demand { .. }));
    sink
}

fn slab(messages: &[Message]) -> Arc<Slab> {
    let mut builder = SlabBuilder::new();
    messages.iter().for_each(|message| {
        builder.push_message(message);
    });
    Arc::new(builder.finish("elsewhere".into()))
}

/// Sends, waits for the confirm, and gives which failed and what trouble there was.
async fn send(sink: &mut Box<dyn Sink>, messages: &[Message]) -> (Vec<(u32, &'static str)>, Vec<String>) {
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(messages) });
    let mut trouble = Vec::new();
    loop {
        match sink.next().await {
            SinkEvent::Confirmed { range, failed, .. } => {
                assert_eq!(range, 0..messages.len() as u32);
                return (failed.iter().map(|(index, failure)| (*index, failure.class())).collect(), trouble);
            }
            SinkEvent::Trouble(error) => trouble.push(error.to_string()),
            SinkEvent::Demand { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn lines_come_in_order_and_then_the_end() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", b"1\n\n  \n\"two\"\r\n{\"n\":3}");
    let mut source = source(&dir, "in").await;
    let all = deliveries(&mut source, usize::MAX).await;
    assert_eq!(payloads(&all), ["1", "\"two\"\r", "{\"n\":3}"]);
    assert_eq!(all.iter().map(|(at, _)| at.position).collect::<Vec<_>>(), [0, 6, 13]);
    source.tell(acked(all.iter().map(|(at, _)| *at)));
    assert!(matches!(source.next().await, Event::Settled { proven: Tally { acked: 3, .. }, .. }));
}

#[tokio::test]
async fn what_cannot_be_a_message_is_delivered_as_it_is_with_its_line_and_reason() {
    let dir = TempDir::new().unwrap();
    let long = "9".repeat(MAX_MESSAGE as usize + 1);
    file(&dir, "in", &[b"1\n\nno json\n\"\xff\"\n", long.as_bytes(), b"\n2\n"].concat());
    let all = deliveries(&mut source(&dir, "in").await, usize::MAX).await;
    let header = |index: usize, name: &str| {
        all[index].1.headers.get(name).map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    assert_eq!(all.len(), 5);
    assert_eq!(all[1].1.payload.as_deref(), Some(b"no json".as_slice()));
    assert!(header(1, UNDECODABLE_HEADER).unwrap().starts_with("line 3: expected"));
    assert_eq!(all[2].1.payload.as_deref(), Some(b"\"\xff\"".as_slice()));
    assert!(header(2, UNDECODABLE_HEADER).unwrap().starts_with("line 4: invalid utf-8"));
    assert_eq!(all[3].1.payload.as_deref(), Some(b"".as_slice()));
    assert_eq!(header(3, OVERSIZED_HEADER), Some((MAX_MESSAGE + 1).to_string()));
    assert_eq!(all[4].1.payload.as_deref(), Some(b"2".as_slice()));
    assert!(all[4].1.headers.is_empty());
}

#[tokio::test]
async fn a_line_that_is_no_record_is_told_from_a_tombstone() {
    let dir = TempDir::new().unwrap();
    let text = br#"{"key":"k","payload":null}
{"key":"k"}
{"key":{"base64":"/w=="},"payload":{"base64":"AP8="},"headers":[["h","v"],["h",{"base64":"/w=="}]],"timestamp_ms":7}
{"payload":{"base64":"!"}}
"#;
    file(&dir, "in", text);
    let all = deliveries(&mut source(&dir, "in?format=record").await, usize::MAX).await;
    assert_eq!(all[0].1, Message::tombstone("k"));
    assert!(all[1].1.headers.get(UNDECODABLE_HEADER).is_some());
    let mut wanted = Message::new(b"\x00\xff".to_vec()).with_key(b"\xff".to_vec()).with_header("h", "v");
    wanted = wanted.with_header("h", b"\xff");
    wanted.timestamp_ms = Some(7);
    assert_eq!(all[2].1, wanted);
    assert!(all[3].1.headers.get(UNDECODABLE_HEADER).is_some());
}

#[tokio::test]
async fn no_more_is_delivered_than_was_asked_for() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", &lines(0..10));
    let mut source = source(&dir, "in").await;
    source.tell(Ask::Demand { messages: 3, bytes: 1000 });
    let Event::Batch(first) = source.next().await else { panic!("there are lines") };
    source.tell(Ask::Demand { messages: 100, bytes: 14 });
    let Event::Batch(second) = source.next().await else { panic!("there are lines") };
    assert_eq!((first.len(), second.len()), (3, 2));
    source.tell(Ask::Demand { messages: 100, bytes: 1 });
    assert!(tokio::time::timeout(Duration::from_millis(1), source.next()).await.is_err());
    source.tell(acked(first.heads().iter().chain(second.heads()).map(|head| head.at)));
    assert!(matches!(source.next().await, Event::Settled { .. }));
    assert!(matches!(source.next().await, Event::Batch(slab) if slab.len() == 1));
}

#[tokio::test]
async fn a_group_goes_on_where_it_was_and_without_one_all_comes_again() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", &lines(0..10));
    let mut first = source(&dir, "in?group=g").await;
    let all = deliveries(&mut first, usize::MAX).await;
    // A gap: 3 and 5 are not settled.
    first.tell(acked(all.iter().enumerate().filter(|(n, _)| ![3, 5].contains(n)).map(|(_, (at, _))| *at)));
    first.tell(Ask::Close { by: Instant::now() + Duration::from_secs(20) });
    assert!(matches!(first.next().await, Event::Settled { proven: Tally { acked: 8, .. }, .. }));
    assert!(matches!(first.next().await, Event::Closed { returned: 2, unknown } if unknown.total() == 0));
    drop(first);
    let again = deliveries(&mut source(&dir, "in?group=g").await, usize::MAX).await;
    assert_eq!(payloads(&again), ["{\"n\":3}", "{\"n\":5}"]);
    assert_eq!(deliveries(&mut source(&dir, "in?group=other").await, usize::MAX).await.len(), 10);
    assert_eq!(deliveries(&mut source(&dir, "in").await, usize::MAX).await.len(), 10);
}

#[tokio::test]
async fn what_is_returned_comes_again_in_its_old_order() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", &lines(0..10));
    let mut source = source(&dir, "in").await;
    source.tell(Ask::Demand { messages: 6, bytes: 1000 });
    let all = deliveries(&mut source, 6).await;
    source.tell(acked([all[1].0]));
    source.tell(Ask::Return(vec![all[4].0, all[0].0, all[1].0]));
    source.tell(acked([all[0].0]));
    source.tell(Ask::Demand { messages: 100, bytes: 1000 });
    let Event::Settled { proven, stale, .. } = source.next().await else { panic!("something was settled") };
    assert_eq!((proven.acked, stale.acked), (1, 1));
    let wanted: Vec<String> = [0, 4, 6, 7, 8, 9].iter().map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(payloads(&deliveries(&mut source, usize::MAX).await), wanted);
}

#[tokio::test]
async fn a_place_that_does_not_fit_the_file_is_refused_and_both_are_named() {
    let dir = TempDir::new().unwrap();
    let settle_all = async |name: &str| {
        let mut source = source(&dir, name).await;
        let all = deliveries(&mut source, usize::MAX).await;
        source.tell(acked(all.iter().map(|(at, _)| *at)));
        assert_eq!(flush(&mut source).await.acked, all.len() as u64);
    };
    let refused = async |name: &str| {
        let error = opened(&dir, name).await.err().expect("it does not fit");
        assert_eq!(error.exit_code(), 78, "{error}");
        error.to_string()
    };
    let path = file(&dir, "in", &lines(0..5));
    settle_all("in?group=g").await;
    std::fs::write(&path, lines(1..6)).unwrap();
    let text = refused("in?group=g").await;
    assert!(
        text.contains("in.g.place' is not of file") && text.contains("beginning of the file has changed"),
        "{text}"
    );
    std::fs::write(&path, lines(0..4)).unwrap();
    assert!(refused("in?group=g").await.contains("the file has shrunk to 32 bytes, and 40 were read"));
    let other = file(&dir, "other", &lines(0..5));
    std::fs::rename(other, &path).unwrap();
    assert!(refused("in?group=g").await.contains("made for another file"));

    file(&dir, "damaged", &lines(0..5));
    settle_all("damaged?group=g").await;
    let place = dir.path().join("damaged.g.place");
    let text = std::fs::read_to_string(&place).unwrap().replace("\"offset\":40", "\"offset\":50");
    std::fs::write(place, text).unwrap();
    let error = opened(&dir, "damaged?group=g").await.err().expect("it is damaged");
    assert!(error.to_string().contains("checksum") && error.exit_code() == 1, "{error}");
}

#[tokio::test]
async fn two_sources_cannot_have_one_place() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", &lines(0..5));
    let _first = source(&dir, "in?group=g").await;
    let error = opened(&dir, "in?group=g").await.err().expect("it is in use");
    assert!(error.to_string().contains("in use by another source"), "{error}");
    source(&dir, "in?group=h").await;
}

#[tokio::test]
async fn a_followed_file_gives_a_line_when_its_line_feed_comes() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "in", b"1\n2");
    let mut source = source(&dir, "in?follow=true").await;
    assert_eq!(payloads(&deliveries(&mut source, 1).await), ["1"]);
    let mut end = OpenOptions::new().append(true).open(&path).unwrap();
    end.write_all(b"0\n3").unwrap();
    assert_eq!(payloads(&deliveries(&mut source, 1).await), ["20"]);
    end.set_len(1).unwrap();
    let Event::Failed(error) = source.next().await else { panic!("it has shrunk") };
    assert!(error.to_string().contains("shrunk") && error.exit_code() == 78, "{error}");
}

#[tokio::test]
async fn a_stop_delivers_nothing_more_of_a_file() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", &lines(0..5));
    let mut source = source(&dir, "in").await;
    source.tell(Ask::StopIntake);
    assert!(matches!(source.next().await, Event::IntakeStopped));
    source.tell(Ask::Close { by: Instant::now() });
    assert!(matches!(source.next().await, Event::Closed { returned: 0, .. }));
}

/// A source that reads what is written to a pipe, as from standard input.
fn stream() -> (io::PipeWriter, Box<dyn Source>) {
    let (reader, writer) = io::pipe().unwrap();
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    let decoder = Decoder {
        format: Format::Payload,
        key: KeyFrom::Message,
        max_message: MAX_MESSAGE,
        topic: STANDARD.into(),
        epoch: 1,
    };
    let opened = Opened { file, place: None, progress: Progress::default() };
    let mut source = FileSource::new(opened, STANDARD.into(), Kind::Stream, decoder).unwrap();
    source.tell(Ask::Demand { messages: 100, bytes: 1 << 20 });
    (writer, Box::new(source))
}

#[tokio::test]
async fn a_line_of_a_stream_does_not_wait_for_the_next_one() {
    let (mut writer, mut source) = stream();
    assert!(matches!(source.next().await, Event::Connected));
    writer.write_all(b"1\n2").unwrap();
    assert_eq!(payloads(&deliveries(&mut source, 1).await), ["1"]);
    drop(writer);
    assert_eq!(payloads(&deliveries(&mut source, usize::MAX).await), ["2"]);
}

#[tokio::test]
async fn a_stop_of_a_stream_delivers_what_was_read_and_waits_for_no_writer() {
    let (mut writer, mut source) = stream();
    assert!(matches!(source.next().await, Event::Connected));
    writer.write_all(b"1\n2\n").unwrap();
    source.tell(Ask::Demand { messages: 1, bytes: 100 });
    assert_eq!(payloads(&deliveries(&mut source, 1).await), ["1"]);
    source.tell(Ask::StopIntake);
    source.tell(Ask::Demand { messages: 100, bytes: 100 });
    assert_eq!(payloads(&deliveries(&mut source, 1).await), ["2"]);
    assert!(matches!(source.next().await, Event::IntakeStopped));
    source.tell(Ask::Close { by: Instant::now() });
    assert!(matches!(source.next().await, Event::Closed { returned: 2, .. }));
}

#[tokio::test]
async fn a_dead_letter_file_that_is_absent_is_empty_and_any_other_is_missing() {
    let dir = TempDir::new().unwrap();
    let mut shelf = File::default().shelf(&url(&dir, "in.dead?format=record")).await.unwrap();
    assert!(shelf.read(1).await.unwrap().is_empty());
    let error = File::default().shelf(&url(&dir, "in")).await.err().expect("it is missing");
    assert_eq!(error.exit_code(), 78);
}

#[tokio::test]
async fn wrong_urls_and_missing_files_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    for (text, says) in [
        ("file:", "names no file"),
        ("file:-?group=g", "keeps no place"),
        ("file:-?follow=true", "'follow'"),
        ("file:a?place=b", "without 'group'"),
        ("file:a?group=a/b", "'group=a/b'"),
        ("file:a?format=recrd", "did you mean 'record'?"),
        ("file:a?gruop=a", "unknown option 'gruop'"),
        ("file:a?key=x", "'key=x'"),
    ] {
        let error = File::default().source(&Url::parse(text).unwrap(), &spec()).err().expect("it is wrong");
        assert!(error.to_string().contains(says) && error.exit_code() == 78, "{text}: {error}");
    }
    let error = opened(&dir, "absent").await.err().expect("there is no such file");
    assert!(error.to_string().contains("/absent' cannot be read") && error.exit_code() == 78, "{error}");
    let spec = SinkSpec { worker: "w".into(), patience: Duration::ZERO };
    let plan = File::default().sink(&url(&dir, "absent?declare=false"), &spec).unwrap();
    let error = plan.open().await.err().expect("it may not be made");
    assert!(error.to_string().contains("may not be declared") && error.exit_code() == 78, "{error}");
    assert!(!dir.path().join("absent").exists());
    // A pipe would keep whoever opens it; a folder is none.
    assert!(opened(&dir, "").await.err().expect("a folder").to_string().contains("no regular file"));
}

#[tokio::test]
async fn a_sink_appends_and_fails_what_is_no_line() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "out", b"0\n");
    let mut sink = sink(&dir, "out").await;
    let messages =
        [Message::new("1"), Message::new("{\n}"), Message::tombstone("k"), Message::new("no json"), Message::new("2")];
    let (failed, trouble) = send(&mut sink, &messages).await;
    assert_eq!(failed, [(1, "unrepresentable"), (2, "unrepresentable"), (3, "unrepresentable")]);
    assert_eq!((trouble.len(), std::fs::read(&path).unwrap().as_slice()), (0, b"0\n1\n2\n".as_slice()));
    sink.tell(SinkAsk::Close { by: Instant::now() + Duration::from_secs(20) });
    loop {
        match sink.next().await {
            SinkEvent::Closed { unconfirmed } => break assert_eq!(unconfirmed, 0),
            SinkEvent::Demand { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_at_any_byte_and_said() {
    let dir = TempDir::new().unwrap();
    let whole = b"1\n\"two\"\n{\"n\":3}\n";
    for torn in 0..=whole.len() {
        let path = file(&dir, "out", &whole[..torn]);
        let kept = whole[..torn].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (_, trouble) = send(&mut sink(&dir, "out").await, &[Message::new("9")]).await;
        assert_eq!(std::fs::read(&path).unwrap(), [&whole[..kept], b"9\n"].concat(), "torn at {torn}");
        assert_eq!(trouble.len(), usize::from(kept < torn));
    }
}

#[tokio::test]
async fn nothing_is_confirmed_while_it_cannot_be_written() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("out");
    let mut sink = sink(&dir, "out").await;
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(&[Message::new("1")]) });
    assert!(matches!(sink.next().await, SinkEvent::Trouble(_)));
    std::fs::remove_dir(&path).unwrap();
    loop {
        match sink.next().await {
            SinkEvent::Trouble(_) => {}
            SinkEvent::Confirmed { failed, .. } => break assert!(failed.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"1\n");
}

#[tokio::test]
async fn a_sink_goes_on_in_the_file_that_a_removal_wrote() {
    let dir = TempDir::new().unwrap();
    let transport = File::default();
    let DeadPlace::At(dead) = transport.dead_letters(&url(&dir, "in?group=g"), "g") else { panic!("it has a place") };
    assert_eq!(dead.to_string(), format!("file:{}/in.dead?format=record", dir.path().display()));
    file(&dir, "in", &lines(0..7));
    let mut sink = sink(&dir, "in.dead?format=record").await;
    let all: Vec<Message> = (0..6).map(|n| Message::new(format!("not\njson {n}")).with_header("h", "v")).collect();
    send(&mut sink, &all[..5]).await;
    let mut shelf = transport.shelf(&dead).await.unwrap();
    let first = shelf.read(2).await.unwrap();
    let second = shelf.read(2).await.unwrap();
    assert_eq!(shelf.remove(vec![second.heads()[0].at, first.heads()[0].at]).await.unwrap(), 2);
    assert_eq!(shelf.remove(vec![first.heads()[0].at]).await.unwrap(), 0);
    send(&mut sink, &all[5..]).await;
    let third = shelf.read(10).await.unwrap();
    assert_eq!(third.iter().map(|each| each.to_message()).collect::<Vec<_>>(), all[4..]);
    assert_eq!(shelf.remove(vec![second.heads()[1].at, third.heads()[1].at]).await.unwrap(), 2);
    let mut left = transport.shelf(&dead).await.unwrap();
    let left = left.read(10).await.unwrap();
    assert_eq!(left.iter().map(|each| each.to_message()).collect::<Vec<_>>(), [all[1].clone(), all[4].clone()]);
    let seen = transport.inspect(&url(&dir, "in?group=g"), "g").await.unwrap();
    assert_eq!((seen.waiting, seen.dead), (Some(7), Some(2)));
}

#[tokio::test]
async fn an_inspection_counts_what_a_group_has_not_settled() {
    let dir = TempDir::new().unwrap();
    file(&dir, "in", &[lines(0..5), b"\n".to_vec(), lines(5..10)].concat());
    let mut source = source(&dir, "in?group=g").await;
    source.tell(Ask::Demand { messages: 4, bytes: 1000 });
    let all = deliveries(&mut source, 4).await;
    source.tell(acked([all[0].0, all[2].0]));
    flush(&mut source).await;
    let seen = File::default().inspect(&url(&dir, "in?group=g"), "g").await.unwrap();
    assert_eq!((seen.waiting, seen.dead), (Some(8), Some(0)));
}

/// Runs itself as a child, whose standard output is read for one line and then closed.
#[tokio::test]
async fn standard_output_that_nobody_reads_ends_the_sink_and_says_why() {
    use std::io::BufRead;
    const CHILD: &str = "LONGSHORE_TEST_STDOUT_CHILD";
    const NAME: &str = "transport::file::tests::standard_output_that_nobody_reads_ends_the_sink_and_says_why";
    if std::env::var_os(CHILD).is_some() {
        let spec = SinkSpec { worker: "w".into(), patience: Duration::ZERO };
        let mut sink = File::default().sink(&Url::parse("file:-").unwrap(), &spec).unwrap().open().await.unwrap();
        sink.tell(SinkAsk::Send { batch: 0, slab: slab(&[Message::new("\"a line\"")]) });
        loop {
            match sink.next().await {
                SinkEvent::Confirmed { batch, .. } => {
                    sink.tell(SinkAsk::Send { batch: batch + 1, slab: slab(&[Message::new("\"a line\"")]) })
                }
                SinkEvent::Failed(error) => {
                    eprintln!("failed with {}: {error}", error.exit_code());
                    std::process::exit(42);
                }
                _ => {}
            }
        }
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut read = io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(read.any(|line| line.unwrap().ends_with("\"a line\"")));
    drop(read);
    let ended = child.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(42), "{says}");
    assert!(says.contains("failed with 70: nobody reads standard output any more"), "{says}");
}

/// A stream of which a read gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl io::Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(into.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    let text = proptest::option::of(prop_oneof![bytes(), ".{0,9}".prop_map(String::into_bytes)]);
    (text.clone(), text, proptest::collection::vec((".{0,5}", bytes()), 0..4), any::<Option<i64>>()).prop_map(
        |(key, payload, headers, timestamp_ms)| Message {
            key: key.map(Into::into),
            payload: payload.map(Into::into),
            headers: headers.into_iter().collect::<Headers>(),
            timestamp_ms: timestamp_ms.filter(|at| *at != i64::MIN),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn lines_are_cut_the_same_however_they_are_read(
        text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a')], 0..60),
        at_a_time in 1usize..9,
        limit in 0u64..9,
    ) {
        let mut lines = Lines::new(100, 1, limit);
        let mut from = Slow(&text, at_a_time);
        let mut start = 100;
        for (index, wanted) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let found = lines.next(&mut from).unwrap();
            let whole = wanted.ends_with(b"\n");
            prop_assert_eq!((found == Found::Line, lines.last()), (whole, !whole));
            let bytes = wanted.strip_suffix(b"\n").unwrap_or(wanted);
            let line = lines.line();
            prop_assert_eq!((line.start, line.end), (start, start + wanted.len() as u64));
            prop_assert_eq!((line.number, line.length), (index as u64 + 1, bytes.len() as u64));
            prop_assert_eq!(line.text, (bytes.len() as u64 <= limit).then_some(bytes));
            start += wanted.len() as u64;
        }
        prop_assert_eq!(lines.next(&mut from).unwrap(), Found::Dry);
    }

    #[test]
    fn a_message_comes_back_from_its_record_as_it_was(message in message()) {
        let slab = slab(std::slice::from_ref(&message));
        let mut line = Vec::new();
        Format::Record.write(slab.get(0), &mut line).unwrap();
        prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let (record, headers) = record::Record::read(&line).unwrap();
        let part = |text: Option<record::Text<'_>>| text.map(|text| text.0.into_owned().into());
        let (key, timestamp_ms) = (part(record.key), record.timestamp_ms);
        prop_assert_eq!(Message { key, payload: part(record.payload), headers, timestamp_ms }, message);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take(u8),
    Settle(u16),
    Return(u16),
    Flush,
    Crash,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u8..30).prop_map(Step::Take),
        4 => any::<u16>().prop_map(Step::Settle),
        1 => any::<u16>().prop_map(Step::Return),
        2 => Just(Step::Flush),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ]
}

/// What the checker knows of each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Waiting,
    Running(At),
    Settled,
    Proven,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is settled in whatever order, and whenever it is cut off: a line that was not settled comes again, and
    /// one whose settlement was proven does not.
    #[test]
    fn a_crash_skips_nothing_and_repeats_nothing_that_was_proven(steps in proptest::collection::vec(step(), 1..25)) {
        const LINES: u64 = 300;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            file(&dir, "in", &lines(0..LINES));
            let mut known: BTreeMap<u64, Is> = (0..LINES).map(|number| (number, Is::Waiting)).collect();
            let number = |message: &Message| -> u64 {
                let text: serde_json::Value = serde_json::from_slice(message.payload.as_ref().unwrap()).unwrap();
                text["n"].as_u64().unwrap()
            };
            let mut consumer = source(&dir, "in?group=g").await;
            for step in steps.into_iter().chain([Step::Crash]) {
                let running: Vec<(u64, At)> = known
                    .iter()
                    .filter_map(|(number, is)| match is { Is::Running(at) => Some((*number, *at)), _ => None })
                    .collect();
                let picked = |n: u16| running.get(n as usize % running.len().max(1)).copied();
                match step {
                    Step::Take(count) => {
                        let waiting = known.values().filter(|is| **is == Is::Waiting).count();
                        let count = usize::from(count).min(waiting);
                        consumer.tell(Ask::Demand { messages: count as u32, bytes: 1 << 20 });
                        let mut taken = Vec::new();
                        while taken.len() < count {
                            match consumer.next().await {
                                Event::Batch(slab) => {
                                    taken.extend(slab.iter().map(|each| (each.head().at, each.to_message())))
                                }
                                Event::Settled { .. } | Event::Ended => {}
                                other => panic!("{other:?}"),
                            }
                        }
                        for (at, message) in &taken {
                            let was = known.insert(number(message), Is::Running(*at));
                            prop_assert!(matches!(was, Some(Is::Waiting)), "{was:?} came again");
                            let older = known.range(..number(message)).any(|(_, is)| *is == Is::Waiting);
                            prop_assert!(!older, "{} overtook", number(message));
                        }
                    }
                    Step::Settle(stride) => {
                        let these = running.iter().step_by(usize::from(stride % 5) + 1);
                        known.extend(these.clone().map(|(number, _)| (*number, Is::Settled)));
                        consumer.tell(acked(these.map(|(_, at)| *at)));
                    }
                    Step::Return(n) => if let Some((number, at)) = picked(n) {
                        known.insert(number, Is::Waiting);
                        consumer.tell(Ask::Return(vec![at]));
                    },
                    Step::Flush => {
                        consumer.tell(Ask::Demand { messages: 0, bytes: 0 });
                        flush(&mut consumer).await;
                        known.values_mut().filter(|is| **is == Is::Settled).for_each(|is| *is = Is::Proven);
                    }
                    Step::Crash | Step::Close => {
                        if matches!(step, Step::Close) {
                            consumer.tell(Ask::Close { by: Instant::now() + Duration::from_secs(60) });
                            while !matches!(consumer.next().await, Event::Closed { .. }) {}
                            known.values_mut().filter(|is| **is == Is::Settled).for_each(|is| *is = Is::Proven);
                        }
                        drop(consumer);
                        // Look what another reader of the place would get, then begin again with that.
                        consumer = source(&dir, "in?group=g").await;
                        let all = deliveries(&mut consumer, usize::MAX).await;
                        let again: Vec<u64> = all.iter().map(|(_, message)| number(message)).collect();
                        prop_assert!(again.is_sorted());
                        for (number, is) in &mut known {
                            match (again.contains(number), *is) {
                                (true, Is::Proven) => prop_assert!(false, "{number} was proven and came again"),
                                (false, Is::Waiting | Is::Running(_)) => prop_assert!(false, "{number} was skipped"),
                                (true, _) => *is = Is::Waiting,
                                (false, _) => *is = Is::Proven,
                            }
                        }
                        consumer.tell(Ask::Return(all.iter().map(|(at, _)| *at).collect()));
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_file_copied_line_by_line_is_the_same_byte_for_byte() {
    let dir = TempDir::new().unwrap();
    let text: String = (0..5000)
        .map(|n| {
            format!("{{\"id\":{n},\"text\":\"{}\",\"mag\":{}.{},\"none\":null}}\n", "ü\\n".repeat(n % 20), n % 9, n)
        })
        .collect();
    file(&dir, "in", text.as_bytes());
    for format in ["payload", "record"] {
        let name = format!("out.{format}");
        let mut from = source(&dir, "in").await;
        let mut to = sink(&dir, &format!("{name}?format={format}")).await;
        for part in deliveries(&mut from, usize::MAX).await.chunks(256) {
            let messages: Vec<Message> = part.iter().map(|(_, message)| message.clone()).collect();
            assert_eq!(send(&mut to, &messages).await, (vec![], vec![]));
        }
        let mut back = source(&dir, &format!("{name}?format={format}")).await;
        let back = payloads(&deliveries(&mut back, usize::MAX).await);
        assert!(back.iter().map(|line| format!("{line}\n")).collect::<String>() == text, "{format} changed something");
    }
    assert!(std::fs::read(dir.path().join("out.payload")).unwrap() == text.as_bytes());
}
