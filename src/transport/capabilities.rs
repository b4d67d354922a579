//! What a transport promises; the conformance suite tests exactly what is declared here.

/// What the broker's own count of deliveries says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryCount {
    /// It keeps none.
    #[default]
    None,
    /// Never below the handler starts that happened.
    UpperBound,
    /// Handler starts that were settled or marked, across crashes.
    Exact,
}

/// What a source and its sink promise. Everything is `false` until it is claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A confirmed message outlives the process: at least once is promised.
    pub durable: bool,
    /// Order by key holds over several processes that consume the same group.
    pub ordered_across_processes: bool,
    /// Messages carry a partition.
    pub partitions: bool,
    /// Messages carry a key of their own.
    pub keys: bool,
    /// What the delivery count says.
    pub delivery_count: DeliveryCount,
    /// `Verdict::Retry` comes again after its delay, and the wait outlives the process if `durable`.
    pub delayed_redelivery: bool,
    /// A message can be settled while an earlier one is not, and that outlives a crash if `durable`.
    pub settles_one_by_one: bool,
    /// What is delivered unsettled is bounded in bytes as well as in messages.
    pub bytes_bounded: bool,
    /// Takes back what was delivered and not settled, in its old order. Where it cannot, a stop works off what is there.
    pub takes_back: bool,
    /// `Ask::Mark` is durable before `Event::Marked`.
    pub poison_protection: bool,
    /// Several groups each see every message.
    pub groups: bool,
    /// Several consumers of a group share its messages.
    pub shared: bool,
    /// A group that is new sees messages from before.
    pub replays: bool,
    /// Comes to an end by itself.
    pub finite: bool,
    /// Sends and settlements can be one transaction.
    pub transactions: bool,
    /// Recognises a publish of an id that is still there, and confirms it without storing it twice.
    pub recognises_ids: bool,
    /// Look-ahead in messages below which batches get too small to be fast.
    pub batch: u32,
}
