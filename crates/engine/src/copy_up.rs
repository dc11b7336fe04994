//! `tmpcopyup`: what a directory holds, copied into the tmpfs that will cover it.

use crate::error::{Context as _, Result};
use offshoot_sys::path::{self, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS};
use offshoot_sys::{Errno, libc};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Copies all entries of `from` to `to`, which keeps to the file system it is on: files, directories, links, nodes.
pub(crate) fn copy(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let own = path::openat(Some(from), ".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    for name in path::read_dir(&own)? {
        let name = Path::new(&name);
        let stat = path::fstatat(Some(own.as_fd()), name, libc::AT_SYMLINK_NOFOLLOW)?;
        let rules = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
        let open = |flags| path::openat2(Some(own.as_fd()), name, flags | libc::O_NOFOLLOW, 0, rules);
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                path::mkdirat(Some(to), name, 0o700)?;
                let made = path::openat2(Some(to), name, libc::O_RDONLY | libc::O_DIRECTORY, 0, rules)?;
                copy(open(libc::O_RDONLY | libc::O_DIRECTORY)?.as_fd(), made.as_fd())?;
            }
            libc::S_IFREG => {
                let mut source = File::from(open(libc::O_RDONLY | libc::O_NONBLOCK)?);
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                let mut target = File::from(path::openat2(Some(to), name, flags, 0o600, rules)?);
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let read = source.read(&mut buffer).context(|| format!("read {name:?}"))?;
                    if read == 0 {
                        break;
                    }
                    target.write_all(&buffer[..read]).context(|| format!("write {name:?}"))?;
                }
            }
            libc::S_IFLNK => path::symlinkat(path::readlinkat(Some(own.as_fd()), name)?, Some(to), name)?,
            kind => path::mknodat(Some(to), name, kind | 0o600, stat.st_rdev)?,
        }
        path::fchownat(Some(to), name, stat.st_uid, stat.st_gid, libc::AT_SYMLINK_NOFOLLOW)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
            let node = path::openat2(Some(to), name, libc::O_PATH | libc::O_NOFOLLOW, 0, rules)?;
            // An O_PATH descriptor takes no fchmod; its link in /proc does, and this is the host's /proc.
            match std::fs::set_permissions(
                path::fd_path(&node),
                std::os::unix::fs::PermissionsExt::from_mode(stat.st_mode & 0o7777),
            ) {
                Err(error) if error.raw_os_error() != Some(Errno::ENOENT as i32) => {
                    return Err(error).context(|| format!("set the mode of {name:?}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
