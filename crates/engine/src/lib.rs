//! Parent and child stages, their protocol, the undo list and the one teardown.

#![forbid(unsafe_code)]

mod console;
mod copy_up;
pub mod criu;
mod error;
pub mod exe;
pub mod failpoint;
mod hollow;
pub mod hooks;
mod id_map;
mod inherit;
pub mod log;
mod mountinfo;
mod netdev;
pub mod netlink;
mod open;
mod parent;
mod protocol;
pub mod rdt;
mod resolve;
mod stage;
mod stage_enter;
mod stage_exec;
mod stage_identity;
mod stage_mount;
mod stage_rootfs;
mod streams;
mod tree;

pub use error::{Error, Kind, Result, cause};
pub use hollow::Hollow;
pub use parent::{Created, Exec, Io, Progress, create, exec};
