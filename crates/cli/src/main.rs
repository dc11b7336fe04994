//! The `offshoot` command: arguments and output, nothing else.

#![forbid(unsafe_code)]

fn main() {}
