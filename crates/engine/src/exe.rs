//! The program's own file stays out of the container's reach (CVE-2019-5736): a process there that finds
//! `/proc/PID/exe` of the runtime, or is made to execute it, must not be able to open the file on the host for writing.

use crate::error::{Context, Error, Result};
use crate::log::Log;
use offshoot_sys::mount::{self, FsContext, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use offshoot_sys::{Errno, libc, memfd, path, process};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

const EXE: &str = "/proc/self/exe";

/// Magic numbers (linux/magic.h) of file systems that nobody can make writable: they have no code to write.
const UNWRITABLE: [u64; 2] = [0xe0f5_e1e2, 0x7371_7368];

/// With all of these a memfd can never change again, nor can the seals.
const SEALS: i32 = memfd::F_SEAL_SEAL | memfd::F_SEAL_SHRINK | memfd::F_SEAL_GROW | memfd::F_SEAL_WRITE;

/// Returns in a process whose program file a container cannot write: at once where that holds by nature, else after
/// executing itself, with the same arguments and environment, from a read-only overlay view or a sealed copy in memory.
///
/// For commands that enter a container; to be called first thing in `main`, from its only thread. Also makes the process
/// non-dumpable, so that nothing without rights over the host looks into it, and has it hear of its children. Nothing that the caller controls (environment,
/// arguments) says that the work is done: the file itself does, before the exec as after it, so it happens at most once.
///
/// # Errors
/// No protected view of the file could be made, or it could not be executed.
pub fn protect(log: &Log) -> Result<()> {
    let doing = || "protect the program's own file".to_owned();
    process::set_dumpable(false).context(doing)?;
    let exe = path::open(EXE, libc::O_PATH, 0).context(doing)?;
    let args = strings(std::env::args_os());
    if let Some(guard) = guard(&exe).context(doing)? {
        guard.tell(log);
        process::heed_children().context(|| "hear how children end".into())?;
        return name_process(args.first());
    }
    let view = match overlay(&exe) {
        Ok(view) if guard(&view).context(doing)?.is_some() => view,
        // A kernel without overlayfs, a caller without rights, a file that lies on an overlay already, or lies nowhere.
        _ => {
            let copy = copy(&exe).context(doing)?;
            if guard(&copy).context(doing)?.is_none() {
                return Err(Error::new("failed to protect the program's own file: its copy can be written"));
            }
            copy
        }
    };
    let env = strings(std::env::vars_os().map(|(key, value)| [key, value].join(OsStr::new("="))));
    let Err(error) = process::execveat(&view, c"", &args, &env, libc::AT_EMPTY_PATH);
    Err(error).context(doing)
}

/// Why nobody can write a file, however it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Its file system does not let it change: fs-verity, or no code to write.
    Nature,
    /// It is seen through an overlay like that of [`overlay`].
    View,
    /// It is a sealed memfd.
    Copy,
}

impl Guard {
    /// In runc's words, which its tests look for.
    fn tell(self, log: &Log) {
        match self {
            Guard::Nature => return log.debug("the program's own file cannot be written"),
            Guard::View => log.debug("runc exeseal: using overlayfs for sealed /proc/self/exe"),
            Guard::Copy => {}
        }
        log.debug("runc exeseal: using /proc/self/exe clone");
    }
}

/// The words as C strings. Those of a process cannot hold a NUL.
fn strings(words: impl Iterator<Item = OsString>) -> Vec<CString> {
    words.filter_map(|word| CString::new(word.into_vec()).ok()).collect()
}

/// Before Linux 6.14 a program executed by descriptor is named after the descriptor's number.
fn name_process(program: Option<&CString>) -> Result<()> {
    let path = Path::new(OsStr::from_bytes(program.map_or(b"", |program| program.as_bytes())));
    match path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()) {
        Some(name) => process::set_name(&name).map_err(Into::into),
        None => Ok(()),
    }
}

/// What keeps the file of `exe` from being written. A read-only mount alone does not.
fn guard(exe: &OwnedFd) -> offshoot_sys::Result<Option<Guard>> {
    let stat = mount::statx(Some(exe.as_fd()), "", libc::AT_EMPTY_PATH)?;
    let fs = mount::fstatfs(exe)?;
    Ok(if stat.is_verity() || UNWRITABLE.contains(&fs.magic) {
        Some(Guard::Nature)
    } else if fs.magic == libc::TMPFS_MAGIC as u64 {
        is_sealed(exe).then_some(Guard::Copy)
    } else if fs.magic == libc::OVERLAYFS_SUPER_MAGIC as u64 && fs.flags & libc::ST_RDONLY == libc::ST_RDONLY {
        is_detached(exe, stat.mnt_id)?.then_some(Guard::View)
    } else {
        None
    })
}

fn is_sealed(exe: &OwnedFd) -> bool {
    let seals = path::reopen(exe, libc::O_RDONLY).and_then(memfd::seals);
    seals.is_ok_and(|seals| seals & SEALS == SEALS)
}

/// Whether the file's mount is attached nowhere. The kernel prints the path from the top of a detached mount, where the
/// caller finds another mount, if anything.
fn is_detached(exe: &OwnedFd, mnt_id: u64) -> offshoot_sys::Result<bool> {
    let shown = path::readlinkat(None, path::fd_path(exe))?;
    match mount::statx(None, &shown, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(found.mnt_id != mnt_id),
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The file seen through an overlay of its own directory that has no upper layer: its superblock is read-only for ever, and
/// there is no way from it to the file beneath. Takes 0.2 ms and no memory.
fn overlay(exe: &OwnedFd) -> Result<OwnedFd> {
    let shown = path::readlinkat(None, EXE)?;
    let (Some(dir), Some(name)) = (shown.parent(), shown.file_name()) else {
        return Err(Error::new("the program's file has no name"));
    };
    let context = FsContext::open("overlay")?;
    // Without an upper layer there must be two lower ones; the second is never reached, and must not hold the first.
    let other = if dir.starts_with("/etc") { "/usr" } else { "/etc" };
    context.string("lowerdir", layers(dir, Path::new(other)))?;
    // Else the kernel logs that it switches it on where the layers lie on different file systems. Refused before Linux 4.17.
    let _ = context.string("xino", "off");
    context.create()?;
    let tree = context.mount(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
    let view = path::openat(Some(tree.as_fd()), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let (seen, own) = (path::fstat(&view)?, path::fstat(exe)?);
    // The program may have been replaced since it was started.
    if (seen.st_ino, seen.st_size) != (own.st_ino, own.st_size) {
        return Err(Error::new("the program's file has been replaced"));
    }
    Ok(view)
}

/// The value of `lowerdir`: overlayfs takes `:` for the end of a layer and `\` for its escape.
fn layers(top: &Path, bottom: &Path) -> OsString {
    let mut escaped = Vec::new();
    for byte in top.as_os_str().as_bytes() {
        if matches!(byte, b':' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped.push(b':');
    escaped.extend(bottom.as_os_str().as_bytes());
    OsString::from_vec(escaped)
}

/// A sealed copy in memory. The name is the one that runc's tests look for.
fn copy(exe: &OwnedFd) -> offshoot_sys::Result<OwnedFd> {
    const NAME: &str = "runc_cloned:/proc/self/exe";
    let file = match memfd::memfd(NAME, memfd::MFD_ALLOW_SEALING | memfd::MFD_EXEC) {
        // Linux before 6.3.
        Err(error) if error.errno() == Errno::EINVAL => memfd::memfd(NAME, memfd::MFD_ALLOW_SEALING)?,
        result => result?,
    };
    path::copy(path::reopen(exe, libc::O_RDONLY)?, &file)?;
    path::fchmod(&file, 0o511)?;
    // Linux 6.3. What it keeps, the executable bits, no container can use.
    let _ = memfd::seal(&file, memfd::F_SEAL_EXEC);
    memfd::seal(&file, SEALS)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_escaped() {
        let value = layers(Path::new("/a:b\\c"), Path::new("/etc"));
        assert_eq!(value, OsStr::new("/a\\:b\\\\c:/etc"));
    }

    #[test]
    fn what_can_be_written_and_what_cannot() {
        let own = path::open(EXE, libc::O_PATH, 0).unwrap();
        let copy = copy(&own).unwrap();
        assert_eq!(guard(&copy).unwrap(), Some(Guard::Copy));
        let link = path::readlinkat(None, path::fd_path(&copy)).unwrap();
        assert_eq!(link, Path::new("/memfd:runc_cloned:/proc/self/exe (deleted)"));
        let open = memfd::memfd("open", memfd::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(guard(&open).unwrap(), None);
        // The test's own file lies wherever it was built, but on nothing unwritable: it was written there.
        assert_eq!(guard(&own).unwrap(), None);
        match overlay(&own) {
            Ok(view) => assert_eq!(guard(&view).unwrap(), Some(Guard::View)),
            Err(error) => println!("skipped: no overlay view here: {error}"),
        }
    }
}
