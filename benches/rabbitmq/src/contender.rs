//! Who is compared: a file each.

pub mod bare;
pub mod longshore;
pub mod ruststream;

/// What a contender may fail with.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Unacked deliveries of one consumer, and confirms that a publisher has outstanding.
pub const WINDOW: u16 = 1_000;
