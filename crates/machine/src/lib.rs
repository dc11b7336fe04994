//! Named system containers: definitions, networks, start order, many at once.

#![forbid(unsafe_code)]

pub mod check;
mod error;
pub mod home;
pub mod name;
pub mod network;
#[cfg(test)]
mod testing;

pub use error::{Error, Kind, Result};
pub use home::Home;

use offshoot_runtime::Runtime;
use std::path::PathBuf;

/// A directory beside that of the containers' states, for what lives as long: `/run/offshoot.networks`.
pub fn beside(runtime: &Runtime, what: &str) -> PathBuf {
    let mut name = runtime.root.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    runtime.root.with_file_name(name)
}
