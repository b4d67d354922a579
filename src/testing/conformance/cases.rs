//! What a case is: a claim, what it needs, and how it stops.

use super::bench::Bench;
use crate::error::Error;
use crate::transport::{BoxFuture, DeliveryCount};
use std::fmt;

/// A claim about a transport, and how it is tried.
pub(super) struct Case {
    /// The claim.
    pub name: &'static str,
    /// What must be declared for it.
    pub needs: &'static [Need],
    /// How it is tried.
    pub run: for<'a> fn(&'a mut Bench) -> BoxFuture<'a, Tried>,
}

/// What a case comes to.
pub(super) type Tried<T = ()> = Result<T, Stop>;

/// Why a case went no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// The claim does not hold.
    Fault(String),
    /// It turned out that the transport does not promise it.
    NotDeclared(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Fault(error.to_string())
    }
}

/// What a transport must declare, or a place carry, for a case to be run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// What is delivered and not settled comes again when its source ends: declared by `durable` or `takes_back`, or
    /// said of the subject.
    Keeps,
    /// The same in the old order, and what is given back too: declared by `takes_back`, or said of the subject.
    GivesBack,
    /// A stop need not work off what is there.
    Durable,
    TakesBack,
    CannotTakeBack,
    OneByOne,
    Delayed,
    BytesBounded,
    Poison,
    Groups,
    Shared,
    Replays,
    Finite,
    /// It goes on after what was there when it opened.
    LivesOn,
    Ids,
    OrderedAcross,
    DeliveryCount,
    Partless,
    Keys,
    Headers,
    Tombstones,
    EmptyPayloads,
    AnyBytes,
    Timestamps,
    /// The subject can end an ownership from outside.
    Lapse,
}

impl Need {
    pub(super) fn is_met(self, bench: &Bench) -> bool {
        let (declared, subject) = (&bench.source, &bench.subject);
        match self {
            Need::Keeps => declared.durable || declared.takes_back || subject.gives_back,
            Need::GivesBack => declared.takes_back || subject.gives_back,
            Need::Durable => declared.durable,
            Need::TakesBack => declared.takes_back,
            Need::CannotTakeBack => !declared.takes_back,
            Need::OneByOne => declared.settles_one_by_one,
            Need::Delayed => declared.delayed_redelivery,
            Need::BytesBounded => declared.bytes_bounded,
            Need::Poison => declared.poison_protection,
            Need::Groups => declared.groups,
            Need::Shared => declared.shared,
            Need::Replays => declared.replays,
            Need::Finite => declared.finite,
            Need::LivesOn => !declared.finite,
            Need::Ids => bench.sink.recognises_ids,
            Need::OrderedAcross => declared.ordered_across_processes,
            Need::DeliveryCount => declared.delivery_count == DeliveryCount::UpperBound,
            Need::Partless => !declared.partitions,
            Need::Keys => subject.carries.keys,
            Need::Headers => subject.carries.headers,
            Need::Tombstones => subject.carries.tombstones,
            Need::EmptyPayloads => subject.carries.empty_payloads,
            Need::AnyBytes => subject.carries.any_bytes,
            Need::Timestamps => subject.carries.timestamps,
            Need::Lapse => subject.lapse.is_some(),
        }
    }

    /// What is missing when it is not met.
    pub(super) fn text(self) -> &'static str {
        match self {
            Need::Keeps => "neither durable nor takes_back",
            Need::GivesBack => "takes_back",
            Need::Durable => "durable",
            Need::TakesBack => "takes_back",
            Need::CannotTakeBack => "it takes back",
            Need::OneByOne => "settles_one_by_one",
            Need::Delayed => "delayed_redelivery",
            Need::BytesBounded => "bytes_bounded",
            Need::Poison => "poison_protection",
            Need::Groups => "groups",
            Need::Shared => "shared",
            Need::Replays => "replays",
            Need::Finite => "finite",
            Need::LivesOn => "it is finite",
            Need::Ids => "recognises_ids",
            Need::OrderedAcross => "ordered_across_processes",
            Need::DeliveryCount => "a delivery count that is an upper bound",
            Need::Partless => "one order over all keys: it has partitions",
            Need::Keys => "the place carries no keys",
            Need::Headers => "the place carries no headers",
            Need::Tombstones => "the place carries no tombstones",
            Need::EmptyPayloads => "the place carries no empty payloads",
            Need::AnyBytes => "the place carries JSON lines only",
            Need::Timestamps => "the place carries no timestamps",
            Need::Lapse => "the subject cannot end an ownership from outside",
        }
    }
}

/// Stops a case unless something holds.
pub(super) fn check(holds: bool, why: impl fmt::Display) -> Tried {
    if holds { Ok(()) } else { Err(Stop::Fault(why.to_string())) }
}

/// Stops a case unless two things are the same.
pub(super) fn same<T: PartialEq + fmt::Debug>(what: impl fmt::Display, is: T, should: T) -> Tried {
    if is == should { Ok(()) } else { Err(Stop::Fault(format!("{what}: is {is:?}, should be {should:?}"))) }
}

/// The cases of a file: `claim: [what it needs]`, where an async function of that name tries the claim.
macro_rules! cases {
    ($($name:ident: [$($need:ident),*];)*) => {
        pub(super) const CASES: &[super::cases::Case] = &[$(super::cases::Case {
            name: stringify!($name),
            needs: &[$(super::cases::Need::$need),*],
            run: |bench| Box::pin($name(bench)),
        }),*];
    };
}
pub(super) use cases;
