//! `--where`: which dead letters, such as `reason~timeout and age<2h`.
//!
//! ```text
//! any  = all { "or" all }
//! all  = one { "and" one }
//! one  = "not" one | "(" any ")" | FIELD OP VALUE
//! OP   = "=" | "!=" | "~" | "<" | "<=" | ">" | ">="
//! ```
//! A value is a word, or stands in quotes. `~` means *contains*, in any case. A field that a dead letter does not have
//! equals nothing, contains nothing, is neither before nor after anything.

use jiff::Timestamp;
use longshore::transport::did_you_mean;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

/// Parentheses and `not` within each other, at most.
const DEPTH: usize = 64;

/// What a dead letter is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Id,
    Key,
    Reason,
    Error,
    Attempts,
    Worker,
    Source,
    Position,
    FirstSeen,
    DeadAt,
    RedrivenFrom,
    Age,
}

/// Which order a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Time,
    Age,
}

impl Field {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 12] = [
        ("age", Self::Age),
        ("reason", Self::Reason),
        ("error", Self::Error),
        ("attempts", Self::Attempts),
        ("key", Self::Key),
        ("id", Self::Id),
        ("worker", Self::Worker),
        ("source", Self::Source),
        ("position", Self::Position),
        ("first-seen", Self::FirstSeen),
        ("dead-at", Self::DeadAt),
        ("redriven-from", Self::RedrivenFrom),
    ];

    fn kind(self) -> Kind {
        match self {
            Self::Attempts | Self::Position => Kind::Number,
            Self::FirstSeen | Self::DeadAt => Kind::Time,
            Self::Age => Kind::Age,
            _ => Kind::Text,
        }
    }
}

/// Something that has these fields.
pub trait Fields {
    /// The text of a field, but for its age.
    fn text(&self, field: Field) -> Option<String>;
    /// How long it has been dead.
    fn age(&self) -> Option<Duration>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Is,
    IsNot,
    Contains,
    Less,
    LessOrIs,
    More,
    MoreOrIs,
}

impl Op {
    /// The longer first.
    const ALL: [(&'static str, Self); 7] = [
        ("!=", Self::IsNot),
        ("<=", Self::LessOrIs),
        (">=", Self::MoreOrIs),
        ("=", Self::Is),
        ("~", Self::Contains),
        ("<", Self::Less),
        (">", Self::More),
    ];

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Is => order.is_eq(),
            Self::IsNot => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrIs => order.is_le(),
            Self::More => order.is_gt(),
            Self::MoreOrIs => order.is_ge(),
            Self::Contains => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Text(String),
    Number(u64),
    Time(Timestamp),
    Age(Duration),
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Any(Vec<Expr>),
    All(Vec<Expr>),
    Not(Box<Expr>),
    Test { field: Field, op: Op, wanted: Wanted },
}

/// A filter that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Expr);

impl Filter {
    /// Whether a dead letter is meant.
    pub fn matches(&self, letter: &impl Fields) -> bool {
        self.0.holds(letter)
    }
}

impl Expr {
    fn holds(&self, letter: &impl Fields) -> bool {
        match self {
            Self::Any(some) => some.iter().any(|each| each.holds(letter)),
            Self::All(some) => some.iter().all(|each| each.holds(letter)),
            Self::Not(inner) => !inner.holds(letter),
            Self::Test { field, op: Op::Contains, wanted: Wanted::Text(part) } => {
                letter.text(*field).is_some_and(|text| text.to_lowercase().contains(&part.to_lowercase()))
            }
            Self::Test { field, op, wanted } => {
                let order = match wanted {
                    Wanted::Text(wanted) => letter.text(*field).map(|text| text.as_str().cmp(wanted)),
                    Wanted::Number(wanted) => {
                        letter.text(*field).and_then(|text| text.parse::<u64>().ok()).map(|number| number.cmp(wanted))
                    }
                    Wanted::Time(wanted) => {
                        letter.text(*field).and_then(|text| text.parse::<Timestamp>().ok()).map(|at| at.cmp(wanted))
                    }
                    Wanted::Age(wanted) => letter.age().map(|age| age.cmp(wanted)),
                };
                order.map_or(*op == Op::IsNot, |order| op.holds(order))
            }
        }
    }
}

/// Why a text is no filter, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    text: String,
    /// Bytes of the filter.
    at: Range<usize>,
    filter: String,
}

impl fmt::Display for Wrong {
    /// What is wrong, the filter, and carets below the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain =
            |text: &str| -> String { text.chars().map(|each| if each.is_control() { ' ' } else { each }).collect() };
        let before = self.filter[..self.at.start].chars().count();
        let wide = self.filter[self.at.clone()].chars().count().max(1);
        let (text, filter) = (plain(&self.text), plain(&self.filter));
        write!(f, "{text}\n  {filter}\n  {}{}", " ".repeat(before), "^".repeat(wide))
    }
}

impl std::error::Error for Wrong {}

impl FromStr for Filter {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |(text_, at): Problem| Wrong { text: text_, at, filter: text.to_owned() };
        let tokens = tokens(text).map_err(wrong)?;
        let mut parser = Parser { tokens, next: 0, end: text.len(), depth: 0 };
        let expr = parser.any().map_err(wrong)?;
        match parser.tokens.get(parser.next) {
            None => Ok(Self(expr)),
            Some((Token::Close, at)) => Err(wrong(("this ')' closes nothing".into(), at.clone()))),
            Some((_, at)) => Err(wrong(("expected 'and' or 'or'".into(), at.clone()))),
        }
    }
}

type Problem = (String, Range<usize>);

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    Op(Op),
    Word(String),
    Quoted(String),
}

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, Problem> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '\'' | '"' => {
                let (value, length) =
                    quoted(rest, first).ok_or_else(|| ("this quote is not closed".to_owned(), at..text.len()))?;
                (Token::Quoted(value), length)
            }
            white if white.is_whitespace() => {
                at += white.len_utf8();
                continue;
            }
            _ => match Op::ALL.iter().find(|(sign, _)| rest.starts_with(sign)) {
                Some((sign, op)) => (Token::Op(*op), sign.len()),
                None if first == '!' => return Err(("'!' alone is no operator: write != or not".into(), at..at + 1)),
                None => {
                    let ends = |each: char| each.is_whitespace() || "()='\"!~<>".contains(each);
                    let length = rest.find(ends).unwrap_or(rest.len());
                    (Token::Word(rest[..length].to_owned()), length)
                }
            },
        };
        all.push((token, at..at + length));
        at += length;
    }
    Ok(all)
}

/// The text in quotes, and its length with them; a backslash takes the next character as it is.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, each)) = chars.next() {
        match each {
            '\\' => value.push(chars.next()?.1),
            each if each == quote => return Some((value, at + 1)),
            each => value.push(each),
        }
    }
    None
}

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn take(&mut self) -> Option<(Token, Range<usize>)> {
        let token = self.tokens.get(self.next).cloned();
        self.next += usize::from(token.is_some());
        token
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let there = matches!(self.tokens.get(self.next), Some((Token::Word(at), _)) if at.eq_ignore_ascii_case(word));
        self.next += usize::from(there);
        there
    }

    fn here(&self) -> Range<usize> {
        self.tokens.get(self.next).map_or(self.end..self.end, |(_, at)| at.clone())
    }

    fn any(&mut self) -> Result<Expr, Problem> {
        let mut some = vec![self.all()?];
        while self.takes_word("or") {
            some.push(self.all()?);
        }
        Ok(if some.len() == 1 { some.remove(0) } else { Expr::Any(some) })
    }

    fn all(&mut self) -> Result<Expr, Problem> {
        let mut some = vec![self.one()?];
        while self.takes_word("and") {
            some.push(self.one()?);
        }
        Ok(if some.len() == 1 { some.remove(0) } else { Expr::All(some) })
    }

    fn one(&mut self) -> Result<Expr, Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err((format!("more than {DEPTH} levels of 'not' and parentheses"), self.here()));
        }
        let at = self.here();
        let found = if self.takes_word("not") {
            Expr::Not(Box::new(self.one()?))
        } else if self.tokens.get(self.next).is_some_and(|(token, _)| *token == Token::Open) {
            self.next += 1;
            let inner = self.any()?;
            match self.tokens.get(self.next) {
                Some((Token::Close, _)) => self.next += 1,
                Some((_, other)) => return Err(("expected 'and', 'or' or ')'".into(), other.clone())),
                None => return Err(("this '(' is not closed".into(), at)),
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(found)
    }

    fn test(&mut self) -> Result<Expr, Problem> {
        let (field, name) = match self.take() {
            Some((Token::Word(name), at)) => {
                let found = Field::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
                let (known, field) = found.ok_or_else(|| {
                    let names = Field::ALL.map(|(name, _)| name);
                    let hint = did_you_mean(&name.to_lowercase(), names);
                    let text = match hint.as_str() {
                        "" => format!("unknown field '{name}': it is one of {}", names.join(", ")),
                        hint => format!("unknown field '{name}'{hint}"),
                    };
                    (text, at)
                })?;
                (*field, *known)
            }
            Some((_, at)) => return Err(("expected a field, such as reason".into(), at)),
            None => return Err(("expected a field, such as reason".into(), self.here())),
        };
        let (op, op_at) = match self.take() {
            Some((Token::Op(op), at)) => (op, at),
            Some((_, at)) => return Err((format!("expected one of = != ~ < > <= >= after '{name}'"), at)),
            None => return Err((format!("expected one of = != ~ < > <= >= after '{name}'"), self.here())),
        };
        let (value, at) = match self.take() {
            Some((Token::Word(value) | Token::Quoted(value), at)) => (value, at),
            Some((_, at)) => return Err(("expected a value; quote it if it has signs".into(), at)),
            None => return Err(("expected a value".into(), self.here())),
        };
        let wanted = match (field.kind(), op) {
            (Kind::Age, Op::Contains) => return Err(("'age' is a duration: use < or >".into(), op_at)),
            (_, Op::Contains) | (Kind::Text, Op::Is | Op::IsNot) => Wanted::Text(value),
            (Kind::Text, _) => return Err((format!("'{name}' is text and has no order: use =, != or ~"), op_at)),
            (Kind::Number, _) => match value.parse() {
                Ok(number) => Wanted::Number(number),
                Err(_) => return Err((format!("'{name}' is compared with a number such as 3"), at)),
            },
            (Kind::Age, _) => match age(&value) {
                Ok(age) => Wanted::Age(age),
                Err(why) => return Err((why, at)),
            },
            (Kind::Time, _) => match time(&value) {
                Some(time) => Wanted::Time(time),
                None => {
                    let text = format!("'{name}' is compared with a time such as 2026-03-01 or 2026-03-01T12:00:00Z");
                    return Err((text, at));
                }
            },
        };
        Ok(Expr::Test { field, op, wanted })
    }
}

/// A duration; whole days too, which are what ages of dead letters are thought in.
fn age(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    match days.and_then(|days| days.checked_mul(24 * 60 * 60)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => longshore::duration::parse(text),
    }
}

/// A moment, or the beginning of a day in UTC.
fn time(text: &str) -> Option<Timestamp> {
    let day = |text: &str| text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| day(text).map(|day| day.timestamp()))
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
