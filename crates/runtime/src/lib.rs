//! The library: bundle, host probe, lock, state, and one file a verb.
//!
//! Every verb reads the same: *lock → load → allowed? → act → save*. The library never changes its caller: no
//! chdir, umask, environment, signal or logger of the process that calls it is touched, but for [`foreground`],
//! which a caller asks for by name.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod container;
pub mod descriptors;
mod error;
pub mod foreground;
pub mod id;
mod list;
pub mod lock;
pub mod notify;
pub mod pidfile;
pub mod process;
mod root;
pub mod state;
pub mod status;
mod summary;
pub mod terminal;
#[cfg(test)]
mod testing;

pub use container::Container;
pub use error::{Error, Kind, Result, cause};
pub use offshoot_engine::log::{Format, Log};
pub use root::{Runtime, in_user_namespace};
pub use state::State;
pub use status::{Status, Verb};
pub use summary::Summary;
