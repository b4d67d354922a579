//! Kafka by the command: dead letters from their death to their second life.

use crate::kafka::shared;
use crate::run::{run, run_with, waiting};

#[test]
fn dead_letters_are_listed_shown_redriven_and_discarded_and_are_gone_then_for_every_process() {
    let Some(kafka) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = format!("{}?topic={}&group=ship", kafka.url(), kafka.fresh("mixed"));
    run_with(dir.path(), &["produce", &source], "{\"n\":1}\n").ended(0);
    // Nothing has died yet: there is no topic of dead letters.
    run(dir.path(), &["dead-letters", "list", &source]).ended(0).said("no dead letters in");
    let lines: String = ["//4A", "//4B", "//4C"]
        .iter()
        .map(|bytes| format!("{{\"key\":\"k\",\"payload\":{{\"base64\":\"{bytes}\"}}}}\n"))
        .collect();
    std::fs::write(dir.path().join("in.ndjson"), lines).unwrap();
    assert_eq!(run(dir.path(), &["bridge", "file:in.ndjson?format=record", &source]).ended(0).count("acked"), 3);
    let consume = || run(dir.path(), &["consume", &source, "--until-idle", "1s", "--output", "out.ndjson"]).ended(0);
    let ran = consume();
    assert_eq!((ran.count("acked"), ran.count("dead_lettered")), (1, 3));
    assert_eq!(waiting(dir.path(), &source), 0);

    let letters = |args: &[&str]| {
        let args = [&["dead-letters"], args].concat();
        run(dir.path(), &args).ended(0)
    };
    let at = || -> Vec<String> {
        let listed = letters(&["list", &source, "--json"]).json();
        listed.iter().map(|letter| letter["at"].as_str().unwrap().to_owned()).collect()
    };
    let dead = || run(dir.path(), &["inspect", &source, "--json"]).ended(0).json()[0]["dead"].as_u64();
    let all = at();
    assert_eq!((all.len(), dead()), (3, Some(3)), "{all:?}");
    // A look takes nothing, however often.
    assert_eq!(at(), all);
    let shown = letters(&["show", &source, &all[1], "--json"]).json();
    assert_eq!((&shown[0]["payload"]["escaped"], &shown[0]["key"]), (&"\\xff\\xfe\\x01".into(), &"k".into()));

    assert_eq!(letters(&["redrive", &source, "--limit", "1", "--yes"]).count("acked"), 1);
    assert_eq!((waiting(dir.path(), &source), at(), dead()), (1, all[1..].to_vec(), Some(2)));
    assert_eq!(
        letters(&["discard", &source, "--where", "reason=unrepresentable", "--limit", "1", "--yes"]).count("discarded"),
        1
    );
    assert_eq!((at(), dead()), (all[2..].to_vec(), Some(1)));
    // What was sent again dies again, behind what is left.
    assert_eq!(consume().count("dead_lettered"), 1);
    let again = at();
    assert_eq!((again.len(), &again[0], dead()), (2, &all[2], Some(2)), "{again:?}");
    assert_eq!(letters(&["discard", &source, "--yes"]).count("discarded"), 2);
    assert_eq!((at().len(), dead()), (0, Some(0)));
    letters(&["list", &source]).said("no dead letters in");
}
