//! Applying, reading and removing a cgroup plan: v2, systemd, v1 and hybrid, device programs.

#![forbid(unsafe_code)]

mod error;
pub mod systemd;

pub use error::Error;
