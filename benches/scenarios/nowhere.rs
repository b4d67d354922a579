//! `nowhere:`: a sink that confirms everything at once, so that a figure is of the engine alone.

use longshore::Error;
use longshore::transport::*;
use std::collections::VecDeque;

pub struct Nowhere;

impl Transport for Nowhere {
    fn schemes(&self) -> &'static [&'static str] {
        &["nowhere"]
    }

    fn source(&self, _: &Url, _: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        Err(Error::configuration("nothing comes from nowhere"))
    }

    fn sink(&self, _: &Url, _: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        Ok(Box::new(Plan))
    }

    fn dead_letters(&self, _: &Url, _: &str) -> DeadPlace {
        DeadPlace::None
    }
}

struct Plan;

impl SinkPlan for Plan {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        Box::pin(async { Ok(Box::new(Taker::default()) as Box<dyn Sink>) })
    }
}

#[derive(Default)]
struct Taker {
    connected: bool,
    out: VecDeque<SinkEvent>,
}

impl Sink for Taker {
    fn tell(&mut self, ask: SinkAsk) {
        match ask {
            SinkAsk::Send { batch, slab } => {
                self.out.push_back(SinkEvent::Confirmed { batch, range: 0..slab.len() as u32, failed: Vec::new() });
                self.out.push_back(SinkEvent::Demand { messages: 4096, bytes: u64::MAX });
            }
            SinkAsk::Flush { .. } => self.out.push_back(SinkEvent::Flushed { unconfirmed: 0 }),
            SinkAsk::Close { .. } => self.out.push_back(SinkEvent::Closed { unconfirmed: 0 }),
            _ => {}
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(async {
            if !std::mem::replace(&mut self.connected, true) {
                self.out.push_back(SinkEvent::Demand { messages: 4096, bytes: u64::MAX });
                return SinkEvent::Connected;
            }
            match self.out.pop_front() {
                Some(event) => event,
                None => std::future::pending().await,
            }
        })
    }
}
