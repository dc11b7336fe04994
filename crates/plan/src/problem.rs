//! What is wrong with a request, and where.

use std::fmt;

/// One thing that cannot be done as asked. A plan reports all of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the request: `linux.resources.memory.swap`, `mounts[3].options[1]`.
    pub path: String,
    /// What is wrong, in runc's words where callers match them.
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
        write!(f, "{}: {}", self.path, self.message)
    }
}
