//! The node that tests of topology, login and TLS share, and what is asked of it by the public API.

use crate::broker::{Own, own};
use longshore::Error;
use longshore::transport::{Finding, Inspection, Shelf, Side, Transports, Url};
use std::sync::OnceLock;

/// With TLS and the management plugin. It ends with this process.
pub fn node() -> Option<&'static Own> {
    static NODE: OnceLock<Option<Own>> = OnceLock::new();
    NODE.get_or_init(|| own(&["--tls", "--management"])).as_ref()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// What a check of a source or a sink says.
pub async fn check(text: &str, side: Side) -> Result<Vec<Finding>, Error> {
    let (url, transports) = (url(text), Transports::built_in());
    transports.of(&url)?.check(&url, side).await
}

/// The warnings of a check, a line each.
pub async fn warnings(text: &str, side: Side) -> String {
    let found = check(text, side).await.unwrap();
    let warnings = found.into_iter().filter_map(|finding| match finding {
        Finding::Warning(text) => Some(text),
        _ => None,
    });
    warnings.collect::<Vec<_>>().join("\n")
}

/// The error of a check that fails.
pub async fn refusal(text: &str, side: Side) -> Error {
    check(text, side).await.expect_err(text)
}

pub async fn inspect(text: &str) -> Result<Inspection, Error> {
    let (url, transports) = (url(text), Transports::built_in());
    transports.of(&url)?.inspect(&url, "group").await
}

/// A look into a queue. Looks of one test share their transport, which lets each end before the next begins.
pub async fn shelf(transports: &Transports, text: &str) -> Result<Box<dyn Shelf>, Error> {
    let url = url(text);
    transports.of(&url)?.shelf(&url).await
}
