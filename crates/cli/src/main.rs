//! The `offshoot` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    offshoot_cli::main(std::env::args_os())
}
