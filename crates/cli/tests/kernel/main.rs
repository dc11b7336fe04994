//! Each part of the configuration against the kernel: what a process sees in the container.

#![forbid(unsafe_code)]

#[path = "../place/mod.rs"]
mod place;
#[path = "../tty/mod.rs"]
mod tty;

mod cgroups;
mod descriptors;
mod filesystem;
mod hooks;
mod input;
mod namespaces;
mod process;
mod seccomp;
