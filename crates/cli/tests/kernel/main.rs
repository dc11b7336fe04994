//! Each part of the configuration against the kernel: what a process sees in the container.

#![forbid(unsafe_code)]

#[path = "../place/mod.rs"]
mod place;

mod filesystem;
mod namespaces;
mod process;
