//! A seccomp profile in, a BPF program out; pure.

#![forbid(unsafe_code)]
