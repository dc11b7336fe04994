//! The library: bundle, host probe, lock, state, and one file a verb.

#![forbid(unsafe_code)]
