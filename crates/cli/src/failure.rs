//! Why a command failed, and with which exit status it says so.

use std::fmt;

/// The one error of a command.
#[derive(Debug)]
pub struct Failure {
    message: String,
    status: u8,
    hint: Option<String>,
}

impl Failure {
    /// A failure with the usual exit status, 1.
    pub fn new(message: impl fmt::Display) -> Failure {
        Failure { message: message.to_string(), status: 1, hint: None }
    }

    /// With another exit status.
    pub fn status(self, status: u8) -> Failure {
        Failure { status, ..self }
    }

    /// With the name of what failed in front, as runc writes it: `exec failed: …`.
    pub fn during(self, what: &str) -> Failure {
        Failure { message: format!("{what} failed: {}", self.message), ..self }
    }

    /// With advice, for a line of its own.
    pub fn hint(self, hint: impl fmt::Display) -> Failure {
        Failure { hint: Some(hint.to_string()), ..self }
    }

    /// The advice, where there is some.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit status.
    pub fn code(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let any: &dyn std::any::Any = &error;
        let runtime = any.downcast_ref::<offshoot_runtime::Error>().and_then(offshoot_runtime::Error::hint);
        let hint = runtime.or_else(|| any.downcast_ref::<offshoot_snapshot::Error>()?.hint()).map(str::to_owned);
        Failure { hint, ..Failure::new(error) }
    }
}
