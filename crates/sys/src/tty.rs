//! Terminals: pseudo-terminal pairs, sizes, modes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::Result;
use crate::error::owned;

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Unlocks the peer of a pseudo-terminal master, as `unlockpt` does.
pub fn unlock(master: impl AsFd) -> Result<()> {
    let fd = master.as_fd().as_raw_fd();
    let locked: libc::c_int = 0;
    // SAFETY: this request reads an int where its argument points.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSPTLCK, &raw const locked) };
    call!(Errno::result(ret), "ioctl([{fd}], TIOCSPTLCK)").map(drop)
}

/// The number N of a master's peer, `/dev/pts/N`.
pub fn number(master: impl AsFd) -> Result<u32> {
    let fd = master.as_fd().as_raw_fd();
    let mut number: libc::c_uint = 0;
    // SAFETY: this request stores an unsigned int where its argument points, and `number` outlives the call.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCGPTN, &raw mut number) };
    call!(Errno::result(ret), "ioctl([{fd}], TIOCGPTN)")?;
    Ok(number)
}

/// Opens the peer of a master without going by any path (Linux 4.13), so that nobody can put another file in its place.
pub fn peer(master: impl AsFd) -> Result<OwnedFd> {
    let fd = master.as_fd().as_raw_fd();
    // SAFETY: this request takes open flags and returns a new descriptor.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    call!(owned(ret.into()), "ioctl([{fd}], TIOCGPTPEER)")
}

/// Makes the terminal the controlling one of the calling session leader.
pub fn set_controlling(tty: impl AsFd) -> Result<()> {
    let fd = tty.as_fd().as_raw_fd();
    // SAFETY: this request takes an integer; 0 does not steal the terminal from another session.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) };
    call!(Errno::result(ret), "ioctl([{fd}], TIOCSCTTY)").map(drop)
}

/// The size of a terminal.
pub fn size(tty: impl AsFd) -> Result<Size> {
    let fd = tty.as_fd().as_raw_fd();
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request stores a winsize where its argument points, and `size` outlives the call.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    call!(Errno::result(ret), "ioctl([{fd}], TIOCGWINSZ)")?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
pub fn set_size(tty: impl AsFd, size: Size) -> Result<()> {
    let fd = tty.as_fd().as_raw_fd();
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request reads a winsize where its argument points.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) };
    call!(Errno::result(ret), "ioctl([{fd}], TIOCSWINSZ)").map(drop)
}

/// The modes of a terminal, to [`restore`] later.
pub fn modes(tty: impl AsFd) -> Result<Termios> {
    call!(tcgetattr(&tty), "tcgetattr([{}])", tty.as_fd().as_raw_fd())
}

/// Switches a terminal to raw mode, except that output is still processed where `keep_output`; returns the modes it had.
pub fn make_raw(tty: impl AsFd, keep_output: bool) -> Result<Termios> {
    let before = modes(&tty)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    if keep_output {
        raw.output_flags = before.output_flags;
    }
    restore(&tty, &raw)?;
    Ok(before)
}

/// Sets the modes of a terminal.
pub fn restore(tty: impl AsFd, modes: &Termios) -> Result<()> {
    call!(tcsetattr(&tty, SetArg::TCSANOW, modes), "tcsetattr([{}])", tty.as_fd().as_raw_fd())
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    nix::unistd::isatty(&fd).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_without_paths() {
        let Ok(master) = crate::path::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0) else {
            println!("skipped: no /dev/ptmx here");
            return;
        };
        unlock(&master).unwrap();
        let peer = peer(&master).unwrap();
        let name = crate::path::readlinkat(None, crate::path::fd_path(&peer)).unwrap();
        assert_eq!(name.to_str().unwrap(), format!("/dev/pts/{}", number(&master).unwrap()));
        let size = Size { rows: 40, columns: 100 };
        set_size(&master, size).unwrap();
        assert_eq!(super::size(&peer).unwrap(), size);
        assert!(is_terminal(&peer));
        let before = make_raw(&peer, true).unwrap();
        let raw = modes(&peer).unwrap();
        assert_ne!(raw.local_flags, before.local_flags);
        assert_eq!(raw.output_flags, before.output_flags);
        restore(&peer, &before).unwrap();
        assert_eq!(modes(&peer).unwrap(), before);
    }

    #[test]
    fn a_file_is_no_terminal() {
        let null = crate::path::open("/dev/null", libc::O_RDWR, 0).unwrap();
        assert!(!is_terminal(&null));
        assert_eq!(size(&null).unwrap_err().errno(), Errno::ENOTTY);
    }
}
