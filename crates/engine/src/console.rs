//! The container's terminal, made inside it. CVE-2025-52565: nothing is opened twice by path.

use crate::error::{Context, Error, Result};
use crate::resolve;
use nix::sys::termios::OutputFlags;
use offshoot_sys::{Errno, libc, mount, path, process, socket, tty};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// `DEVPTS_SUPER_MAGIC`, linux/magic.h.
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Inode of `ptmx` in every devpts.
const PTMX_INO: u64 = 2;

/// Makes a pseudo-terminal below `root`, sends its master over `socket`, and makes its other end the controlling
/// terminal and the standard streams. `size` is rows and columns; the owner is `uid`. With `console` it is also bound
/// over `/dev/console`.
///
/// # Errors
/// The container's `/dev/pts` is not a devpts, or the socket is closed.
pub(crate) fn attach(
    root: BorrowedFd,
    socket: BorrowedFd,
    size: Option<(u16, u16)>,
    uid: u32,
    console: bool,
) -> Result<()> {
    let what = || "make the terminal".to_owned();
    let found = resolve::open(root, Path::new("/dev/pts/ptmx"), libc::O_PATH | libc::O_NOFOLLOW).context(what)?;
    let stat = path::fstat(&found)?;
    let is_ptmx = mount::fstatfs_magic(&found)? == DEVPTS_MAGIC
        && stat.st_ino == PTMX_INO
        && stat.st_mode & libc::S_IFMT == libc::S_IFCHR
        && stat.st_rdev == libc::makedev(5, 2);
    if !is_ptmx {
        return Err(Error::new("failed to make the terminal: /dev/pts/ptmx is not that of a devpts"));
    }
    // By the same path again, then compared: /proc may not be there to reopen a descriptor.
    let master = resolve::open(root, Path::new("/dev/pts/ptmx"), libc::O_RDWR | libc::O_NOCTTY).context(what)?;
    let opened = path::fstat(&master)?;
    if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(Error::new("failed to make the terminal: /dev/pts changed meanwhile"));
    }
    tty::unlock(&master).context(what)?;
    let peer = tty::peer(&master).context(what)?;
    if let Some((rows, columns)) = size {
        tty::set_size(&master, tty::Size { rows, columns }).context(what)?;
    }
    match path::fchown(&peer, uid, u32::MAX) {
        Err(error) if !matches!(error.errno(), Errno::EPERM | Errno::EINVAL) => return Err(error).context(what),
        _ => {}
    }
    // The terminal at the far end turns newlines into carriage return and newline; once is enough. Before anything can
    // be written: whoever gets the master would be too late.
    let mut modes = tty::modes(&peer).context(what)?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    tty::restore(&peer, &modes).context(what)?;
    let name = format!("/dev/pts/{}", tty::number(&master).context(what)?);
    if console {
        let target = resolve::file(root, Path::new("/dev/console")).context(what)?;
        let tree = crate::stage_rootfs::clone_mount(&peer, false).context(what)?;
        mount::move_mount(&tree, &target).context(what)?;
    }
    socket::send(socket, name.as_bytes(), &[master.as_fd()])
        .context(|| "send the terminal to the console socket".into())?;
    for stream in 0..3 {
        process::dup3(&peer, stream, 0)?;
    }
    tty::set_controlling(&peer).context(what)
}
