//! What came of the cases.

use std::fmt;

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The claim holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// The transport does not promise it: the capability that is missing.
    NotDeclared(String),
}

/// What came of every case, in the order in which they ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    subject: String,
    cases: Vec<(&'static str, Outcome)>,
}

impl Report {
    pub(super) fn of(subject: &str) -> Self {
        Self { subject: subject.to_owned(), cases: Vec::new() }
    }

    pub(super) fn add(&mut self, case: &'static str, outcome: Outcome) {
        self.cases.push((case, outcome));
    }

    /// Every case that ran or was left out, with what came of it.
    pub fn cases(&self) -> &[(&'static str, Outcome)] {
        &self.cases
    }

    /// The cases that passed.
    pub fn passed(&self) -> Vec<&'static str> {
        self.those(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// The cases that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.those(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// The cases that were left out.
    pub fn not_declared(&self) -> Vec<&'static str> {
        self.those(|outcome| matches!(outcome, Outcome::NotDeclared(_)))
    }

    fn those(&self, which: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        self.cases.iter().filter(|(_, outcome)| which(outcome)).map(|(name, _)| *name).collect()
    }

    /// Panics with the whole list when a case failed, or when none passed.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.failed().is_empty() && !self.passed().is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "conformance of {}: {} passed, {} failed, {} not declared",
            self.subject,
            self.passed().len(),
            self.failed().len(),
            self.not_declared().len()
        )?;
        for (name, outcome) in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "  passed        {name}")?,
                Outcome::Failed(why) => writeln!(f, "  FAILED        {name}\n                  {why}")?,
                Outcome::NotDeclared(what) => writeln!(f, "  not declared  {name} ({what})")?,
            }
        }
        Ok(())
    }
}
