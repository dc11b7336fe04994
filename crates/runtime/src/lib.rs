//! The library: bundle, host probe, lock, state, and one file a verb.
//!
//! Every verb reads the same: *lock → load → allowed? → act → save*. The library never changes its caller: no
//! chdir, umask, environment, signal or logger of the process that calls it is touched, but for [`foreground`],
//! which a caller asks for by name.

#![forbid(unsafe_code)]

mod apart;
pub mod bundle;
pub mod checkpoint;
pub mod connect;
pub mod container;
pub mod create;
mod delete;
pub mod descriptors;
mod error;
pub mod events;
pub mod exec;
pub mod features;
pub mod foreground;
mod host;
pub mod id;
pub mod image;
mod joined;
mod kill;
mod launch;
mod list;
pub mod lock;
pub mod many;
pub mod notify;
mod pause;
pub mod pidfile;
pub mod plan;
pub mod process;
pub mod ranges;
pub mod restore;
mod root;
pub mod rootfs;
pub mod signal;
pub mod start;
mod starter;
pub mod state;
pub mod status;
mod summary;
mod system;
mod teardown;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod update;
pub mod wanted;

pub use connect::Connections;
pub use container::Container;
pub use error::{Error, Kind, Result};
pub use host::check_seccomp;
pub use launch::{Further, Launch, Streams};
pub use offshoot_engine::exe::protect as protect_program;
pub use offshoot_engine::log::{Format, Log};
pub use offshoot_engine::{cause, criu};
pub use offshoot_system::Init;
pub use root::{Runtime, in_user_namespace};
pub use starter::default_config;
pub use state::State;
pub use status::{Status, Verb};
pub use summary::{Summary, to_json};
pub use wanted::Wanted;
