//! The transports of this crate.

use longshore::testing::conformance::{self, Place, Subject};
use longshore::transport::memory::Memory;

#[tokio::test]
async fn memory_conforms() {
    let mut count = 0;
    let subject = Subject::new("memory", Memory::new(), move |_| {
        count += 1;
        Place::new(format!("memory:q{count}"), format!("memory:q{count}?group={{group}}"))
    });
    conformance::run(subject.gives_back()).await.assert();
}

#[cfg(feature = "local")]
#[tokio::test]
async fn local_conforms() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let store = folder.path().join("queues.db").display().to_string();
    let mut count = 0;
    let subject = Subject::new("local", longshore::transport::local::Local::default(), move |_| {
        count += 1;
        let place = format!("local:{store}?queue=q{count}");
        Place::new(place.clone(), format!("{place}&group={{group}}"))
    });
    conformance::run(subject).await.assert();
}

#[cfg(feature = "file")]
mod file {
    use super::*;
    use longshore::testing::conformance::Carries;
    use longshore::transport::file::File;

    /// Lines of one file a place; `options` stand before those of the case.
    fn lines(name: &str, sink: &'static str, source: &'static str) -> (tempfile::TempDir, Subject) {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().display().to_string();
        let mut count = 0;
        let subject = Subject::new(name, File::default(), move |_| {
            count += 1;
            let file = format!("file:{path}/{count}.ndjson");
            Place::new(format!("{file}?{sink}"), format!("{file}?{source}&group={{group}}"))
        });
        (folder, subject)
    }

    #[tokio::test]
    async fn files_of_payloads_conform() {
        let (_folder, subject) = lines("file, a payload a line", "", "key=/key");
        conformance::run(subject.carries(Carries::JSON_LINES)).await.assert();
    }

    #[tokio::test]
    async fn files_of_records_conform() {
        let (_folder, subject) = lines("file, a record a line", "format=record", "format=record");
        conformance::run(subject).await.assert();
    }

    #[tokio::test]
    async fn files_that_are_followed_conform() {
        let (_folder, subject) = lines("file, followed", "format=record", "format=record&follow=true");
        conformance::run(subject).await.assert();
    }
}
