//! A record that kills its process: dead-lettered in the end, and no other record with it.

use super::kafka::shared;
use super::reader::put;
use super::records::all;
use longshore::prelude::*;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;

const URL: &str = "LONGSHORE_TEST_POISON_URL";
const EFFECTS: &str = "LONGSHORE_TEST_POISON_EFFECTS";
const MESSAGES: usize = 40;
const POISON: u32 = 7;
/// Owners that die before it is known how, its runs alone, the life that buries it, and one for an owner that died so
/// soon that it left no trace.
const LIVES: u32 = 3 + 3 + 1 + 1;

/// One life of the worker: consumes until nothing waits, or dies of the record.
#[test]
fn life() {
    let (Ok(url), Ok(path)) = (std::env::var(URL), std::env::var(EFFECTS)) else { return };
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
    let stopped = App::new("poison")
        .admin("off".parse().unwrap())
        .consumer(Consumer::new("ship", url, handler).until_idle(Duration::from_millis(500)))
        .run_to_end()
        .unwrap();
    assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kills_its_process_is_dead_lettered_and_no_other_record_is() {
    let Some(kafka) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let effects = dir.path().join("effects");
    let topic = kafka.fresh("poison");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 1)).await;
    put(&kafka, &topic, 0, (0..MESSAGES).map(|n| n.to_string())).await;
    // A member of a name of its own is let in again at once, dead or not.
    let url = format!("{}?topic={topic}&group=ship&instance=one", kafka.url());
    let mut lives = 0;
    loop {
        lives += 1;
        assert!(lives <= LIVES, "it still kills");
        let mut life = Command::new(std::env::current_exe().unwrap());
        life.args(["--exact", "poison::life", "--nocapture"]).env(URL, &url).env(EFFECTS, &effects);
        let life = kafka.aside(move |_| life.output().unwrap()).await;
        if life.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&life.stderr);
        assert!(life.status.code().is_none(), "it ended by itself: {} {said}", life.status);
    }
    let dead: Vec<(String, String)> = all(&kafka, &format!("{topic}.ship.dead"))
        .await
        .iter()
        .map(|record| {
            let reason = record.headers.iter().find(|(name, _)| name == "longshore-reason");
            (record.text(), String::from_utf8(reason.unwrap().1.clone()).unwrap())
        })
        .collect();
    assert_eq!(dead, [(POISON.to_string(), "poison".to_owned())], "after {lives} lives");
    let effects = std::fs::read_to_string(&effects).unwrap();
    let mut handled: Vec<u32> = effects.lines().map(|line| line.parse().unwrap()).collect();
    handled.sort_unstable();
    handled.dedup();
    assert_eq!(handled, (0..MESSAGES as u32).filter(|n| *n != POISON).collect::<Vec<_>>());
}
