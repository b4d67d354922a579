//! How much the broker lets out unsettled: pure.
//!
//! AMQP knows no bound in bytes, only in messages; so the bytes are bounded by prefetch × the largest message seen. A
//! consumer starts with [`START`] and grows to the engine's window as far as its byte budget allows. `basic.qos` on a
//! live consumer changes nothing: a change is a new consumer.

/// Before the first message is seen, no more than this.
pub(super) const START: u16 = 16;
/// Messages let out for each handler where order to other consumers fixes the prefetch at the start.
const LOOK_AHEAD: u32 = 4;

/// What a consumer is opened with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// `prefetch=` of the URL: it is taken at its word.
    pub(super) explicit: Option<u16>,
    /// Only one of several consumers is given messages: a change would hand them to another, so there is none, and the
    /// bytes are bounded by the largest message that is allowed alone.
    pub(super) fixed: bool,
    /// Handlers at a time.
    pub(super) concurrency: u32,
    /// The most that the engine has had unsettled and asked for at once.
    pub(super) window: u32,
    /// The most bytes that it has asked for.
    pub(super) budget: u64,
    /// The largest message so far, 0 before there was one.
    pub(super) largest: u64,
}

impl Wish {
    pub(super) fn prefetch(&self) -> u16 {
        let clamped = |messages: u64| u16::try_from(messages.max(1)).unwrap_or(u16::MAX);
        match (self.explicit, self.fixed) {
            (Some(explicit), _) => explicit,
            (None, true) => clamped(u64::from(self.window.max(self.concurrency.saturating_mul(LOOK_AHEAD)))),
            (None, false) => {
                let by_bytes = self.budget.checked_div(self.largest).unwrap_or(u64::from(START));
                clamped(u64::from(self.window).min(by_bytes))
            }
        }
    }

    /// What a consumer with that prefetch should have instead, if that is worth a new one. `starved`: the engine wants
    /// more, and the broker lets no more out.
    pub(super) fn instead_of(&self, prefetch: u16, starved: bool) -> Option<u16> {
        let wanted = self.prefetch();
        let grows = wanted / 2 >= prefetch || (wanted > prefetch && starved);
        let shrinks = wanted <= prefetch / 2;
        (!self.fixed && (grows || shrinks)).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish =
        Wish { explicit: None, fixed: false, concurrency: 16, window: 256, budget: 64 << 20, largest: 0 };

    #[test]
    fn it_starts_small_and_grows_to_the_window_within_the_budget() {
        assert_eq!(WISH.prefetch(), START);
        assert_eq!(Wish { largest: 1_000, ..WISH }.instead_of(START, false), Some(256));
        assert_eq!(Wish { largest: 1_000, ..WISH }.instead_of(256, true), None);
        // 64 MiB hold four messages of 16 MiB: fewer than at the start.
        assert_eq!(Wish { largest: 16 << 20, ..WISH }.instead_of(START, false), Some(4));
        assert_eq!(Wish { largest: u64::MAX, ..WISH }.prefetch(), 1);
    }

    #[test]
    fn a_little_more_is_worth_a_new_consumer_only_where_the_engine_starves() {
        let wish = Wish { window: 20, largest: 1, ..WISH };
        assert_eq!(wish.instead_of(16, false), None);
        assert_eq!(wish.instead_of(16, true), Some(20));
    }

    #[test]
    fn what_the_url_says_holds_and_a_single_active_consumer_never_changes() {
        assert_eq!(Wish { explicit: Some(1_000), largest: 16 << 20, ..WISH }.prefetch(), 1_000);
        assert_eq!(Wish { explicit: Some(1_000), largest: 16 << 20, ..WISH }.instead_of(1_000, true), None);
        let fixed = Wish { fixed: true, window: 3, ..WISH };
        assert_eq!((fixed.prefetch(), fixed.instead_of(2, true)), (64, None));
    }
}
