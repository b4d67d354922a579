//! Stores that are missing, damaged, old, new, full, locked, torn or gone.

use super::super::publish::publish as insert;
use super::super::statements as sql;
use super::super::store::{Access, Store, declare, migrate};
use super::*;
use crate::error::ErrorKind;
use rusqlite::Connection;

async fn open_error(path: &Path) -> Error {
    let local = Local::default();
    let source = local.source(&url(path, "queue=q"), &spec()).unwrap().open(SourceHooks::default()).await.err();
    let sink = local.sink(&url(path, "queue=q"), &sink_spec()).unwrap().open().await.err();
    let (source, sink) = (source.expect("the source is refused"), sink.expect("the sink is refused"));
    assert_eq!(source.to_string(), sink.to_string());
    source
}

fn new_store(path: &Path) -> Store {
    Store::open(path, Access::Declare, &Neighbourhoods::default(), PATIENCE).unwrap()
}

#[tokio::test]
async fn a_damaged_store_is_named_and_never_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    assert_eq!(publish(&Local::default(), &url(&path, "queue=q"), numbered(0..2_000)).await, 0);
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn[8192..12_288].fill(0xa5);
    let mut no_header = whole.clone();
    no_header[..100].fill(0);
    for (what, bytes) in [
        ("empty", &[][..]),
        ("text", b"this is not a database, it is a text file of some length"),
        ("cut", &whole[..whole.len() / 2]),
        ("torn page", &torn),
        ("no header", &no_header),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = open_error(&path).await;
        assert_eq!(error.kind(), ErrorKind::Start, "{what}: {error}");
        assert!(error.to_string().contains("s.db' is damaged"), "{what}: {error}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}: it is left as it is");
    }
}

#[tokio::test]
async fn a_newer_store_and_a_foreign_database_are_refused_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(new_store(&newer));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", sql::VERSION + 1).unwrap();
    let error = open_error(&newer).await;
    assert!(error.exit_code() == 78 && error.to_string().contains("newer"), "{error}");
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = open_error(&foreign).await;
    assert!(error.exit_code() == 78 && error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_folder_and_a_path_into_nowhere_are_wrong_settings() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(open_error(folder.path()).await.exit_code(), 78);
    let error = open_error(&folder.path().join("no/such/s.db")).await;
    assert!(error.exit_code() == 78 && error.to_string().contains("no folder"), "{error}");
}

#[tokio::test]
async fn a_store_that_another_program_keeps_locked_is_refused_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    drop(new_store(&path));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = open_error(&path).await;
    assert!(error.exit_code() == 78 && error.to_string().contains("locked"), "{error}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(publish(&Local::default(), &url(&path, "queue=q"), numbered(0..1)).await, 0);
}

#[tokio::test]
async fn a_lock_that_passes_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let local = Local::default();
    assert_eq!(publish(&local, &url(&path, "queue=q"), numbered(0..1)).await, 0);
    let mut reader = Reader::open(&local, &url(&path, "queue=q"), &spec()).await;
    let got = reader.take(1).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    reader.settle(ats(&got), Verdict::Acked);
    reader.source.tell(Ask::Flush { by: std::time::Instant::now() + std::time::Duration::from_secs(5) });
    let early = tokio::time::timeout(Duration::from_millis(50), reader.source.next()).await;
    assert!(early.is_err(), "nothing is proven while the store is locked: {early:?}");
    other.execute_batch("COMMIT").unwrap();
    let proven = reader.wait(|event| if let Event::Settled { proven, .. } = event { Some(proven) } else { None }).await;
    assert_eq!(proven, acked(1));
}

#[tokio::test]
async fn an_older_store_is_migrated_with_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    {
        let mut old = Connection::open(&path).unwrap();
        old.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        let tx = old.transaction().unwrap();
        migrate(&tx, 1).unwrap();
        tx.pragma_update(None, "application_id", sql::APPLICATION_ID).unwrap();
        tx.execute_batch(&sql::create_table(1)).unwrap();
        tx.execute_batch(
            "INSERT INTO queues (name, next) VALUES ('q', 4);
             INSERT INTO groups (queue, name, cursor) VALUES (1, 'app', 2);
             INSERT INTO pending (grp, id, owner, due_ms, attempts) VALUES (1, 2, NULL, 0, 5);
             INSERT INTO messages_1 (id, payload, published_ms) VALUES (2, CAST('two' AS BLOB), 1), (3, CAST('three' AS BLOB), 1);",
        )
        .unwrap();
        tx.commit().unwrap();
    }
    let local = Local::default();
    let seen = local.inspect(&url(&path, "queue=q"), "app").await;
    assert!(seen.is_err_and(|error| error.to_string().contains("older schema 1")), "a look changes nothing");
    let mut reader = Reader::open(&local, &url(&path, "queue=q"), &spec()).await;
    reader.source.tell(Ask::Demand { messages: 5, bytes: 1 << 20 });
    let slab = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
    let heads: Vec<_> = slab.heads().iter().map(|head| (head.at.position, head.attempts, head.unclean)).collect();
    assert_eq!(heads, [(2, 5, 0), (3, 0, 0)]);
    reader.close().await;
    let version: i32 = Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, sql::VERSION);
}

#[test]
fn a_full_store_says_so_changes_nothing_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(&folder.path().join("s.db"));
    let queue = declare(&store, "q", None, None, true).unwrap().queue;
    let statements = sql::QueueStatements::of(queue);
    let large = slab((0..50).map(|_| Message::new(vec![7; 10_000])));
    store.bound_pages(60);
    let error = store.write(true, |tx| insert(tx, queue, &statements, [&*large])).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("no space left"), "{error}");
    let count = |store: &Store| {
        store.read(|tx| tx.query_row(&statements.count_above, [0], |row| row.get::<_, i64>(0))).unwrap()
    };
    assert_eq!(count(&store), 0);
    store.bound_pages(0);
    store.write(true, |tx| insert(tx, queue, &statements, [&*large])).unwrap();
    assert_eq!(count(&store), 50);
}

#[tokio::test]
async fn a_store_that_is_removed_while_open_takes_no_more_confirms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let local = Local::default();
    let mut sink = local.sink(&url(&path, "queue=q"), &sink_spec()).unwrap().open().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(numbered(0..1)) });
    loop {
        match within(sink.next()).await {
            SinkEvent::Failed(error) => {
                assert!(error.to_string().contains("was removed"), "{error}");
                break;
            }
            SinkEvent::Confirmed { .. } => panic!("nobody will ever read it"),
            _ => {}
        }
    }
    assert!(!path.exists());
}

/// A power cut leaves some prefix of the log, and perhaps garbage behind it.
#[test]
fn after_a_power_cut_everything_confirmed_is_there_and_nothing_is_half_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = new_store(&path);
    let queue = declare(&store, "q", None, None, true).unwrap().queue;
    let statements = sql::QueueStatements::of(queue);
    let wal = folder.path().join("s.db-wal");
    // How long the log was when so many messages were confirmed.
    let mut confirmed = vec![(std::fs::metadata(&wal).unwrap().len(), 0i64)];
    for batch in 0..12 {
        let some = slab((0..5).map(|number| Message::new(vec![batch; 300 + number * 400])));
        store.write(true, |tx| insert(tx, queue, &statements, [&*some])).unwrap();
        confirmed.push((std::fs::metadata(&wal).unwrap().len(), i64::from(batch + 1) * 5));
    }
    let (base, log) = (std::fs::read(&path).unwrap(), std::fs::read(&wal).unwrap());
    drop(store);
    let start = confirmed[0].0;
    let mut seed = 7u64;
    for cut in (start..=log.len() as u64).step_by(1_237).chain(confirmed.iter().map(|(len, _)| *len)) {
        for garbage in [0usize, 900] {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut tail = log[..cut as usize].to_vec();
            tail.extend(std::iter::repeat_n((seed >> 33) as u8, garbage));
            let copy = folder.path().join("copy.db");
            std::fs::write(&copy, &base).unwrap();
            std::fs::write(folder.path().join("copy.db-wal"), &tail).unwrap();
            let _ = std::fs::remove_file(folder.path().join("copy.db-shm"));
            let store = Store::open(&copy, Access::Write, &Neighbourhoods::default(), PATIENCE).unwrap();
            let there: i64 = store.read(|tx| tx.query_row(&statements.count_above, [0], |row| row.get(0))).unwrap();
            let wanted = confirmed.iter().filter(|(len, _)| *len <= cut).map(|(_, many)| *many).max().unwrap();
            assert_eq!(there, wanted, "cut at {cut}");
            // The next id is part of the same commit: no id is ever given twice.
            let next: i64 = store.read(|tx| tx.query_row(sql::NEXT, [queue], |row| row.get(0))).unwrap();
            assert_eq!(next, wanted + 1);
        }
    }
}

/// The store as the transport has it open, so that its disk can be made full.
fn same_store(local: &Local, path: &Path) -> Store {
    Store::open(path, Access::Write, &local.open, PATIENCE).unwrap()
}

#[tokio::test]
async fn a_sink_says_that_the_disk_is_full_and_confirms_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let local = Local::default();
    let mut sink = local.sink(&url(&path, "queue=q"), &sink_spec()).unwrap().open().await.unwrap();
    let store = same_store(&local, &path);
    store.bound_pages(40);
    sink.tell(SinkAsk::Send { batch: 1, slab: slab((0..50).map(|_| Message::new(vec![7; 10_000]))) });
    let mut full = false;
    loop {
        match within(sink.next()).await {
            SinkEvent::Trouble(error) => {
                assert!(error.to_string().contains("no space left"), "{error}");
                full = true;
                store.bound_pages(0);
            }
            SinkEvent::Confirmed { failed, .. } => {
                assert!(full && failed.is_empty());
                break;
            }
            SinkEvent::Connected | SinkEvent::Demand { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let seen = local.inspect(&url(&path, "queue=q"), "app").await.unwrap();
    assert_eq!(seen.waiting, Some(50));
}

#[tokio::test]
async fn a_source_proves_nothing_on_a_full_disk_and_everything_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let local = Local::default();
    publish(&local, &url(&path, "queue=q"), numbered(0..2_000)).await;
    let mut reader = Reader::open(&local, &url(&path, "queue=q"), &spec()).await;
    let got = reader.take(2_000).await;
    let store = same_store(&local, &path);
    // Retries need rows of their own, so they need pages.
    store.bound_pages(1);
    reader.settle(ats(&got), Verdict::Retry { after: Duration::from_secs(3600), attempts: 1 });
    let said = reader.next().await;
    assert!(matches!(&said, Event::Trouble(error) if error.to_string().contains("no space left")), "{said:?}");
    store.bound_pages(0);
    let said = reader.next().await;
    assert!(matches!(said, Event::Settled { proven, .. } if proven.retried == 2_000), "{said:?}");
}

#[tokio::test]
async fn a_source_that_cannot_write_is_closed_by_its_deadline_and_says_what_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let local = Local::default();
    publish(&local, &url(&path, "queue=q"), numbered(0..5)).await;
    let mut reader = Reader::open(&local, &url(&path, "queue=q"), &spec()).await;
    let got = reader.take(5).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    reader.settle(ats(&got[..3]), Verdict::Acked);
    reader.source.tell(Ask::Close { by: Instant::now() + Duration::from_millis(200) });
    let said = reader.next().await;
    assert!(matches!(said, Event::Closed { returned: 2, unknown } if unknown == acked(3)), "{said:?}");
}

#[tokio::test]
async fn a_source_whose_store_is_removed_fails_and_is_never_silently_idle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let local = Local::default();
    publish(&local, &url(&path, "queue=q"), numbered(0..1)).await;
    let mut reader = Reader::open(&local, &url(&path, "queue=q&claim=300ms"), &spec()).await;
    reader.take(1).await;
    std::fs::remove_file(&path).unwrap();
    let error = reader.wait(|event| if let Event::Failed(error) = event { Some(error) } else { None }).await;
    assert!(error.to_string().contains("was removed"), "{error}");
}
