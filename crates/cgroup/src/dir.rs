//! One cgroup directory, held open. Nothing in a cgroup is ever reached by a path from outside it.

use crate::{Error, Result};
use offshoot_sys::{Errno, event, path};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// A name leads to what is in the directory: not up, not out by a link, not into another mount.
const BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
/// More than any cgroup file has; `cgroup.procs` of a very large container.
const MAX_FILE: usize = 64 << 20;

/// How long a cgroup may take to become empty once its processes were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A directory of a cgroup file system.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// The root of what is mounted at `mount_point`, a path that the host's root chose.
    pub(crate) fn mounted(mount_point: &Path) -> Result<Dir> {
        let fd = path::open(mount_point, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)
            .map_err(|e| Error::system(format_args!("open {}", mount_point.display()), e.errno()))?;
        Ok(Dir { fd, path: mount_point.to_path_buf() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn open(&self, name: impl AsRef<Path>, flags: i32) -> Result<OwnedFd> {
        let name = name.as_ref();
        path::openat2(Some(self.as_fd()), name, flags | libc::O_CLOEXEC, 0, BENEATH)
            .map_err(|e| Error::system(format_args!("open {}", self.path.join(name).display()), e.errno()))
    }

    /// The cgroup at `below`, which may be several levels down.
    pub(crate) fn child(&self, below: &Path) -> Result<Dir> {
        if below.as_os_str().is_empty() {
            let fd = self.fd.try_clone().map_err(|e| Error::new(format!("dup {}: {e}", self.path.display())))?;
            return Ok(Dir { fd, path: self.path.clone() });
        }
        Ok(Dir { fd: self.open(below, libc::O_RDONLY | libc::O_DIRECTORY)?, path: self.path.join(below) })
    }

    /// Makes the cgroup `name`; false when it is there already.
    pub(crate) fn make(&self, name: &OsStr) -> Result<bool> {
        match path::mkdirat(Some(self.as_fd()), Path::new(name), 0o755) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Errno::EEXIST => Ok(false),
            Err(e) => Err(Error::system(format_args!("mkdir {}", self.path.join(name).display()), e.errno())),
        }
    }

    /// Removes the cgroup `name`, which must have neither processes nor cgroups.
    pub(crate) fn unmake(&self, name: &OsStr) -> Result<()> {
        match path::unlinkat(Some(self.as_fd()), Path::new(name), libc::AT_REMOVEDIR) {
            Err(e) if !matches!(e.errno(), Errno::ENOENT | Errno::ENODEV) => {
                Err(Error::system(format_args!("rmdir {}", self.path.join(name).display()), e.errno()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let fd = self.open(file, libc::O_RDONLY)?;
        read_open(&fd).map_err(|e| e.while_doing(self.path.join(file).display()))
    }

    pub(crate) fn write(&self, file: &str, value: &str) -> Result<()> {
        let fd = self.open(file, libc::O_WRONLY)?;
        self.write_open(&fd, file, value)
    }

    pub(crate) fn write_open(&self, fd: &OwnedFd, file: &str, value: &str) -> Result<()> {
        let failed =
            |errno| Error::system(format_args!("write {value:?} to {}", self.path.join(file).display()), errno);
        // One write: the kernel takes each as a whole value. An empty one it would not see.
        match path::write(fd, value.as_bytes()) {
            Ok(_) => Ok(()),
            Err(e) => Err(failed(e.errno())),
        }
    }

    /// The names of the cgroups in this one.
    pub(crate) fn children(&self) -> Result<Vec<OsString>> {
        let failed = |call: &str, errno| Error::system(format_args!("{call} {}", self.path.display()), errno);
        // kernfs counts subdirectories in the link count, so most cgroups need not be listed.
        if path::fstat(self).map_err(|e| failed("stat", e.errno()))?.st_nlink <= 2 {
            return Ok(Vec::new());
        }
        let mut names = path::read_dir(self).map_err(|e| failed("readdir", e.errno()))?;
        names.retain(|name| {
            path::fstatat(Some(self.as_fd()), Path::new(name), libc::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
        });
        Ok(names)
    }

    /// The processes in this very cgroup. 0 stands for one outside the caller's pid namespace: it has no number.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        let text = match self.read("cgroup.procs") {
            // A threaded cgroup has threads only.
            Err(e) if e.errno() == Some(Errno::EOPNOTSUPP) => self.read("cgroup.threads")?,
            other => other?,
        };
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
    }

    /// The processes in this cgroup and all below. What disappears meanwhile had none.
    pub(crate) fn all_pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        self.walk(&mut |dir| dir.pids().map(|own| pids.extend(own)), &mut |_, _| Ok(()))?;
        Ok(pids)
    }

    /// Goes through this cgroup and all below. `enter` is called in each, `leave` in the parent of each that was gone through, with
    /// its name. One directory is open at a time, however deep a payload has nested them, and each is entered once, however many.
    fn walk(
        &self,
        enter: &mut dyn FnMut(&Dir) -> Result<()>,
        leave: &mut dyn FnMut(&Dir, &OsStr) -> Result<()>,
    ) -> Result<()> {
        let mut here = self.child(Path::new(""))?;
        enter(&here)?;
        // Of each level from this one on: its name, and what is left to be gone through in it.
        let mut levels: Vec<(OsString, Vec<OsString>)> = vec![(OsString::new(), here.children()?)];
        while let Some((_, left)) = levels.last_mut() {
            let Some(name) = left.pop() else {
                let (name, _) = levels.pop().unwrap_or_default();
                if !levels.is_empty() {
                    here = here.parent()?;
                    leave(&here, &name)?;
                }
                continue;
            };
            let child = match here.child(Path::new(&name)) {
                Err(e) if e.is_absent() => continue,
                child => child?,
            };
            match enter(&child).and_then(|()| child.children()) {
                Err(e) if e.is_absent() => {}
                children => {
                    levels.push((name, children?));
                    here = child;
                }
            }
        }
        Ok(())
    }

    /// The cgroup above one that was reached from there: a cgroup cannot be moved to another place.
    fn parent(&self) -> Result<Dir> {
        let resolve = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let fd = path::openat2(Some(self.as_fd()), "..", flags, 0, resolve)
            .map_err(|e| Error::system(format_args!("open {}/..", self.path.display()), e.errno()))?;
        Ok(Dir { fd, path: self.path.parent().unwrap_or(Path::new("/")).to_path_buf() })
    }

    /// Waits until `cgroup.events` has `key` at `wanted`; false when it has not after `patience`. The kernel wakes
    /// who polls the file, so nothing is missed and nobody sleeps. kernel: cgroup-v2.rst, "cgroup.events"
    pub(crate) fn wait_event(&self, key: &str, wanted: u64, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        let file = self.open("cgroup.events", libc::O_RDONLY)?;
        loop {
            rewind(&file)?;
            if find_key(&read_open(&file)?, key) == Some(wanted) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [(file.as_fd(), event::POLLPRI, 0)];
            let ready =
                event::poll(&mut fds, Some(left)).map_err(|e| Error::system("poll cgroup.events", e.errno()))?;
            if ready == 0 {
                return Ok(false);
            }
        }
    }

    /// Removes the cgroup `name` with all cgroups in it, deepest first. It waits for processes that are about to be
    /// gone, and fails when some stay.
    pub(crate) fn remove(&self, name: &OsStr) -> Result<()> {
        match self.unmake(name) {
            Err(e) if e.errno() == Some(Errno::EBUSY) => {}
            done => return done,
        }
        let end = Instant::now() + PATIENCE;
        match self
            .child(Path::new(name))
            .and_then(|dir| dir.walk(&mut |_| Ok(()), &mut |dir, name| dir.unmake_by(name, end)))
        {
            Err(e) if e.is_absent() => {}
            walked => walked?,
        }
        self.unmake_by(name, end)
    }

    /// Removes a cgroup that has no cgroups any more, as soon as it has no processes.
    fn unmake_by(&self, name: &OsStr, end: Instant) -> Result<()> {
        loop {
            let busy = match self.unmake(name) {
                Err(e) if e.errno() == Some(Errno::EBUSY) => e,
                done => return done,
            };
            let dir = match self.child(Path::new(name)) {
                Err(e) if e.is_absent() => return Ok(()),
                dir => dir?,
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !dir.wait_empty(left)? {
                return Err(busy);
            }
            drop(dir);
            match self.unmake(name) {
                // A process that is listed no more may not be quite gone.
                Err(e) if e.errno() == Some(Errno::EBUSY) => std::thread::sleep(Duration::from_millis(1)),
                done => return done,
            }
        }
    }

    fn wait_empty(&self, patience: Duration) -> Result<bool> {
        let waited = match self.wait_event("populated", 0, patience) {
            // v1 has no such file and no other notice: a dying process is gone within a few milliseconds.
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                let end = Instant::now() + patience;
                loop {
                    match self.read("cgroup.procs") {
                        Ok(text) if !text.is_empty() && Instant::now() < end => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Ok(text) => break Ok(text.is_empty()),
                        Err(e) => break Err(e),
                    }
                }
            }
            waited => waited,
        };
        match waited {
            Err(e) if e.is_absent() => Ok(true),
            waited => waited,
        }
    }
}

/// The text of an open file, from where it stands.
pub(crate) fn read_open(fd: &OwnedFd) -> Result<String> {
    let bytes = path::read_to_end(fd, MAX_FILE).map_err(|e| Error::system("read", e.errno()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn rewind(file: &OwnedFd) -> Result<()> {
    nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekSet)
        .map(drop)
        .map_err(|errno| Error::system("lseek to 0", errno))
}

/// The value of `key` in `key value` lines.
pub(crate) fn find_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The names in a relative path that was made normal by the plan.
pub(crate) fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let root = std::env::temp_dir().join(format!("offshoot-test-{}-dir", std::process::id()));
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::write(root.join("outside"), "").unwrap();
        symlink("../outside", root.join("in/link")).unwrap();
        let dir = Dir::mounted(&root.join("in")).unwrap();
        for name in ["../outside", "/etc/passwd", "link", ".."] {
            assert!(matches!(
                dir.write(name, "x").unwrap_err().errno(),
                Some(Errno::EXDEV | Errno::ELOOP | Errno::EISDIR)
            ));
        }
        assert!(dir.child("..".as_ref()).is_err());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_key_is_a_whole_word() {
        assert_eq!(find_key("oom 1\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(find_key("oom 1\noom_kill 2\n", "oom"), Some(1));
        assert_eq!(find_key("oom_kill 2\n", "oom"), None);
    }
}
