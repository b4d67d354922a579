//! What is compared.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// A full queue is emptied, by handlers that do nothing.
    Consume,
    /// An empty queue is filled, and each message confirmed.
    Publish,
    /// A full queue is emptied into another one: published, confirmed, acked.
    Bridge,
}

impl Case {
    pub const ALL: [Case; 3] = [Case::Consume, Case::Publish, Case::Bridge];

    /// Those who take part. The others are held against the first.
    pub fn contenders(self) -> &'static [&'static str] {
        match self {
            Self::Consume => &["bare", "longshore", "bare-one-ack-each", "ruststream"],
            Self::Publish => &["bare", "longshore", "bare-mandatory"],
            Self::Bridge => &["bare", "longshore", "bare-sliding"],
        }
    }

    /// What a contender finds, and what it shall leave.
    pub fn starts_full(self) -> bool {
        self != Self::Publish
    }

    pub fn ends_full(self) -> bool {
        self != Self::Consume
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
            Self::Bridge => "bridge",
        })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Self::ALL.into_iter().find(|case| case.to_string() == name).ok_or(format!("no case is called {name}"))
    }
}
