//! The decision: a spec, a request and a host become a plan, or all the problems at once.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod problem;

pub use problem::Problem;
