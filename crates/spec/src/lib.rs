//! The JSON others speak: OCI config, process, resources, state, features, events, log lines.
//!
//! Types mirror runtime-spec 1.3.0 field by field; enumerations stay strings, so that a value this program
//! does not know is a problem with a JSON path (found by `plan`), never a parse error without one.

#![forbid(unsafe_code)]

pub mod config;
pub mod default;
pub mod events;
pub mod features;
mod go;
pub mod linux;
pub mod parse;
pub mod resources;
pub mod seccomp;
pub mod time;

pub use config::*;
pub use linux::*;
pub use parse::{Error, from_slice};
pub use resources::*;
pub use seccomp::*;

/// The runtime-spec version this program implements and prints in states.
pub const OCI_VERSION: &str = "1.3.0";
