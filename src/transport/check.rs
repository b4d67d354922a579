//! What a look before the start finds.

/// Which side of a URL is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It is read.
    Source,
    /// It is written to.
    Sink,
}

/// Something that a check has found and that keeps nothing from starting; a sentence without a full stop, which names the
/// queue or the option and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// It may lose messages, or is otherwise than the URL says.
    Warning(String),
    /// Good to know: what would be made, and what could not be seen.
    Note(String),
}
