//! Being written.
use super::place::Place;
use crate::error::Error;
use crate::transport::{BoxFuture, Sink, SinkAsk, SinkEvent, SinkSpec};

pub(super) struct AmqpSink;

impl AmqpSink {
    pub(super) async fn open(place: Place, spec: SinkSpec) -> Result<Self, Error> {
        let wire = place.server.dial(&spec.worker).await?;
        super::topology::for_sink(&wire, &place).await?;
        Err(Error::configuration("amqp sinks are not there yet"))
    }
}

impl Sink for AmqpSink {
    fn tell(&mut self, _ask: SinkAsk) {}

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(std::future::pending())
    }
}
