//! The conformance suite: what every transport must do, and what it must do because it says so.
//!
//! It speaks to a [`Transport`](crate::transport::Transport) through its contract alone, so it runs on the rooms of
//! this crate and on a transport of your own alike. Each case is a claim with a name. A case that needs a capability
//! which is not declared is reported as such and not run; what is declared is tested.
//!
//! ```no_run
//! use longshore::testing::conformance::{self, Place, Subject};
//! use longshore::transport::memory::Memory;
//!
//! # async fn test() {
//! let mut count = 0;
//! let subject = Subject::new("memory", Memory::new(), move |_case| {
//!     count += 1;
//!     Place::new(format!("memory:orders-{count}"), format!("memory:orders-{count}?group={{group}}"))
//! });
//! conformance::run(subject).await.assert();
//! # }
//! ```
//!
//! Everything is published before its source opens, unless a case is about the contrary; so a source that reads to an
//! end and stops there runs the same cases as a queue.
//!
//! A case that says "nothing more comes" first publishes one more message and reads on to that, and then listens for
//! [`Subject::quiet`]. A longer time finds more; no time finds what is not there.

mod bench;
mod cases;
mod closing;
mod content;
mod delivery;
mod demand;
mod got;
mod looking;
mod order;
mod ownership;
mod publishing;
mod reader;
mod redelivery;
mod report;
mod settlement;
mod subject;
mod writer;

pub use report::{Outcome, Report};
pub use subject::{Carries, Place, Subject};

use bench::Bench;
use cases::{Case, Stop};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Every case, in the order in which they run: a transport that fails the first ones need not wonder at the rest.
fn all() -> impl Iterator<Item = &'static Case> {
    [
        publishing::CASES,
        delivery::CASES,
        content::CASES,
        demand::CASES,
        settlement::CASES,
        redelivery::CASES,
        order::CASES,
        ownership::CASES,
        closing::CASES,
        looking::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The names of every case there is.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|case| case.name)
}

/// Puts a transport to every case that its capabilities call for, one after the other.
///
/// Needs a tokio runtime with time. Every single wait ends with the subject's patience, so this ends too; a panic in
/// the transport fails its case and no other.
///
/// Panics when [`Subject::only`] names a case that does not exist.
pub async fn run(subject: Subject) -> Report {
    for name in &subject.only {
        assert!(names().any(|known| known == name), "there is no case '{name}'");
    }
    let mut report = Report::of(&subject.name);
    let mut bench = match Bench::new(subject) {
        Ok(bench) => bench,
        Err(error) => {
            report.add("a_place_can_be_planned", Outcome::Failed(error.to_string()));
            return report;
        }
    };
    for case in all() {
        if !bench.subject.only.is_empty() && !bench.subject.only.iter().any(|name| name == case.name) {
            continue;
        }
        let outcome = match case.needs.iter().find(|need| !need.is_met(&bench)) {
            Some(need) => Outcome::NotDeclared(need.text().to_owned()),
            None => {
                bench.case = case.name;
                match unwound((case.run)(&mut bench)).await {
                    Ok(Ok(())) => Outcome::Passed,
                    Ok(Err(Stop::NotDeclared(what))) => Outcome::NotDeclared(what),
                    Ok(Err(Stop::Fault(why))) => Outcome::Failed(why),
                    Err(panic) => Outcome::Failed(format!("panicked: {panic}")),
                }
            }
        };
        report.add(case.name, outcome);
    }
    report
}

/// A future whose panic is its result.
async fn unwound<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(panic) => Poll::Ready(Err(panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "something that is no text".to_owned()))),
    })
    .await
}
