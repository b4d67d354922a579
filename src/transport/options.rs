//! The options of a URL: asked for by name, so that what nobody asked for is known to be wrong.

use crate::duration;
use crate::error::Error;
use std::cell::RefCell;
use std::str::FromStr;
use std::time::Duration;

/// Reads the options of a URL. Errors are collected and told together by [`Options::finish`].
#[derive(Debug)]
pub struct Options<'a> {
    given: &'a [(String, String)],
    asked: RefCell<Vec<&'a str>>,
    wrong: RefCell<Vec<String>>,
}

impl<'a> Options<'a> {
    pub(super) fn new(given: &'a [(String, String)]) -> Self {
        Self { given, asked: RefCell::default(), wrong: RefCell::default() }
    }

    /// The text of an option; the last one holds where it is given twice.
    pub fn text(&self, name: &'static str) -> Option<&'a str> {
        self.asked.borrow_mut().push(name);
        self.given.iter().rev().find(|(at, _)| at == name).map(|(_, value)| value.as_str())
    }

    /// The text of an option that must be there and not be empty.
    pub fn required(&self, name: &'static str) -> &'a str {
        match self.text(name) {
            Some(value) if !value.is_empty() => value,
            _ => {
                self.wrong(format!("option '{name}' is missing"));
                ""
            }
        }
    }

    /// An option of some type; `expects` says what it takes, such as `a number of messages`.
    pub fn parsed<T: FromStr>(&self, name: &'static str, expects: &str) -> Option<T> {
        let value = self.text(name)?;
        value.parse().map_err(|_| self.wrong(format!("option '{name}={value}' is not {expects}"))).ok()
    }

    /// `true` or `false`.
    pub fn bool(&self, name: &'static str) -> Option<bool> {
        self.parsed(name, "true or false")
    }

    /// A duration such as `30s`.
    pub fn duration(&self, name: &'static str) -> Option<Duration> {
        let value = self.text(name)?;
        duration::parse(value).map_err(|why| self.wrong(format!("option '{name}': {why}"))).ok()
    }

    /// One of some words.
    pub fn one_of(&self, name: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let value = self.text(name)?;
        let found = words.iter().copied().find(|word| *word == value);
        if found.is_none() {
            let hint = did_you_mean(value, words.iter().copied());
            self.wrong(format!("option '{name}={value}' is none of {}{hint}", words.join(", ")));
        }
        found
    }

    /// Every option whose name is such a one, with its value, in the order of the URL: settings of a client library that
    /// are passed on under their own names. The last one holds where a name is given twice.
    pub fn named(&self, such: impl Fn(&str) -> bool) -> Vec<(&'a str, &'a str)> {
        let mut found: Vec<(&str, &str)> = Vec::new();
        for (name, value) in self.given.iter().filter(|(name, _)| such(name)) {
            found.retain(|(earlier, _)| earlier != name);
            found.push((name, value));
            self.asked.borrow_mut().push(name);
        }
        found
    }

    /// Adds something that is wrong with the options.
    pub fn wrong(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }

    /// Ends the reading: an option that was given and never asked for is unknown.
    ///
    /// # Errors
    /// Everything that was wrong, in one error.
    pub fn finish(self) -> Result<(), Error> {
        let asked = self.asked.into_inner();
        let mut wrong = self.wrong.into_inner();
        for (name, _) in self.given.iter().filter(|(name, _)| !asked.contains(&name.as_str())) {
            wrong.push(format!("unknown option '{name}'{}", did_you_mean(name, asked.iter().copied())));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::configuration(wrong.join("; "))) }
    }
}

/// `: did you mean 'queue'?`, or nothing where no name is near.
pub fn did_you_mean<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .map_or_else(String::new, |(_, name)| format!(": did you mean '{name}'?"))
}

#[cfg(test)]
mod tests {
    use super::super::Url;

    #[test]
    fn options_that_are_passed_on_are_known_by_the_look_of_their_names() {
        let url = Url::parse("kafka://h?linger.ms=5&a.b=1&topic=t&linger.ms=7&x=1").unwrap();
        let options = url.options();
        options.text("topic");
        assert_eq!(options.named(|name| name.contains('.')), [("a.b", "1"), ("linger.ms", "7")]);
        assert!(options.finish().unwrap_err().to_string().starts_with("unknown option 'x'"));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let url = Url::parse("local:a.db?qeue=x&claim=soon&declare=yes").unwrap();
        let options = url.options();
        options.required("queue");
        options.duration("claim");
        options.bool("declare");
        let text = options.finish().unwrap_err().to_string();
        assert_eq!(
            text,
            "option 'queue' is missing; option 'claim': 'soon' is no duration such as 500ms, 25s or 5m; \
             option 'declare=yes' is not true or false; unknown option 'qeue': did you mean 'queue'?"
        );
    }
}
