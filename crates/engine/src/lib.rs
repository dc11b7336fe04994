//! Parent and child stages, their protocol, the undo list and the one teardown.

#![forbid(unsafe_code)]

pub mod log;
