//! Raw system calls and every unsafe block of offshoot, in terms of owned and borrowed descriptors.
//!
//! One module a subject of the kernel. A public function is safe, takes `OwnedFd`/`BorrowedFd`, is a few lines long and
//! returns an [`Error`] that prints the call with its arguments. Every descriptor is close-on-exec from birth.

#[macro_use]
mod error;
mod text;

pub mod bpf;
pub mod btrfs;
pub mod event;
pub mod fork;
pub mod fsattr;
pub mod loopdev;
pub mod memfd;
pub mod mount;
pub mod ns;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod tty;
pub mod userns;

pub use error::{Error, Result};
pub use libc;
pub use nix::errno::Errno;
pub use text::{errno_text, signal_text};
