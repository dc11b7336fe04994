//! One file a command: its entry in the table and the few lines that turn a call into a verb of the library.

pub mod check;
pub mod checkpoint;
pub mod clone;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod image;
pub mod kill;
pub mod list;
pub mod machine;
pub mod network;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod restore;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;
