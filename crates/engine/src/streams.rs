//! The three standard streams, which belong to the process and not to a value.

use offshoot_sys::path;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::LazyLock;

/// Standard stream `number`, and what it is, if it is open.
pub(crate) fn borrow(number: i32) -> Option<(BorrowedFd<'static>, path::Stat)> {
    static STREAMS: LazyLock<(io::Stdin, io::Stdout, io::Stderr)> =
        LazyLock::new(|| (io::stdin(), io::stdout(), io::stderr()));
    let fd = match number {
        0 => STREAMS.0.as_fd(),
        1 => STREAMS.1.as_fd(),
        _ => STREAMS.2.as_fd(),
    };
    path::fstat(fd).ok().map(|stat| (fd, stat))
}
