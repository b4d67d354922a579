//! What a consumer is opened with.

use super::super::place::{Place, QueueType};
use crate::error::Error;
use lapin::types::{AMQPValue, FieldTable};

/// Where reading of a stream starts: `start=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    First,
    Last,
    Next,
    Offset(i64),
    /// Seconds since 1970.
    At(u64),
}

impl Start {
    /// Reads `start=first|last|next|OFFSET|RFC3339`; a new reader sees all there is.
    pub(super) fn of(place: &Place) -> Result<Option<Self>, Error> {
        if place.declared_type() != QueueType::Stream {
            return Ok(None);
        }
        let start = match place.start.as_deref() {
            None | Some("first") => Self::First,
            Some("last") => Self::Last,
            Some("next") => Self::Next,
            Some(text) => match (text.parse(), text.parse::<jiff::Timestamp>()) {
                (Ok(offset), _) if offset >= 0 => Self::Offset(offset),
                (_, Ok(at)) => Self::At(u64::try_from(at.as_second()).unwrap_or(0)),
                _ => {
                    let expects = "is none of first, last, next, an offset, a time as 2026-11-21T12:00:00Z";
                    return Err(Error::configuration(format!("option 'start={text}' {expects}")));
                }
            },
        };
        Ok(Some(start))
    }

    fn value(&self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Next => AMQPValue::LongString("next".into()),
            Self::Offset(offset) => AMQPValue::LongLongInt(*offset),
            Self::At(seconds) => AMQPValue::Timestamp(*seconds),
        }
    }
}

/// The arguments of a consumer.
pub(super) fn arguments(place: &Place, start: Option<&Start>) -> FieldTable {
    let mut table = FieldTable::default();
    if let Some(priority) = place.priority {
        table.insert("x-priority".into(), AMQPValue::LongInt(priority));
    }
    if let Some(start) = start {
        table.insert("x-stream-offset".into(), start.value());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::super::place::Side;
    use super::*;
    use crate::transport::Url;

    fn start(option: &str) -> Result<Option<Start>, String> {
        let url = Url::parse(&format!("amqp://h?queue=q&type=stream{option}")).unwrap();
        Start::of(&Place::read(&url, Side::Source).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stream_is_read_from_where_its_url_says() {
        for (option, wanted) in [
            ("", Start::First),
            ("&start=last", Start::Last),
            ("&start=next", Start::Next),
            ("&start=17", Start::Offset(17)),
            ("&start=1970-01-01T00:01:00Z", Start::At(60)),
        ] {
            assert_eq!(start(option), Ok(Some(wanted)));
        }
        for option in ["&start=-1", "&start=soon", "&start="] {
            assert!(start(option).unwrap_err().contains("is none of first, last, next"), "{option}");
        }
    }

    #[test]
    fn other_queues_have_no_start() {
        let place = Place::read(&Url::parse("amqp://h?queue=q").unwrap(), Side::Source).unwrap();
        assert_eq!(Start::of(&place).unwrap(), None);
        assert!(arguments(&place, None).inner().is_empty());
    }
}
