//! How an app is put together: what handlers may ask for, and what is wrong is told at once, before anything opens.

mod support;

use longshore::prelude::*;
use longshore::transport::memory::Memory;
use longshore::{Delivery, ErrorKind};
use serde::{Deserialize, Serialize};
use support::*;
use tokio::runtime::Handle;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note(u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Letter(u32);

struct Pool(u32);

impl Resource for Pool {
    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_ask_for_eight_things() {
    let (app, memory) = app("eight");
    let log: Log<String> = Log::default();
    let into = log.clone();
    #[allow(clippy::too_many_arguments, reason = "eight is what is claimed")]
    let handler = move |Json(note): Json<Note>,
                        raw: Raw,
                        key: Key,
                        headers: Headers,
                        Attempt(attempt): Attempt,
                        pool: Res<Pool>,
                        out: To<Letter>,
                        cx: Context| {
        let into = into.clone();
        async move {
            let trace = headers.get("trace").map(|trace| String::from_utf8_lossy(trace).into_owned());
            into.push(format!(
                "{} {:?} {:?} {:?} {attempt} {} {} {}",
                note.0,
                &raw[..],
                key.text(),
                trace,
                pool.0,
                cx.worker(),
                cx.app()
            ));
            out.send(&Letter(note.0)).await
        }
    };
    let app = app
        .resource("pool", || async { Ok::<_, BoxError>(Pool(7)) })
        .producer(Producer::<Letter>::new("letters", "memory:letters"))
        .consumer(Consumer::new("take", "memory:in", handler));
    let running = started(app).await;
    memory.publish("in", [numbered(5, "k").with_header("trace", "t")]).await.unwrap();
    assert_eq!(log.until(1).await, [r#"5 [53] Some("k") Some("t") 1 7 take eight"#]);
    stopped(running).await;
    assert_eq!(memory.len("letters"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_message_of_a_batch_comes_in_one_tuple() {
    let (app, memory) = app("tuples");
    let log: Log<(u32, String, u32)> = Log::default();
    let into = log.clone();
    let handler = move |batch: Batch<(Json<Note>, Key, Attempt)>, pool: Res<Pool>, out: To<Letter>| {
        let into = into.clone();
        async move {
            for (Json(note), key, _) in batch {
                into.push((note.0, key.text().unwrap().to_owned(), pool.0));
                out.send(&Letter(note.0)).await?;
            }
            Ok::<(), Failure>(())
        }
    };
    let app = app
        .resource("pool", || async { Ok::<_, BoxError>(Pool(7)) })
        .producer(Producer::<Letter>::new("letters", "memory:letters").key(|letter| format!("of {}", letter.0)))
        .consumer(Consumer::batch("take", "memory:in", handler).batches(2, 1 << 20, Duration::from_millis(5)));
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a"), numbered(2, "b")]).await.unwrap();
    let mut seen = log.until(2).await;
    seen.sort_unstable();
    assert_eq!(seen, [(1, "a".to_owned(), 7), (2, "b".to_owned(), 7)]);
    stopped(running).await;
    let mut keys: Vec<_> = content(&memory, "memory:letters").await.into_iter().map(|sent| sent.key.unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["of 1", "of 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_producers_of_one_type_are_told_apart_by_a_tag() {
    struct Archive;
    let (app, memory) = app("tags");
    let handler = |Json(note): Json<Note>, out: To<Note>, archive: To<Note, Archive>| async move {
        out.send(&note).await?;
        archive.send(&Note(note.0 + 100)).await
    };
    let app = app
        .producer(Producer::<Note>::new("out", "memory:out"))
        .producer(Producer::<Note, Archive>::new("archive", "memory:archive"))
        .consumer(Consumer::new("take", "memory:in", handler));
    let running = started(app).await;
    memory.publish("in", [numbered(1, "k")]).await.unwrap();
    stopped(running).await;
    for (queue, payload) in [("out", "1"), ("archive", "101")] {
        let found = content(&memory, &format!("memory:{queue}")).await;
        assert_eq!((found.len(), found[0].payload.as_deref()), (1, Some(payload.as_bytes())), "{queue}");
    }
}

async fn refused(app: App) -> String {
    let error = app.start(&Handle::current()).await.expect_err("the app is wrong");
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Configuration, 78), "{error}");
    error.to_string()
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once_by_worker_and_name() {
    struct Archive;
    let text = refused(
        App::new("wrong")
            .consumer(Consumer::new("ship", "memory:in", |_: Raw, _: To<Note>, _: Res<Pool>| async {}))
            .consumer(Consumer::new("tagged", "memory:in?group=b", |_: Raw, _: To<Letter, Archive>| async {}))
            .consumer(Consumer::new("url", "memroy:in", |_: Raw| async {}))
            .consumer(Consumer::new("option", "memory:in?gruop=x", |_: Raw| async {}))
            .consumer(Consumer::new("broker", "kafka://localhost", |_: Raw| async {}))
            .consumer(Consumer::new("none", "memory:in", |_: Raw| async {}).concurrency(0))
            .consumer(Consumer::new("slow", "memory:in", |_: Raw| async {}).rate(-1.0))
            .consumer(Consumer::new("dead", "memory:in", |_: Raw| async {}).dead_letter("lcoal:x.db?queue=dead"))
            .consumer(Consumer::new("twice", "memory:in", |_: Raw| async {}))
            .bridge(Bridge::new("twice", "memory:a", "memory:"))
            .producer(Producer::<Note, Archive>::new("letters", "memory:letters?colour=red"))
            .service("feed", |_: Publisher<Letter>| async { Ok::<_, BoxError>(()) }),
    )
    .await;
    for wanted in [
        "'ship' asks for To<Note>",
        "'ship' asks for Res<Pool>",
        "'tagged' asks for To<Letter, Archive>",
        "Producer::<Letter, Archive>::new(",
        "'url'",
        "did you mean 'memory'?",
        "'option'",
        "did you mean 'group'?",
        if cfg!(feature = "kafka") { "option 'topic' is missing" } else { "comes with the feature 'kafka'" },
        "'none' concurrency must be at least 1",
        "'slow' rate must be more than 0",
        "'dead'",
        "did you mean 'local'?",
        "'twice' is the name of two actors",
        "names no queue",
        "'letters'",
        "unknown option 'colour'",
        "'feed' asks for Publisher<Letter>",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }
}

#[tokio::test]
async fn two_batch_arguments_are_refused_with_what_to_write_instead() {
    let handler = |_: Batch<Raw>, _: Batch<Key>| async { Ok::<(), Failure>(()) };
    let text = refused(App::new("batches").consumer(Consumer::batch("take", "memory:in", handler))).await;
    assert!(text.contains("'take' has two Batch arguments"), "{text}");
}

#[tokio::test]
async fn two_producers_or_resources_of_one_type_are_refused() {
    let open = || async { Ok::<_, BoxError>(Pool(1)) };
    let text = refused(
        App::new("same")
            .producer(Producer::<Note>::new("one", "memory:one"))
            .producer(Producer::<Note>::new("two", "memory:two"))
            .resource("first", open)
            .resource("second", open),
    )
    .await;
    assert!(text.contains("'two' is a second producer of its type"), "{text}");
    assert!(text.contains("'second' is a second resource of its type"), "{text}");
}

#[tokio::test]
async fn a_resource_may_take_only_those_before_it() {
    struct Later;
    impl Resource for Later {
        async fn close(&self) -> Result<(), BoxError> {
            Ok(())
        }
    }
    let text = refused(
        App::new("resources")
            .resource("pool", |_: Res<Later>| async { Ok::<_, BoxError>(Pool(1)) })
            .resource("later", || async { Ok::<_, BoxError>(Later) }),
    )
    .await;
    assert!(text.contains("'pool' asks for Res<Later>"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_are_composed_by_installing_them() {
    fn letters(app: App) -> App {
        app.producer(Producer::<Letter>::new("letters", "memory:letters")).consumer(Consumer::new(
            "write",
            "memory:in",
            |Json(note): Json<Note>, out: To<Letter>| async move { out.send(&Letter(note.0)).await },
        ))
    }
    let memory = Memory::new();
    let running = started(App::new("modules").transport(memory.clone()).install(letters)).await;
    memory.publish("in", [numbered(1, "k")]).await.unwrap();
    stopped(running).await;
    assert_eq!(memory.len("letters"), 1);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn building_an_app_needs_no_runtime_and_opens_and_spawns_nothing() {
    // In a process of its own: other tests of this file spawn threads at the same time.
    if std::env::var_os("BUILD_ALONE").is_none() {
        let this = std::env::current_exe().unwrap();
        let name = "building_an_app_needs_no_runtime_and_opens_and_spawns_nothing";
        let mut alone = std::process::Command::new(this);
        let output = alone.args(["--exact", name, "--test-threads=1"]).env("BUILD_ALONE", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = |queue: &str| format!("local:{}?queue={queue}", dir.path().join("q.db").display());
    let before = threads();
    let app = App::from_env("built")
        .resource("pool", || async { Ok::<_, BoxError>(Pool(1)) })
        .producer(Producer::<Letter>::new("letters", store("letters")))
        .service("feed", |_: Publisher<Letter>| async { Ok::<_, BoxError>(()) })
        .bridge(Bridge::new("over", store("a"), format!("file:{}", dir.path().join("out.ndjson").display())))
        .consumer(Consumer::new("take", store("in"), |_: Delivery| async {}))
        .consumer(Consumer::new("file", format!("file:{}", dir.path().join("in.ndjson").display()), |_: Raw| async {}));
    assert_eq!(threads(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(app);
}

#[tokio::test]
async fn an_app_that_is_wrong_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("local:{}?queue=in", dir.path().join("q.db").display());
    refused(
        App::new("wrong")
            .resource("pool", || async { panic!("it must not be opened") as Result<Pool, BoxError> })
            .consumer(Consumer::new("take", store, |_: Raw, _: To<Note>| async {})),
    )
    .await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_or_service_may_report_itself_not_ready() {
    let (app, memory) = app("own word");
    let handler = |Json(n): Json<u32>, cx: Context| async move {
        if n == 1 { cx.report_not_ready("the printer is out of paper") } else { cx.report_ready() }
    };
    let running = started(app.consumer(Consumer::new("print", "memory:in", handler))).await;
    memory.publish("in", [numbered(1, "k")]).await.unwrap();
    eventually("it is not ready", || running.readiness().status == "not_ready").await;
    let reasons = running.readiness().reasons.join("\n");
    assert!(reasons.contains("print") && reasons.contains("the printer is out of paper"), "{reasons}");
    memory.publish("in", [numbered(2, "k")]).await.unwrap();
    eventually("it is ready", || running.readiness().status == "ready").await;
    stopped(running).await;
}
