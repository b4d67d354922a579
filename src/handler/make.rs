//! Async functions that make something before there are messages: a resource, a worker's instance, a service.

use super::{Extract, Missing, Setup, Wiring};
use crate::failure::{BoxError, Failure};
use crate::transport::BoxFuture;
use std::sync::Arc;

/// An async function of what exists at start: earlier resources by `Res<T>`, publishers, the context.
pub trait Make<Args, T>: Clone + Send + Sync + 'static {
    #[doc(hidden)]
    fn prepare(self, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Maker<T>>;
}

/// A prepared function: makes one each time it is called.
pub(crate) type Making<T> = Arc<dyn Fn() -> BoxFuture<'static, Result<T, BoxError>> + Send + Sync>;

#[doc(hidden)]
pub struct Maker<T>(pub(crate) Making<T>);

macro_rules! makes {
    ($($arg:ident)*) => {
        #[allow(non_snake_case, unused_variables, reason = "a type parameter names its value too")]
        impl<Fun, Fut, T, E, $($arg,)*> Make<($($arg,)*), T> for Fun
        where
            Fun: Fn($($arg),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<T, E>> + Send + 'static,
            E: Into<Failure>,
            T: Send + 'static,
            $($arg: Extract<Setup>,)*
        {
            fn prepare(self, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Maker<T>> {
                let ready = <($($arg,)*) as Extract<Setup>>::prepare(wiring, missing)?;
                Some(Maker(Arc::new(move || {
                    let extracted = <($($arg,)*) as Extract<Setup>>::extract(&ready, &Setup::default());
                    let this = self.clone();
                    Box::pin(async move {
                        let ($($arg,)*) = extracted.map_err(|failure| failure.into_error())?;
                        // Any error is a failure; one that is a failure already keeps its class on the way.
                        this($($arg),*).await.map_err(|error| error.into().into_error())
                    })
                })))
            }
        }
    };
}

makes!();
makes!(A);
makes!(A B);
makes!(A B C);
makes!(A B C D);
makes!(A B C D F);
