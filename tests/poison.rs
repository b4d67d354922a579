//! A message that kills its process: dead-lettered in the end, and no other message with it.

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::local::Local;
use longshore::transport::{SinkAsk, SinkEvent, SinkSpec, Transport, Url};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const STORE: &str = "LONGSHORE_TEST_POISON_STORE";
const MESSAGES: u32 = 40;
const POISON: u32 = 7;
/// More than it takes: two owners that die until it is a suspect, and three solo runs.
const LIVES: u32 = 8;

/// One life of the worker: consumes until nothing waits, or dies of the message.
#[test]
fn life() {
    let Ok(store) = std::env::var(STORE) else { return };
    let path = Path::new(&store).with_extension("effects");
    let effects = Arc::new(std::fs::File::options().create(true).append(true).open(path).unwrap());
    let handler = move |Json(n): Json<u32>| {
        let effects = effects.clone();
        async move {
            if n == POISON {
                std::process::abort();
            }
            (&*effects).write_all(format!("{n}\n").as_bytes())?;
            Ok::<_, BoxError>(())
        }
    };
    let url = format!("local:{store}?queue=orders&group=ship");
    let stopped = App::new("poison")
        .admin("off".parse().unwrap())
        .consumer(Consumer::new("ship", url, handler).until_idle(Duration::from_millis(300)))
        .run_to_end()
        .unwrap();
    assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
}

async fn publish(store: &str) {
    let url = Url::parse(&format!("local:{store}?queue=orders")).unwrap();
    let mut sink =
        Local::default().sink(&url, &SinkSpec::new("test", Duration::from_secs(5))).unwrap().open().await.unwrap();
    let mut slab = longshore::message::SlabBuilder::new();
    for n in 0..MESSAGES {
        slab.push_message(&Message::new(n.to_string()).with_key(format!("{}", n % 5)));
    }
    let slab = Arc::new(slab.finish("orders".into()));
    let mut sent = false;
    loop {
        match sink.next().await {
            SinkEvent::Demand { .. } if !std::mem::replace(&mut sent, true) => {
                sink.tell(SinkAsk::Send { batch: 0, slab: slab.clone() });
            }
            SinkEvent::Confirmed { range, failed, .. } if range.end == MESSAGES => {
                assert!(failed.is_empty());
                return;
            }
            SinkEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_message_that_kills_its_process_is_dead_lettered_and_no_other_message_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("orders.db");
    let store = store.to_str().unwrap();
    publish(store).await;
    let mut lives = 0;
    loop {
        lives += 1;
        assert!(lives <= LIVES, "it still kills");
        let life = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "life", "--nocapture"])
            .env(STORE, store)
            .output()
            .unwrap();
        if life.status.success() {
            break;
        }
    }
    assert_eq!(lives, 2 + 3 + 1, "two owners, three runs of its own, and the one that buries it");
    let url = Url::parse(&format!("local:{store}?queue=orders.ship.dead")).unwrap();
    let dead = Local::default().shelf(&url).await.unwrap().read(100).await.unwrap();
    let found: Vec<_> =
        dead.iter().map(|message| (message.payload().unwrap(), message.headers().text("longshore-reason"))).collect();
    assert_eq!(found, [(POISON.to_string().as_bytes(), Some("poison"))]);
    let effects = std::fs::read_to_string(dir.path().join("orders.effects")).unwrap();
    let mut handled: Vec<u32> = effects.lines().map(|line| line.parse().unwrap()).collect();
    handled.sort_unstable();
    handled.dedup();
    assert_eq!(handled, (0..MESSAGES).filter(|n| *n != POISON).collect::<Vec<_>>());
}
