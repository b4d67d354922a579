//! Bugs to plant into the worker under test: the books must show each. A checker that cannot fail is worthless.

use clap::ValueEnum;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// Ack first, handle later: a message that is acked and whose handler dies is lost.
    AckBeforeHandler,
    /// Now and then ack what was not handled.
    SkipEffect,
    /// Now and then handle a message twice.
    EffectTwice,
    /// Hold to no order.
    NoOrder,
    /// Now and then damage a payload.
    Damage,
    /// End long after everything has stopped.
    LingerAtTheEnd,
    /// Say that all went well whatever happened, or that it did not when it did.
    WrongExit,
}

/// One message in so many, for the bugs that happen now and then.
pub const NOW_AND_THEN: u32 = 500;
