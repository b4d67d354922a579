//! The library's error: opaque, with predicates for the decisions that callers take.

use crate::failure::BoxError;
use std::fmt;

/// What an error means for the process; each has an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A wrong URL, option, path, address, store version, or an absent queue that may not be declared.
    Configuration,
    /// Refused by password, certificate, permission or vhost.
    Credentials,
    /// A broker that cannot be reached, or is gone for now.
    Unreachable,
    /// An `open`, `started` or `start` failed, or a store is damaged.
    Start,
    /// Bad input where no dead-letter place exists.
    BadInput,
    /// Gave up restarting, or another owner took over.
    GaveUp,
    /// The deadline passed.
    Deadline,
    /// A store or a file said no for now: disk full, locked, an I/O error.
    Io,
}

/// An error of Longshore itself: of configuration, of a transport, of a start or a stop.
///
/// Its text names the field, queue or worker and carries no secret.
pub struct Error {
    kind: ErrorKind,
    text: String,
    source: Option<BoxError>,
}

impl Error {
    /// An error of that kind; `text` is lower case, without a full stop, and names what it is about.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    /// A wrong setting.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, text)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, said of `what`: `what: text`.
    #[must_use]
    pub fn of(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// What it means for the process.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same may succeed later without anybody changing a setting.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable | ErrorKind::Io)
    }

    /// The code a process ends with that fails by this error at its start.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Configuration => 78,
            ErrorKind::Credentials => 77,
            ErrorKind::Unreachable => 69,
            ErrorKind::BadInput => 65,
            ErrorKind::GaveUp => 70,
            ErrorKind::Deadline => 75,
            ErrorKind::Start | ErrorKind::Io => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let mut cause = self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind)
    }
}

// `source` is left out on purpose: `Display` prints the chain, and printing both would say it twice.
impl std::error::Error for Error {}
