//! Named system containers: definitions, networks, start order, many at once.

#![forbid(unsafe_code)]

pub mod check;
mod config;
pub mod definition;
mod elsewhere;
mod error;
mod figures;
mod filter;
pub mod home;
mod launch;
mod lean;
mod machines;
pub mod name;
pub mod network;
pub mod pool;
mod start;
mod still;
mod stop;
pub mod supervisor;
#[cfg(test)]
mod testing;
mod valid;
mod volume;

pub use definition::Machine;
pub use error::{Error, Kind, Result};
pub use figures::Figures;
pub use filter::Filter;
pub use home::Home;
pub use launch::NewMachines;
pub use machines::{Machines, Outcome};
pub use volume::Volume;

use offshoot_runtime::Runtime;
use std::path::PathBuf;

/// A directory beside that of the containers' states, for what lives as long: `/run/offshoot.networks`.
pub fn beside(runtime: &Runtime, what: &str) -> PathBuf {
    let mut name = runtime.root.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    runtime.root.with_file_name(name)
}
