//! A directory held by its descriptor: everything this crate does on disk goes through one, below it and through no symlink.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Call, Error, Kind, Result};

/// How deep [`Dir::remove_tree`] nests before it flattens: each level holds a descriptor.
const DEPTH: usize = 200;

/// An open directory, and the path by which messages name it.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a directory by a trusted path, following symlinks as the user expects of a path of their own.
    pub(crate) fn open(path: &Path) -> Result<Dir> {
        let fd = nix::fcntl::open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .call(|| format!("open({path:?}, O_DIRECTORY)"))?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// Takes a directory that is open already; `path` is for messages.
    pub(crate) fn from_fd(fd: OwnedFd, path: PathBuf) -> Dir {
        Dir { fd, path }
    }

    /// The path for messages, and for the tools that only take paths.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that names this directory by its descriptor, for system calls that know no descriptors.
    pub(crate) fn magic_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// A second descriptor for the same open directory.
    pub(crate) fn try_clone(&self) -> Result<Dir> {
        let fd = self.fd.try_clone().call(|| format!("fcntl({:?}, F_DUPFD_CLOEXEC)", self.path))?;
        Ok(Dir { fd, path: self.path.clone() })
    }

    /// Opens something below, never through a symlink and never out of this directory.
    pub(crate) fn open_at(&self, rel: impl AsRef<Path>, flags: OFlag, mode: u32) -> Result<OwnedFd> {
        let rel = rel.as_ref();
        self.try_open_at(rel, flags, mode).call(|| format!("openat2({:?}, {flags:?})", self.path.join(rel)))
    }

    fn try_open_at(&self, rel: &Path, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::from_bits_truncate(mode)).resolve(resolve);
        nix::fcntl::openat2(&self.fd, rel, how)
    }

    /// A directory below.
    pub(crate) fn sub(&self, rel: impl AsRef<Path>) -> Result<Dir> {
        let fd = self.open_at(&rel, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
        Ok(Dir { fd, path: self.path.join(rel) })
    }

    /// A directory below, or `None` where nothing of that name is.
    pub(crate) fn sub_if_there(&self, rel: impl AsRef<Path>) -> Result<Option<Dir>> {
        match self.sub(rel) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory just below.
    pub(crate) fn mkdir(&self, name: impl AsRef<Path>, mode: u32) -> Result<()> {
        let name = name.as_ref();
        mkdirat(&self.fd, name, Mode::from_bits_truncate(mode))
            .call(|| format!("mkdirat({:?}, {mode:#o})", self.path.join(name)))
    }

    /// The directory of that name just below, made where it is missing.
    pub(crate) fn ensure(&self, name: impl AsRef<Path>, mode: u32) -> Result<Dir> {
        match self.sub_if_there(&name)? {
            Some(dir) => Ok(dir),
            None => {
                match self.mkdir(&name, mode) {
                    Err(error) if error.kind() != Kind::Exists => return Err(error),
                    _ => {}
                }
                self.sub(name)
            }
        }
    }

    /// The attributes of something just below, of a symlink itself.
    pub(crate) fn stat(&self, name: impl AsRef<Path>) -> Result<FileStat> {
        let name = name.as_ref();
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).call(|| format!("fstatat({:?})", self.path.join(name)))
    }

    /// The attributes of this directory.
    pub(crate) fn stat_self(&self) -> Result<FileStat> {
        fstat(&self.fd).call(|| format!("fstat({:?})", self.path))
    }

    /// Whether something of that name is here.
    pub(crate) fn has(&self, name: impl AsRef<Path>) -> Result<bool> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A whole file of ours; `limit` in bytes guards against something that is not ours.
    pub(crate) fn read(&self, name: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let name = name.as_ref();
        let file = File::from(self.open_at(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?);
        // Most are records: read at once, where std would begin with a few bytes of a file whose size it does not know.
        let mut bytes = Vec::with_capacity(2048);
        let call = || format!("read({:?})", self.path.join(name));
        file.take(limit + 1).read_to_end(&mut bytes).call(call)?;
        match bytes.len() as u64 > limit {
            true => Err(Error::new(Kind::Corrupt, format!("{:?} is larger than {limit} bytes", self.path.join(name)))),
            false => Ok(bytes),
        }
    }

    /// Writes a new file that must not exist.
    pub(crate) fn write_new(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<File> {
        let name = name.as_ref();
        let mut file = File::from(self.open_at(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?);
        file.write_all(bytes).call(|| format!("write({:?}, {} bytes)", self.path.join(name), bytes.len()))?;
        Ok(file)
    }

    /// Replaces a file in one step: a reader sees the old one or the new one, also after a power cut.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let new = format!(".{name}.new");
        let _ = unlinkat(&self.fd, new.as_str(), UnlinkatFlags::NoRemoveDir);
        let file = self.write_new(&new, bytes)?;
        // ext4 and xfs order data before such a rename only by heuristics (man 5 ext4, auto_da_alloc); so ask for it.
        file.sync_data().call(|| format!("fdatasync({:?})", self.path.join(&new)))?;
        crate::crash::point();
        self.rename(&new, self, name, 0)?;
        crate::crash::point();
        Ok(())
    }

    /// Renames something just below into `to`.
    pub(crate) fn rename(&self, from: impl AsRef<Path>, to: &Dir, new: impl AsRef<Path>, flags: u32) -> Result<()> {
        let (from, new) = (from.as_ref(), new.as_ref());
        // nix has no renameat2 where the C library is musl.
        let renamed = offshoot_sys::path::renameat2(Some(self.fd.as_fd()), from, Some(to.fd.as_fd()), new, flags);
        renamed
            .map_err(|error| error.errno())
            .call(|| format!("renameat2({:?}, {:?}, {flags:#x})", self.path.join(from), to.path.join(new)))
    }

    /// The names in this directory, in the order of the file system, without `.` and `..`.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).collect())
    }

    /// The names and types (where the file system tells) in this directory.
    pub(crate) fn entries(&self) -> Result<Vec<(OsString, Option<nix::dir::Type>)>> {
        let call = || format!("getdents64({:?})", self.path);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // A descriptor of its own, as reading moves the position that all duplicates share.
        let mut listing = nix::dir::Dir::openat(&self.fd, ".", flags, Mode::empty()).call(call)?;
        let mut found = Vec::new();
        for entry in listing.iter() {
            let entry = entry.call(call)?;
            let name: &CStr = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                found.push((OsStr::from_bytes(name.to_bytes()).to_owned(), entry.file_type()));
            }
        }
        Ok(found)
    }

    /// Removes something just below with all that is in it; nothing of that name is fine.
    pub(crate) fn remove_tree(&self, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => {
                let mut deep = Deep { top: self, moved: Vec::new(), count: 0 };
                self.remove_dir(name, 0, &mut deep)?;
                while let Some(name) = deep.moved.pop() {
                    self.remove_dir(Path::new(&name), 0, &mut deep)?;
                }
                Ok(())
            }
            Err(errno) => Err(Error::call(format!("unlinkat({:?})", self.path.join(name)), errno)),
        }
    }

    fn remove_dir(&self, name: &Path, depth: usize, deep: &mut Deep) -> Result<()> {
        let call = || format!("unlinkat({:?}, AT_REMOVEDIR)", self.path.join(name));
        match unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(Error::call(call(), errno)),
        }
        if depth >= DEPTH {
            // A tree of thousands of levels would take as many descriptors: its lower part moves up beside the top.
            deep.count += 1;
            let moved = format!(".deep-{}-{}", std::process::id(), deep.count);
            self.rename(name, deep.top, &moved, 0)?;
            deep.moved.push(moved);
            return Ok(());
        }
        let dir = self.sub(name)?;
        for (child, kind) in dir.entries()? {
            if kind == Some(nix::dir::Type::Directory) {
                dir.remove_dir(Path::new(&child), depth + 1, deep)?;
                continue;
            }
            match unlinkat(&dir.fd, child.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR) => dir.remove_dir(Path::new(&child), depth + 1, deep)?,
                Err(errno) => return Err(Error::call(format!("unlinkat({:?})", dir.path.join(child)), errno)),
            }
        }
        unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir).call(call)
    }

    /// Locks this directory against others (man 2 flock) until the returned lock is dropped; `None` where another holds it and
    /// `wait` is false.
    pub(crate) fn lock(&self, how: Lock, wait: bool) -> Result<Option<Locked>> {
        // A lock belongs to an open file description, so each gets its own.
        let file = File::from(self.open_at(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?);
        let taken = match (how, wait) {
            (Lock::Shared, true) => file.lock_shared().map_err(TryLockError::Error),
            (Lock::Exclusive, true) => file.lock().map_err(TryLockError::Error),
            (Lock::Shared, false) => file.try_lock_shared(),
            (Lock::Exclusive, false) => file.try_lock(),
        };
        match taken {
            Ok(()) => Ok(Some(Locked { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io(format!("flock({:?})", self.path), &error)),
        }
    }
}

/// Lower parts of a tree that is being removed, which have moved up.
struct Deep<'a> {
    top: &'a Dir,
    moved: Vec<String>,
    count: usize,
}

/// Whether others may hold the lock too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    Shared,
    Exclusive,
}

/// A held lock; closing its descriptor releases it, also when the process dies.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

/// Whether the attributes are of a directory.
pub(crate) fn is_dir(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFDIR
}

/// The type bits of a mode.
pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scratch;

    #[test]
    fn a_symlink_is_never_followed_and_nothing_above_is_reached() {
        let (_guard, path) = scratch("dir-symlink");
        let dir = Dir::open(&path).unwrap();
        std::os::unix::fs::symlink("/etc", path.join("link")).unwrap();
        assert!(dir.sub("link").is_err());
        assert!(dir.sub("..").is_err());
        assert!(dir.read("link/hostname", 10).is_err());
    }

    #[test]
    fn a_tree_of_thousands_of_levels_is_removed() {
        let (_guard, path) = scratch("dir-deep");
        let top = Dir::open(&path).unwrap();
        top.mkdir("t", 0o755).unwrap();
        let mut at = top.sub("t").unwrap();
        for level in 0..3000 {
            at.mkdir("d", 0o755).unwrap();
            at.write_new(format!("f{level}"), b"x").unwrap();
            at = at.sub("d").unwrap();
        }
        drop(at);
        top.remove_tree("t").unwrap();
        assert_eq!(top.names().unwrap(), Vec::<OsString>::new());
        top.remove_tree("t").unwrap();
    }

    #[test]
    fn a_second_exclusive_lock_waits_or_says_so() {
        let (_guard, path) = scratch("dir-lock");
        let dir = Dir::open(&path).unwrap();
        let held = dir.lock(Lock::Exclusive, false).unwrap().unwrap();
        assert!(dir.lock(Lock::Shared, false).unwrap().is_none());
        drop(held);
        assert!(dir.lock(Lock::Shared, false).unwrap().is_some());
    }
}
