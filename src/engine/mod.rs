//! What runs handlers: a message is received, handled, settled.

pub(crate) mod attempt;
pub(crate) mod intake;
pub(crate) mod lane;
pub(crate) mod order;
pub(crate) mod outlet;
pub(crate) mod publish;
pub(crate) mod rate;
pub(crate) mod retry;
pub(crate) mod signal;
pub(crate) mod solo;
