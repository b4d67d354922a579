//! Whether the cluster can be reached, as a sink says it: each change once.
//!
//! librdkafka says when its last connection is gone, also one that the broker has closed because it was idle, and says
//! nothing when it is back. So a loss is asked after: what is answered within a moment was none.

use super::verdict::Reports;
use crate::error::Error;
use rdkafka::producer::{BaseProducer, Producer};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long an answer to the first question may take, and to any.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Who is refused is told so within a moment of connecting: who hears nothing for so long is let in.
const ADMITTED_AFTER: Duration = Duration::from_secs(5);

/// What is known of the way to the cluster.
enum State {
    Up,
    /// It may be gone, by this error: whoever asks says.
    Doubted(Question, Error),
    Down(Question),
    /// The way is there, and we are not let in; since when nothing was heard of that.
    Refused(Instant),
}

/// A change.
#[derive(Debug)]
pub(super) enum Change {
    Lost(Error),
    Back,
}

pub(super) struct Link {
    state: State,
    topic: Arc<str>,
    worker: Arc<str>,
}

impl Link {
    pub(super) fn new(topic: Arc<str>, worker: Arc<str>) -> Self {
        Self { state: State::Up, topic, worker }
    }

    /// librdkafka has lost every connection, or is not let in.
    pub(super) fn doubt(&mut self, why: Error, producer: &Arc<BaseProducer<Reports>>) {
        match &mut self.state {
            State::Up => self.state = State::Doubted(Question::ask(producer, &self.topic, &self.worker), why),
            // The latest reason is the best.
            State::Doubted(_, known) => *known = why,
            State::Down(_) | State::Refused(_) => {}
        }
    }

    /// The producer may not do what it is there for.
    pub(super) fn refuse(&mut self, why: Error) -> Option<Change> {
        let was = std::mem::replace(&mut self.state, State::Refused(Instant::now()));
        matches!(was, State::Up | State::Doubted(..)).then_some(Change::Lost(why))
    }

    /// Records are stored: there is a way, whatever was said of it.
    pub(super) fn proven(&mut self) -> Option<Change> {
        let was = std::mem::replace(&mut self.state, State::Up);
        matches!(was, State::Down(_) | State::Refused(_)).then_some(Change::Back)
    }

    /// The producer is another one now, which is asked anew.
    pub(super) fn moved(&mut self, producer: &Arc<BaseProducer<Reports>>) {
        match &mut self.state {
            State::Up => {}
            State::Doubted(question, _) | State::Down(question) => {
                *question = Question::ask(producer, &self.topic, &self.worker);
            }
            State::Refused(since) => *since = Instant::now(),
        }
    }

    /// Whether the answer has come.
    pub(super) fn look(&mut self) -> Option<Change> {
        match std::mem::replace(&mut self.state, State::Up) {
            State::Up => None,
            State::Doubted(question, why) => match question.answer() {
                Answer::Open => {
                    self.state = State::Doubted(question, why);
                    None
                }
                Answer::Yes => None,
                Answer::NotYet => {
                    self.state = State::Down(question);
                    Some(Change::Lost(why))
                }
            },
            State::Down(question) => match question.answer() {
                Answer::Yes => Some(Change::Back),
                Answer::Open | Answer::NotYet => {
                    self.state = State::Down(question);
                    None
                }
            },
            State::Refused(since) if since.elapsed() >= ADMITTED_AFTER => Some(Change::Back),
            State::Refused(since) => {
                self.state = State::Refused(since);
                None
            }
        }
    }
}

enum Answer {
    Open,
    /// Not within [`PATIENCE`]; it is asked again.
    NotYet,
    Yes,
}

/// Asks the cluster for the topic until there is an answer, on a thread of its own, as asking blocks.
struct Question(Receiver<bool>);

impl Question {
    fn ask(producer: &Arc<BaseProducer<Reports>>, topic: &Arc<str>, worker: &Arc<str>) -> Self {
        let (tell, told) = channel();
        let (producer, topic) = (Arc::downgrade(producer), topic.clone());
        let asking = move || {
            let mut patience = PATIENCE.0;
            loop {
                let began = Instant::now();
                let Some(yes) = ask_once(&producer, &topic, patience) else { return };
                // Whoever asked may have moved on.
                if tell.send(yes).is_err() || yes {
                    return;
                }
                // What fails at once is not asked for again at once.
                std::thread::sleep(PATIENCE.0.saturating_sub(began.elapsed()));
                patience = PATIENCE.1;
            }
        };
        let _ = std::thread::Builder::new().name(format!("kafka-ask-{worker}")).spawn(asking);
        Self(told)
    }

    fn answer(&self) -> Answer {
        match self.0.try_recv() {
            Ok(true) => Answer::Yes,
            // Nobody is left who asks, as there was no thread for it.
            Ok(false) | Err(TryRecvError::Disconnected) => Answer::NotYet,
            Err(TryRecvError::Empty) => Answer::Open,
        }
    }
}

/// `None` where the producer is gone.
fn ask_once(producer: &Weak<BaseProducer<Reports>>, topic: &str, patience: Duration) -> Option<bool> {
    let producer = producer.upgrade()?;
    Some(producer.client().fetch_metadata(Some(topic), patience).is_ok())
}
