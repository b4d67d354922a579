//! What became of a message.
//!
//! A handler returns; the runtime settles. A handler's `Err` is a [`Failure`], which says whether trying again can
//! help. It takes any error by `?`, as retryable, so that an ordinary error in a handler is tried again and only what
//! is said to be permanent goes to the dead letters at once.

use std::fmt;
use std::time::Duration;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a handler says of a message: done, or why not.
pub type Outcome = Result<(), Failure>;

/// What shall become of a message that was not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// Try again: after the delay of the worker's retry policy, or after this one.
    Retry {
        /// A delay that replaces the policy's.
        after: Option<Duration>,
    },
    /// Trying again cannot help: to the dead letters.
    Reject,
    /// Not wanted: settled, kept nowhere, counted.
    Discard,
}

/// Why a message was not handled, and what shall become of it.
///
/// Not a `std::error::Error` itself, so that `?` can turn any error into one; [`Failure::into_error`] and
/// [`Failure::from`] carry it through code that speaks of errors, unchanged.
pub struct Failure {
    fate: Fate,
    /// The class that a dead letter and a metric name: `error`, `panic`, `timeout`, `undecodable`, `rejected`, …
    class: &'static str,
    source: BoxError,
}

impl Failure {
    /// Transient: try again.
    pub fn retry(source: impl Into<BoxError>) -> Self {
        Self { fate: Fate::Retry { after: None }, class: "error", source: source.into() }
    }

    /// Transient: try again after this delay, whatever the policy says.
    pub fn retry_after(after: Duration, source: impl Into<BoxError>) -> Self {
        Self { fate: Fate::Retry { after: Some(after) }, class: "error", source: source.into() }
    }

    /// Permanent: to the dead letters.
    pub fn reject(source: impl Into<BoxError>) -> Self {
        Self { fate: Fate::Reject, class: "rejected", source: source.into() }
    }

    /// Not wanted: settled and counted as discarded.
    pub fn discard(source: impl Into<BoxError>) -> Self {
        Self { fate: Fate::Discard, class: "discarded", source: source.into() }
    }

    /// The same failure under another class, as dead letters and metrics name it.
    #[must_use]
    pub fn classed(mut self, class: &'static str) -> Self {
        self.class = class;
        self
    }

    /// What shall become of the message.
    pub fn fate(&self) -> &Fate {
        &self.fate
    }

    /// The class that a dead letter and a metric name.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// The error behind it.
    pub fn source(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }

    /// The error and its causes, joined by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.source.to_string();
        let mut cause = self.source.source();
        while let Some(error) = cause {
            let next = error.to_string();
            // Many libraries repeat their cause in their own text.
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }

    /// The same fate and class with the text of the error: for several messages that failed by one cause.
    pub(crate) fn copied(&self) -> Self {
        Self { fate: self.fate.clone(), class: self.class, source: self.chain().into() }
    }

    /// As an error, for code that speaks of errors; [`Failure::from`] gives it back unchanged.
    pub fn into_error(self) -> BoxError {
        Box::new(Carried(self))
    }
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        match error.into().downcast::<Carried>() {
            Ok(carried) => carried.0,
            Err(error) => Failure::retry(error),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("fate", &self.fate)
            .field("class", &self.class)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

#[derive(Debug)]
struct Carried(Failure);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Carried {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.source()
    }
}

/// How each of some deliveries was settled, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Handled and acknowledged.
    pub acked: u64,
    /// Handed to a durable retry.
    pub retried: u64,
    /// Stored as a dead letter, then acknowledged.
    pub dead_lettered: u64,
    /// Dropped on the handler's word, then acknowledged.
    pub discarded: u64,
}

impl Tally {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.acked + self.retried + self.dead_lettered + self.discarded
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.discarded += other.discarded;
    }
}

impl std::ops::SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        // Saturating: a source that proves more than it was told must not take the count of the others with it.
        self.acked = self.acked.saturating_sub(other.acked);
        self.retried = self.retried.saturating_sub(other.retried);
        self.dead_lettered = self.dead_lettered.saturating_sub(other.dead_lettered);
        self.discarded = self.discarded.saturating_sub(other.discarded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails() -> Outcome {
        "x".parse::<u32>()?;
        Ok(())
    }

    #[test]
    fn a_plain_error_is_retryable() {
        assert_eq!(*fails().unwrap_err().fate(), Fate::Retry { after: None });
    }

    #[test]
    fn a_failure_survives_its_way_through_code_that_speaks_of_errors() {
        let back = Failure::from(Failure::reject("no such order").classed("undecodable").into_error());
        assert_eq!((back.fate(), back.class(), back.chain().as_str()), (&Fate::Reject, "undecodable", "no such order"));
    }
}
