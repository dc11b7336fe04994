//! One file a command: its entry in the table and the few lines that turn a call into a verb of the library.

pub mod list;
pub mod state;
