//! Typed sends: from a handler by `To<T>`, from elsewhere by `Publisher<T>`.

use super::{Deliveries, Extract, Input, Missing, Wiring};
use crate::delivery::Delivery;
use crate::engine::attempt::Cause;
use crate::engine::outlet::{Outlet, Receipt, Refused};
use crate::failure::{BoxError, Failure};
use crate::message::{Headers, HeadersRef};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Writes a value into a buffer.
pub(crate) type Encode<T> = Arc<dyn Fn(&T, &mut Vec<u8>) -> Result<(), BoxError> + Send + Sync>;
/// Writes the key of a value into a buffer; false where it has none.
pub(crate) type KeyOf<T> = Arc<dyn Fn(&T, &mut Vec<u8>) -> bool + Send + Sync>;

/// A producer as those see it who send: its outlet, and how a value becomes a message.
pub(crate) struct TypedOutlet<T> {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) encode: Encode<T>,
    pub(crate) key: Option<KeyOf<T>>,
}

thread_local! {
    // Encoding happens outside of the outlet's lock, into room that is used again and again.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Scratch room over this is given back after use, so that one large message does not stay paid for.
const SCRATCH_KEPT: usize = 256 * 1024;

impl<T> TypedOutlet<T> {
    fn try_send(
        &self,
        value: &T,
        headers: HeadersRef<'_>,
        inherits: Option<&Delivery>,
        receipt: impl FnOnce() -> Result<Receipt, crate::engine::attempt::Settled>,
        caused: bool,
    ) -> Result<Result<(), (Refused, usize)>, Failure> {
        SCRATCH.with_borrow_mut(|(payload, key)| {
            payload.clear();
            key.clear();
            (self.encode)(value, payload).map_err(|error| Failure::reject(error).classed("unencodable"))?;
            let own_key = match &self.key {
                Some(of) => of(value, key).then_some(key.as_slice()),
                None => inherits.and_then(Delivery::key),
            };
            let size = payload.len() + own_key.map_or(0, <[u8]>::len) + headers.encoded().len();
            let sent = self.outlet.try_send(
                size,
                |messages| {
                    messages.push(own_key, Some(payload), headers, None);
                },
                receipt,
                caused,
            );
            if payload.capacity() > SCRATCH_KEPT {
                *payload = Vec::new();
            }
            Ok(sent.map_err(|refused| (refused, size)))
        })
    }
}

/// Sends values to a producer from inside a handler.
///
/// The message that is being handled is acked only after everything sent by it is confirmed; a failed confirm is a
/// failure of that message. Open from the handler's start to its return: a clone that sends later is refused.
/// Without [`Producer::key`](crate::Producer::key) a send inherits the key of the message that caused it. Two
/// destinations of one type are told apart by a tag: `To<Shipped, Archive>`.
///
/// Sends of an attempt that fails are not undone.
pub struct To<T, Tag = ()> {
    typed: Arc<TypedOutlet<T>>,
    cause: Cause,
    inherits: Option<Delivery>,
    tag: PhantomData<fn() -> Tag>,
}

impl<T, Tag> Clone for To<T, Tag> {
    fn clone(&self) -> Self {
        Self { typed: self.typed.clone(), cause: self.cause.clone(), inherits: self.inherits.clone(), tag: PhantomData }
    }
}

impl<T, Tag> fmt::Debug for To<T, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "To({})", self.typed.outlet.name())
    }
}

impl<T: Sync, Tag> To<T, Tag> {
    /// Hands a value to the producer; waits only while its buffer is full.
    ///
    /// # Errors
    /// The value cannot be encoded (permanent), the handler has returned already, or the producer is closed.
    ///
    /// Cancel-safe: a dropped call has either sent or not; if it was accepted it will be confirmed or fail the message.
    pub async fn send(&self, value: &T) -> Result<(), Failure> {
        self.send_with(value, &Headers::default()).await
    }

    /// The same with headers.
    pub async fn send_with(&self, value: &T, headers: &Headers) -> Result<(), Failure> {
        self.accepted(value, headers.as_ref(), || {
            self.cause.register()?;
            Ok(Receipt::Cause(self.cause.clone()))
        })
        .await
    }

    /// Sends and waits until the destination has it.
    ///
    /// # Errors
    /// Those of [`To::send`], and the failure of the confirm.
    pub async fn send_confirmed(&self, value: &T) -> Result<(), Failure> {
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        self.accepted(value, HeadersRef::default(), || {
            self.cause.register()?;
            Ok(Receipt::CauseAndWaiter(self.cause.clone(), tell.take().expect("accepted once")))
        })
        .await?;
        told.await.unwrap_or_else(|_| Err(Refused::Closed.failure(self.typed.outlet.name())))
    }

    async fn accepted(
        &self,
        value: &T,
        headers: HeadersRef<'_>,
        mut receipt: impl FnMut() -> Result<Receipt, crate::engine::attempt::Settled>,
    ) -> Result<(), Failure> {
        loop {
            match self.typed.try_send(value, headers, self.inherits.as_ref(), &mut receipt, true)? {
                Ok(()) => return Ok(()),
                Err((Refused::Full, size)) => self.typed.outlet.room(size, true).await,
                Err((refused, _)) => return Err(refused.failure(self.typed.outlet.name())),
            }
        }
    }
}

#[doc(hidden)]
pub struct ToReady<T>(Arc<TypedOutlet<T>>);

impl<T> Clone for ToReady<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn found<T: 'static, Tag: 'static>(wiring: &Wiring<'_>, missing: &mut Vec<Missing>, as_: &str) -> Option<ToReady<T>> {
    let outlet = wiring.outlet::<T, Tag>();
    if outlet.is_none() {
        let name = super::wiring::short_name::<T>();
        let tagged = if std::any::TypeId::of::<Tag>() == std::any::TypeId::of::<()>() {
            String::new()
        } else {
            format!(", {}", super::wiring::short_name::<Tag>())
        };
        wiring.missing(
            missing,
            format!(
                "asks for {as_}<{name}{tagged}>, and no producer takes that type: \
                 add App::producer(Producer::<{name}{tagged}>::new(\"…\", \"…\"))"
            ),
        );
    }
    outlet.map(ToReady)
}

macro_rules! to_of {
    ($input:ty) => {
        impl<T: Send + Sync + 'static, Tag: 'static> Extract<$input> for To<T, Tag> {
            type Ready = ToReady<T>;

            fn prepare(wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Self::Ready> {
                found::<T, Tag>(wiring, missing, "To")
            }

            fn extract(ready: &Self::Ready, input: &$input) -> Result<Self, Failure> {
                let origin = input.origin().expect("a message or a batch has an origin");
                Ok(Self {
                    typed: ready.0.clone(),
                    cause: origin.cause.clone(),
                    inherits: if ready.0.key.is_none() { origin.inherits.cloned() } else { None },
                    tag: PhantomData,
                })
            }
        }
    };
}

to_of!(Delivery);
to_of!(Deliveries);

/// Sends values to a producer from outside of any handler: a service, a program that embeds an app.
///
/// Nothing is acked by it, so every publish waits for its confirm. Refused once the drain has begun.
pub struct Publisher<T, Tag = ()> {
    typed: Arc<TypedOutlet<T>>,
    tag: PhantomData<fn() -> Tag>,
}

impl<T, Tag> Clone for Publisher<T, Tag> {
    fn clone(&self) -> Self {
        Self { typed: self.typed.clone(), tag: PhantomData }
    }
}

impl<T: Sync, Tag> Publisher<T, Tag> {
    pub(crate) fn new(typed: Arc<TypedOutlet<T>>) -> Self {
        Self { typed, tag: PhantomData }
    }

    /// Publishes a value and waits until the destination has it.
    ///
    /// # Errors
    /// The value cannot be encoded, the destination refused it, or the app is stopping. After an error other than
    /// *stopping* the destination may have it all the same.
    ///
    /// A dropped call may have published.
    pub async fn publish(&self, value: &T) -> Result<(), Failure> {
        self.publish_with(value, &Headers::default()).await
    }

    /// The same with headers; with [`ID_HEADER`](crate::message::ID_HEADER) a durable store takes a repeat for done.
    pub async fn publish_with(&self, value: &T, headers: &Headers) -> Result<(), Failure> {
        self.enqueue(value, headers).await?.await
    }

    /// Publishes a value; the future that comes back waits for its confirm. For pipelining: many enqueued, then all
    /// awaited.
    pub async fn enqueue(
        &self,
        value: &T,
        headers: &Headers,
    ) -> Result<impl Future<Output = Result<(), Failure>> + Send + use<T, Tag>, Failure> {
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        loop {
            let receipt = || Ok(Receipt::Waiter(tell.take().expect("accepted once")));
            match self.typed.try_send(value, headers.as_ref(), None, receipt, false)? {
                Ok(()) => break,
                Err((Refused::Full, size)) => self.typed.outlet.room(size, false).await,
                Err((refused, _)) => return Err(refused.failure(self.typed.outlet.name())),
            }
        }
        let name = self.typed.outlet.name().clone();
        Ok(async move { told.await.unwrap_or_else(|_| Err(Refused::Closed.failure(&name))) })
    }
}

impl<T: Send + Sync + 'static, Tag: 'static, In: Input> Extract<In> for Publisher<T, Tag> {
    type Ready = ToReady<T>;

    fn prepare(wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Self::Ready> {
        found::<T, Tag>(wiring, missing, "Publisher")
    }

    fn extract(ready: &Self::Ready, _: &In) -> Result<Self, Failure> {
        Ok(Self::new(ready.0.clone()))
    }
}
