//! Libraries stand only in the rooms that own them, so that each can be replaced there.

use std::path::{Path, PathBuf};

/// Each library, and where it may be named.
const ROOMS: [(&str, &[&str]); 4] = [
    ("ractor", &["actor/", "supervisor/"]),
    ("rusqlite", &["transport/local/"]),
    ("lapin", &["transport/amqp/"]),
    ("rdkafka", &["transport/kafka/"]),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Lines of code that name a library as a path or import; comments may speak of it.
fn names(text: &str, library: &str) -> Vec<(usize, String)> {
    let named = |line: &str| {
        line.match_indices(library).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + library.len()..]);
            let part_of_a_word = before.ends_with(|each: char| each.is_alphanumeric() || each == '_');
            !part_of_a_word && (after.starts_with("::") || before.ends_with("use ") || before.ends_with("crate "))
        })
    };
    let code = text.lines().enumerate().map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()));
    code.filter(|(_, line)| named(line)).map(|(number, line)| (number, line.trim().to_owned())).collect()
}

#[test]
fn each_library_is_named_in_its_own_rooms_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("workers/src"), &mut files);
    sources(&root.join("examples"), &mut files);
    assert!(files.len() > 50, "the tree is not where this test looks: {} files", files.len());
    let mut astray = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let place = file.strip_prefix(root.join("src")).ok().and_then(Path::to_str).unwrap_or_default().to_owned();
        for (library, rooms) in ROOMS {
            if rooms.iter().any(|room| place.starts_with(room)) {
                continue;
            }
            astray.extend(
                names(&text, library).into_iter().map(|(line, code)| format!("{}:{line}: {code}", file.display())),
            );
        }
    }
    assert!(astray.is_empty(), "\n{}", astray.join("\n"));
}

#[test]
fn a_library_outside_of_its_room_is_found_and_a_word_in_a_comment_is_not() {
    let code =
        "use ractor::Actor;\n// ractor says\ntractor::pull();\nfn f(_: ractor::ActorRef<u8>) {}\nuse ractor as r;\n";
    let lines: Vec<usize> = names(code, "ractor").into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 4, 5]);
}
