//! What is wrong with a request, as data: a plan reports everything at once.

use std::fmt;

/// One thing that cannot be done as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON path in `config.json` (`mounts[3].options[1]`), or a flag.
    pub path: String,
    /// A sentence without a full stop.
    pub message: String,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Collects problems while planning goes on with what can still be decided.
#[derive(Debug, Default)]
pub struct Report {
    /// All problems so far.
    pub problems: Vec<Problem>,
    /// What the user should know though it does not stop anything.
    pub warnings: Vec<String>,
}

impl Report {
    /// Notes a problem.
    pub fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    /// Notes a warning.
    pub fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }
}
