//! Extractors: what a handler asks of a message.

use super::{Batch, BatchDone, Context, Deliveries, Missing, Wiring};
use crate::delivery::Delivery;
use crate::engine::attempt::Cause;
use crate::failure::{BoxError, Failure, Outcome};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::ops::{Deref, DerefMut};

/// What a handler is called with: a message, a batch, or nothing yet.
pub trait Input: Send + 'static {
    #[doc(hidden)]
    fn origin(&self) -> Option<Origin<'_>>;
}

/// The handler start behind an input, and the message whose key a send inherits.
#[doc(hidden)]
#[derive(Debug)]
pub struct Origin<'a> {
    pub(crate) cause: &'a Cause,
    pub(crate) inherits: Option<&'a Delivery>,
}

/// What a handler handles at a time.
pub trait Unit: Input + Sized {
    /// What it says when it is done.
    type Done: Send + 'static;
    /// What is known before the handler runs and must be merged into what it says.
    #[doc(hidden)]
    type Early: Send + 'static;
    #[doc(hidden)]
    const BATCH: bool;

    #[doc(hidden)]
    fn gather(members: Vec<Delivery>) -> Self;
    #[doc(hidden)]
    fn one(delivery: Delivery) -> Self;
    #[doc(hidden)]
    fn early(&self) -> Self::Early;
    #[doc(hidden)]
    fn merge(early: Self::Early, done: Result<Self::Done, Failure>) -> Result<Self::Done, Failure>;
    #[doc(hidden)]
    fn spread(done: Result<Self::Done, BoxError>, count: usize, each: &mut dyn FnMut(usize, Outcome));
}

impl Input for Delivery {
    fn origin(&self) -> Option<Origin<'_>> {
        Some(Origin { cause: &self.cause, inherits: Some(self) })
    }
}

impl Unit for Delivery {
    type Done = ();
    type Early = ();
    const BATCH: bool = false;

    fn gather(mut members: Vec<Delivery>) -> Self {
        members.pop().expect("a unit has a member")
    }

    fn one(delivery: Delivery) -> Self {
        delivery
    }

    fn early(&self) {}

    fn merge((): (), done: Outcome) -> Outcome {
        done
    }

    fn spread(done: Result<(), BoxError>, _count: usize, each: &mut dyn FnMut(usize, Outcome)) {
        each(0, done.map_err(Failure::from));
    }
}

impl Input for Deliveries {
    fn origin(&self) -> Option<Origin<'_>> {
        // Which of them a send is about is not known, so it inherits no key.
        self.first().map(|first| Origin { cause: &first.cause, inherits: None })
    }
}

impl Unit for Deliveries {
    type Done = BatchDone;
    type Early = Vec<Option<Failure>>;
    const BATCH: bool = true;

    fn gather(members: Vec<Delivery>) -> Self {
        Deliveries::new(members)
    }

    fn one(delivery: Delivery) -> Self {
        Deliveries::new(vec![delivery])
    }

    fn early(&self) -> Vec<Option<Failure>> {
        self.take_refused()
    }

    fn merge(early: Vec<Option<Failure>>, done: Result<BatchDone, Failure>) -> Result<BatchDone, Failure> {
        BatchDone::merge(early, done)
    }

    fn spread(done: Result<BatchDone, BoxError>, count: usize, each: &mut dyn FnMut(usize, Outcome)) {
        BatchDone::spread(done.map_err(Failure::from), count, each);
    }
}

/// Before there are messages: what a resource, a service or a factory is made from.
#[derive(Debug, Default)]
pub struct Setup(());

impl Input for Setup {
    fn origin(&self) -> Option<Origin<'_>> {
        None
    }
}

/// An argument of a handler.
///
/// Prepared once, before anything opens; then taken from each input without waiting.
pub trait Extract<In: Input = Delivery>: Sized + Send + 'static {
    /// What is found once and cloned for each lane.
    type Ready: Clone + Send + Sync + 'static;

    /// Finds what does not depend on the message; what is not there is added to `missing`.
    fn prepare(wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Self::Ready>;

    /// Takes the argument from an input. A failure is the message's: nothing was called.
    fn extract(ready: &Self::Ready, input: &In) -> Result<Self, Failure>;
}

macro_rules! wrapper {
    ($name:ident) => {
        impl<T> Deref for $name<T> {
            type Target = T;
            fn deref(&self) -> &T {
                &self.0
            }
        }
        impl<T> DerefMut for $name<T> {
            fn deref_mut(&mut self) -> &mut T {
                &mut self.0
            }
        }
    };
}

/// The payload, decoded from JSON. One that cannot be decoded is a permanent failure of class `undecodable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);
wrapper!(Json);

impl<T: DeserializeOwned + Send + 'static> Extract for Json<T> {
    type Ready = ();

    fn prepare(_: &Wiring<'_>, _: &mut Vec<Missing>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), from: &Delivery) -> Result<Self, Failure> {
        let Some(payload) = from.payload() else {
            return Err(Failure::reject("a tombstone has no JSON").classed("undecodable"));
        };
        serde_json::from_slice(payload)
            .map(Json)
            .map_err(|error| Failure::reject(format!("payload is no such JSON: {error}")).classed("undecodable"))
    }
}

/// The payload as it is, without a copy; empty for a tombstone. Holding it keeps its whole batch in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Deref for Raw {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.0
    }
}

/// The key, copied; `None` where the message has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub Option<Bytes>);

impl Key {
    /// The key as text, where it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        self.0.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }
}

/// The headers, copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers(pub crate::message::Headers);

impl Deref for Headers {
    type Target = crate::message::Headers;
    fn deref(&self) -> &crate::message::Headers {
        &self.0
    }
}

/// Which handler start of this message this is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(pub u32);

macro_rules! from_delivery {
    ($($name:ty = |$from:ident| $value:expr;)*) => {$(
        impl Extract for $name {
            type Ready = ();
            fn prepare(_: &Wiring<'_>, _: &mut Vec<Missing>) -> Option<()> {
                Some(())
            }
            fn extract((): &(), $from: &Delivery) -> Result<Self, Failure> {
                Ok($value)
            }
        }
    )*};
}

from_delivery! {
    Raw = |from| Raw(from.payload_bytes().unwrap_or_default());
    Key = |from| Key(from.key().map(Bytes::copy_from_slice));
    Headers = |from| Headers(from.headers().to_headers());
    Attempt = |from| Attempt(from.attempt());
    Delivery = |from| from.clone();
}

impl<In: Input> Extract<In> for Context {
    type Ready = Context;

    fn prepare(wiring: &Wiring<'_>, _: &mut Vec<Missing>) -> Option<Context> {
        Some(wiring.context().clone())
    }

    fn extract(ready: &Context, _: &In) -> Result<Self, Failure> {
        Ok(ready.clone())
    }
}

impl<E: Extract> Extract<Deliveries> for Batch<E> {
    type Ready = E::Ready;

    fn prepare(wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<E::Ready> {
        if wiring.batch_argument() > 1 {
            wiring
                .missing(missing, "has two Batch arguments: take one Batch<(…, …)>, so that its items belong together");
        }
        E::prepare(wiring, missing)
    }

    fn extract(ready: &E::Ready, from: &Deliveries) -> Result<Self, Failure> {
        Ok(Batch(from.accept(|delivery| E::extract(ready, delivery))))
    }
}
