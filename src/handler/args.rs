//! Async functions of extractors as handlers.

use super::{BatchDone, Deliveries, Extract, Input, Missing, Unit, Wiring};
use crate::delivery::Delivery;
use crate::failure::{Failure, Outcome};

/// An async function that handles messages.
///
/// Implemented for functions of up to eight extractors. Called on a lane; what it returns is settled there.
pub trait Handler<Args, In: Unit = Delivery>: Clone + Send + 'static {
    /// The handler's future.
    type Future: Future<Output: IntoOutcome<In::Done>> + Send + 'static;

    /// Calls it.
    fn call(&self, args: Args) -> Self::Future;
}

/// What a handler may return.
pub trait IntoOutcome<Done> {
    /// As what the engine settles by.
    fn into_outcome(self) -> Result<Done, Failure>;
}

impl<E: Into<Failure>> IntoOutcome<()> for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        self.map_err(Into::into)
    }
}

impl IntoOutcome<()> for () {
    fn into_outcome(self) -> Outcome {
        Ok(())
    }
}

impl IntoOutcome<BatchDone> for Vec<Outcome> {
    fn into_outcome(self) -> Result<BatchDone, Failure> {
        Ok(BatchDone::Each(self))
    }
}

impl<E: Into<Failure>> IntoOutcome<BatchDone> for Result<Vec<Outcome>, E> {
    fn into_outcome(self) -> Result<BatchDone, Failure> {
        self.map(BatchDone::Each).map_err(Into::into)
    }
}

impl<E: Into<Failure>> IntoOutcome<BatchDone> for Result<(), E> {
    fn into_outcome(self) -> Result<BatchDone, Failure> {
        self.map(|()| BatchDone::All).map_err(Into::into)
    }
}

impl IntoOutcome<BatchDone> for Result<BatchDone, Failure> {
    fn into_outcome(self) -> Result<BatchDone, Failure> {
        self
    }
}

macro_rules! handlers {
    ($($arg:ident)*) => {
        #[allow(non_snake_case, reason = "a type parameter names its value too")]
        impl<Fun, Fut, $($arg,)*> Handler<($($arg,)*), Delivery> for Fun
        where
            Fun: Fn($($arg),*) -> Fut + Clone + Send + 'static,
            Fut: Future<Output: IntoOutcome<()>> + Send + 'static,
        {
            type Future = Fut;
            fn call(&self, ($($arg,)*): ($($arg,)*)) -> Fut {
                self($($arg),*)
            }
        }

        #[allow(non_snake_case, reason = "a type parameter names its value too")]
        impl<Fun, Fut, $($arg,)*> Handler<($($arg,)*), Deliveries> for Fun
        where
            Fun: Fn($($arg),*) -> Fut + Clone + Send + 'static,
            Fut: Future<Output: IntoOutcome<BatchDone>> + Send + 'static,
        {
            type Future = Fut;
            fn call(&self, ($($arg,)*): ($($arg,)*)) -> Fut {
                self($($arg),*)
            }
        }

        #[allow(non_snake_case, unused_variables, clippy::unused_unit, reason = "one shape for every number of arguments")]
        impl<In: Input, $($arg: Extract<In>,)*> Extract<In> for ($($arg,)*) {
            type Ready = ($($arg::Ready,)*);

            fn prepare(wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Self::Ready> {
                // Each is prepared before one that is missing ends it, so that all are told at once.
                $(let $arg = $arg::prepare(wiring, missing);)*
                Some(($($arg?,)*))
            }

            fn extract(ready: &Self::Ready, input: &In) -> Result<Self, Failure> {
                let ($($arg,)*) = ready;
                Ok(($($arg::extract($arg, input)?,)*))
            }
        }
    };
}

handlers!();
handlers!(A);
handlers!(A B);
handlers!(A B C);
handlers!(A B C D);
handlers!(A B C D E);
handlers!(A B C D E G);
handlers!(A B C D E G H);
handlers!(A B C D E G H I);
