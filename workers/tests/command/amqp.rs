//! RabbitMQ by the command: what is refused, and what becomes of bad input.

use crate::broker::{Broker, own, shared};
use crate::run::{run, run_with, waiting};

const CANARY: &str = "c4nary/pass?word";

/// Whether a text holds the password: as it is, as a URL has it, in base 64, or as a list of bytes.
fn shows_it(text: &str) -> bool {
    let forms = [
        CANARY,
        "c4nary%2Fpass%3Fword",
        "YzRuYXJ5L3Bhc3M/d29yZA",
        "AGd1ZXN0AGM0bmFyeS9wYXNzP3dvcmQ",
        "99, 52, 110, 97, 114, 121",
    ];
    forms.iter().any(|secret| text.contains(secret))
}

fn url(node: &Broker, options: &str) -> String {
    format!("amqp://guest:guest@127.0.0.1:{}?{options}", node.port())
}

#[test]
fn what_is_refused_ends_with_its_code_at_the_start_and_shows_no_password() {
    let Some(node) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), CANARY).unwrap();
    let file = dir.path().join("password");
    let wrong = format!("amqp://guest:${{file:{}}}@127.0.0.1:{}?queue=q", file.display(), node.port());
    let queue = node.fresh("absent");
    for (source, code, said) in [
        (wrong.clone(), 77, "user 'guest' was refused"),
        (url(&node, &format!("queue={queue}")).replace("?", "/nowhere?"), 77, "nowhere"),
        (url(&node, &format!("queue={queue}&declare=false")), 78, queue.as_str()),
        ("amqp://localhost:1?queue=q".to_owned(), 69, "localhost:1"),
    ] {
        for args in
            [&["consume", &source][..], &["inspect", &source], &["check", "--connect", "--as", "source", &source]]
        {
            // What does not exist cannot be looked at, whatever may be declared.
            let ran = run(dir.path(), args).ended(code).said(said);
            assert!(!shows_it(&ran.stderr) && !shows_it(&ran.stdout), "{args:?}: {}", ran.stderr);
        }
    }
    // Also where everything is logged.
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["check", "--connect", &wrong])
        .env("LONGSHORE_LOG", "trace,lapin=trace")
        .output()
        .unwrap();
    let logged = String::from_utf8(out.stderr).unwrap();
    assert!(logged.contains("\"DEBUG\"") && !shows_it(&logged), "{logged}");
    let sink = url(&node, "exchange=nowhere");
    run_with(dir.path(), &["produce", &sink], "{}\n").ended(78).said("exchange 'nowhere'");
}

#[test]
fn a_payload_that_is_no_json_is_a_dead_letter_with_its_raw_bytes_and_can_be_handled() {
    let Some(node) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = url(&node, &format!("queue={}", node.fresh("mixed")));
    let lines =
        "{\"payload\":\"{\\\"n\\\":1}\"}\n{\"payload\":{\"base64\":\"//4A\"}}\n{\"payload\":\"{\\\"n\\\":2}\"}\n";
    std::fs::write(dir.path().join("in.ndjson"), lines).unwrap();
    let ran = run(dir.path(), &["bridge", "file:in.ndjson?format=record", &source]).ended(0);
    assert_eq!(ran.count("acked"), 3);
    let ran = run(dir.path(), &["consume", &source, "--until-idle", "1s", "--output", "out.ndjson"]).ended(0);
    assert_eq!((ran.count("acked"), ran.count("dead_lettered")), (2, 1));
    assert_eq!(std::fs::read_to_string(dir.path().join("out.ndjson")).unwrap(), "{\"n\":1}\n{\"n\":2}\n");
    let letters = || run(dir.path(), &["dead-letters", "list", &source, "--json"]).ended(0).json();
    let all = letters();
    assert_eq!(all.len(), 1, "{all:?}");
    // A look takes nothing, however often.
    assert_eq!(letters().len(), 1);
    let at = all[0]["at"].as_str().unwrap();
    let shown = run(dir.path(), &["dead-letters", "show", &source, at, "--json"]).ended(0).json();
    assert_eq!(shown[0]["payload"]["escaped"], "\\xff\\xfe\\x00");
    let ran = run(dir.path(), &["dead-letters", "redrive", &source, "--yes"]).ended(0);
    assert_eq!((ran.count("acked"), waiting(dir.path(), &source)), (1, 1));
    assert_eq!(letters().len(), 0);
}

#[test]
fn dead_letters_are_discarded_for_good() {
    let Some(node) = own(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (source, dead) = (url(&node, "queue=w"), url(&node, "queue=w.dead"));
    let lines: String = (0..300).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    run_with(dir.path(), &["produce", &source], "{}\n").ended(0);
    run_with(dir.path(), &["produce", &dead], &lines).ended(0);
    let ran = run(dir.path(), &["dead-letters", "discard", &source, "--yes", "--limit", "260"]).ended(0);
    assert_eq!(ran.count("discarded"), 260);
    assert_eq!(waiting(dir.path(), &dead), 40);
    let ran = run(dir.path(), &["consume", &dead, "--until-idle", "1s"]).ended(0);
    // The proof of a removal may put what is left of a long queue out of its order, and loses none of it.
    let mut left: Vec<i64> = ran.json().iter().map(|line| line["n"].as_i64().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, (260..300).collect::<Vec<_>>());
}
