//! Paths inside a root filesystem that the container may be changing while we work: every object is looked up
//! once, below a held descriptor, and used by the descriptor that came back. security: CVE-2021-30465 and kin.

use crate::error::{Context, Error, Result};
use offshoot_sys::path::{
    self, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
};
use offshoot_sys::{Errno, libc};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows.
const MAX_LINKS: usize = 40;

/// Opens `path` as the container would see it were `root` its `/`. `flags` are `O_…`.
///
/// # Errors
/// As openat2(2).
pub fn open(root: impl AsFd, path: &Path, flags: i32) -> offshoot_sys::Result<OwnedFd> {
    path::openat2(Some(root.as_fd()), path, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
}

/// As [`open`], refusing any symlink on the way.
///
/// # Errors
/// As openat2(2): ELOOP for a symlink.
pub fn open_ordinary(root: impl AsFd, path: &Path, flags: i32) -> offshoot_sys::Result<OwnedFd> {
    let rules = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
    path::openat2(Some(root.as_fd()), path, flags, 0, rules)
}

/// Opens the directory `path`, making what is missing with mode 0755.
///
/// # Errors
/// A component is not a directory, or cannot be made.
pub fn directory(root: BorrowedFd, path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match open(root, path, flags) {
        Err(error) if error.errno() == Errno::ENOENT => make(root, path),
        result => result.map_err(Into::into),
    }
}

/// Opens `path`, whatever it is; if it is missing, makes an empty file of mode 0755 there.
///
/// # Errors
/// The file or the directories above it cannot be made.
pub fn file(root: BorrowedFd, path: &Path) -> Result<OwnedFd> {
    match open(root, path, libc::O_PATH) {
        Err(error) if error.errno() == Errno::ENOENT => {}
        result => return result.map_err(Into::into),
    }
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let (parent, name) = parent(root, &path)?;
        let flags = libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        match path::openat2(Some(parent.as_fd()), name, flags, 0o755, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) {
            // A link that leads nowhere yet: the file belongs where it leads.
            Err(error) if error.errno() == Errno::ELOOP => {
                let target = path::readlinkat(Some(parent.as_fd()), name)?;
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            result => return result.map_err(Into::into),
        }
    }
    Err(Error::new(format!("{path:?} in the root filesystem: too many levels of symbolic links")))
}

/// The directory that holds `path`, made where missing, and the last name.
///
/// # Errors
/// The path has no last name, or the directory cannot be made.
pub fn parent<'a>(root: BorrowedFd, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().ok_or_else(|| Error::new(format!("{} has no file name", path.display())))?;
    Ok((directory(root, path.parent().unwrap_or(Path::new("/")))?, name))
}

/// Makes the directory `wanted`, which is missing, and those above it. Links that lead nowhere are followed, as
/// `mkdir -p` in a chroot would have to.
///
/// # Errors
/// As [`directory`].
pub fn make(root: BorrowedFd, wanted: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    // Most often only the last one is missing, and nothing is in its place.
    if let (Some(above), Some(name)) = (wanted.parent(), wanted.file_name())
        && let Ok(above) = open(root, if above == Path::new("") { Path::new("/") } else { above }, flags)
        && path::mkdirat(Some(above.as_fd()), name, 0o755).is_ok()
    {
        return open_made(above.as_fd(), name);
    }
    let mut path = wanted.to_owned();
    'links: for _ in 0..MAX_LINKS {
        let mut done = PathBuf::from("/");
        let mut dir = open(root, Path::new("/"), flags)?;
        let parts: Vec<_> = path.components().collect();
        for (i, part) in parts.iter().enumerate() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            let next = done.join(name);
            // From the root each time, so that `..` and links never leave it.
            match open(root, &next, flags) {
                Ok(found) => dir = found,
                Err(error) if error.errno() == Errno::ENOENT => {
                    if let Ok(target) = path::readlinkat(Some(dir.as_fd()), name) {
                        let mut link = done.join(target);
                        link.extend(&parts[i + 1..]);
                        path = link;
                        continue 'links;
                    }
                    dir = make_one(dir.as_fd(), name)?;
                }
                Err(error) => return Err(error.into()),
            }
            done = next;
        }
        return Ok(dir);
    }
    Err(Error::new(format!("{} in the root filesystem: too many levels of symbolic links", wanted.display())))
}

/// Makes and opens the directory `name` in `dir`; one that is there already will do.
///
/// # Errors
/// It cannot be made, or something else is there.
pub fn make_one(dir: BorrowedFd, name: &OsStr) -> Result<OwnedFd> {
    if name == ".." {
        return Err(Error::new("a path leads through \"..\" out of a directory that does not exist"));
    }
    match path::mkdirat(Some(dir), name, 0o755) {
        Err(error) if error.errno() != Errno::EEXIST => return Err(error.into()),
        _ => {}
    }
    open_made(dir, name)
}

fn open_made(dir: BorrowedFd, name: &OsStr) -> Result<OwnedFd> {
    let rules = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
    path::openat2(Some(dir), name, libc::O_PATH | libc::O_DIRECTORY, 0, rules)
        .context(|| format!("open the directory {name:?} that was just made"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root(name: &str) -> (PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("offshoot-resolve-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root/a")).unwrap();
        let fd = path::open(path.join("root"), libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        (path, fd)
    }

    #[test]
    fn links_stay_inside() {
        let (path, fd) = root("inside");
        symlink("/../../../outside", path.join("root/absolute")).unwrap();
        symlink("../../outside", path.join("root/a/up")).unwrap();
        directory(fd.as_fd(), Path::new("/absolute/x")).unwrap();
        file(fd.as_fd(), Path::new("/a/up/y/file")).unwrap();
        assert!(path.join("root/outside/x").is_dir() && path.join("root/outside/y/file").is_file());
        assert!(!path.join("outside").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_file_is_made_where_its_link_leads() {
        let (path, fd) = root("dangling");
        symlink("../b/c", path.join("root/a/link")).unwrap();
        file(fd.as_fd(), Path::new("/a/link")).unwrap();
        assert!(path.join("root/b/c").is_file());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn loops_end() {
        let (path, fd) = root("loop");
        symlink("y", path.join("root/x")).unwrap();
        symlink("x", path.join("root/y")).unwrap();
        assert!(directory(fd.as_fd(), Path::new("/x/z")).is_err());
        assert!(file(fd.as_fd(), Path::new("/x")).is_err());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_not_a_directory() {
        let (path, fd) = root("file");
        fs::write(path.join("root/f"), "").unwrap();
        let error = directory(fd.as_fd(), Path::new("/f/g")).unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }
}
