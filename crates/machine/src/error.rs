//! The one error of this crate: a sentence, what it is about, and a hint where one is known.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// There is no such machine or network.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// The request is wrong.
    Request,
    /// It is in use, or in a state that does not allow the verb.
    State,
    /// The system failed.
    System,
}

/// Why something failed. It may have come from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None }
    }

    /// A request that makes no sense.
    pub fn request(message: impl Into<String>) -> Error {
        Error::new(Kind::Request, message)
    }

    /// `failed to <verb> <object>: <cause>` for a system call that failed.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Error {
        Error::new(Kind::System, format!("failed to {what}: {}", offshoot_runtime::cause(error)))
    }

    /// `failed to <verb> <object>: <cause>` with any cause.
    pub fn failed(what: impl fmt::Display, cause: impl fmt::Display) -> Error {
        Error::new(Kind::System, format!("failed to {what}: {cause}"))
    }

    /// With a line of advice.
    pub fn hint(self, hint: impl Into<String>) -> Error {
        Error { hint: Some(hint.into()), ..self }
    }

    /// With what was being done in front, keeping kind and hint.
    pub fn during(self, what: impl fmt::Display) -> Error {
        Error { message: format!("failed to {what}: {}", self.message), ..self }
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The line of advice, where there is one.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<offshoot_sys::Error> for Error {
    fn from(error: offshoot_sys::Error) -> Error {
        Error::new(Kind::System, error.to_string())
    }
}

impl From<offshoot_engine::Error> for Error {
    fn from(error: offshoot_engine::Error) -> Error {
        Error::new(Kind::System, error.to_string())
    }
}

impl From<offshoot_runtime::Error> for Error {
    fn from(error: offshoot_runtime::Error) -> Error {
        use offshoot_runtime::Kind as Of;
        let kind = match error.kind() {
            Of::NotFound => Kind::NotFound,
            Of::Exists => Kind::Exists,
            Of::Status => Kind::State,
            Of::Request => Kind::Request,
            Of::Permission | Of::System => Kind::System,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<offshoot_snapshot::Error> for Error {
    fn from(error: offshoot_snapshot::Error) -> Error {
        use offshoot_snapshot::Kind as Of;
        let kind = match error.kind() {
            Of::NotFound => Kind::NotFound,
            Of::Exists => Kind::Exists,
            _ => Kind::System,
        };
        Error::new(kind, error.to_string())
    }
}
