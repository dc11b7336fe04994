//! The container's terminal, made inside it. CVE-2025-52565: nothing is opened twice by path.

use crate::error::{Context, Error, Result};
use crate::resolve;
use nix::sys::termios::OutputFlags;
use offshoot_sys::path::{RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV};
use offshoot_sys::{Errno, libc, mount, path, process, socket, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `DEVPTS_SUPER_MAGIC`, linux/magic.h.
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Inode of `ptmx` in every devpts.
const PTMX_INO: u64 = 2;
/// The file itself: no link, and nothing mounted over it.
const PTMX_RULES: u64 = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;

/// Makes a pseudo-terminal below `root`, sends its master over `socket`, and makes its other end, which is returned, the standard
/// streams. `size` is rows and columns; the owner is `uid`. With `console` it is also bound
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
) -> Result<OwnedFd> {
    let what = || "make the terminal".to_owned();
    let master = new_master(root).context(what)?;
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
        let target = console_target(root).context(what)?;
        let tree = crate::tree::clone_mount(&peer, false).context(what)?;
        mount::move_mount(&tree, &target).context(what)?;
    }
    socket::send(socket, name.as_bytes(), &[master.as_fd()])
        .context(|| "send the terminal to the console socket".into())?;
    for stream in 0..3 {
        process::dup3(&peer, stream, 0)?;
    }
    Ok(peer)
}

/// The master of a new pair. Only `/dev/pts` is looked up in the container, which may be changing it; in a devpts, once that is
/// what was found, nobody can put another file in the place of `ptmx`.
fn new_master(root: BorrowedFd) -> Result<OwnedFd> {
    let dir = resolve::open(root, Path::new("/dev/pts"), libc::O_PATH | libc::O_DIRECTORY)?;
    let open = |flags| path::openat2(Some(dir.as_fd()), "ptmx", flags, 0, PTMX_RULES);
    let stat = path::fstat(open(libc::O_PATH)?)?;
    let is_ptmx = mount::fstatfs_magic(&dir)? == DEVPTS_MAGIC
        && stat.st_ino == PTMX_INO
        && stat.st_mode & libc::S_IFMT == libc::S_IFCHR
        && stat.st_rdev == libc::makedev(5, 2);
    if !is_ptmx {
        return Err(Error::new("/dev/pts/ptmx is not that of a devpts"));
    }
    open(libc::O_RDWR | libc::O_NOCTTY).map_err(Into::into)
}

/// What the terminal is bound over: a file called `console`, made where there is none, but no link to another.
fn console_target(root: BorrowedFd) -> Result<OwnedFd> {
    let dev = resolve::directory(root, Path::new("/dev"))?;
    let rules = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    match path::openat2(Some(dev.as_fd()), "console", libc::O_PATH, 0, rules) {
        Err(error) if error.errno() == Errno::ENOENT => {
            let flags = libc::O_RDONLY | libc::O_CREAT | libc::O_EXCL;
            path::openat2(Some(dev.as_fd()), "console", flags, 0o666, rules).map_err(Into::into)
        }
        result => result.map_err(Into::into),
    }
}
