//! What is wrong, before anything starts.

use crate::run::run;

#[test]
fn a_check_names_everything_that_is_wrong_at_once_and_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["check", "local:w.db?qeue=q&claim=1ms", "lcoal:w.db", "local:w.db?queue=fine"])
        .ended(78)
        .said("unknown option 'qeue': did you mean 'queue'?")
        .said("option 'claim'")
        .said("unknown scheme 'lcoal': did you mean 'local'?");
    let fine = run(dir.path(), &["check", "--connect", "local:w.db?queue=q", "file:out.ndjson"]);
    assert!(fine.stdout.contains("'local:w.db?queue=q' as a source: fine"), "{}", fine.stdout);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was made");
    let json = run(dir.path(), &["check", "--json", "--as", "sink", "local:w.db?queue=q"]).ended(0).json();
    assert_eq!((json.len(), &json[0]["side"], &json[0]["ok"]), (1, &"sink".into(), &true.into()));
}
