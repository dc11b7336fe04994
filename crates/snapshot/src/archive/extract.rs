//! Extraction of one layer into a directory of the store, as hostile input.
//!
//! Every name is resolved below the layer's root without following any symlink (openat2), so nothing outside is ever touched; what
//! tries is refused with its name. Owners are written as they stand in the archive: ids are mapped when a clone is mounted.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, makedev, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use crate::archive::Limits;
use crate::archive::sparse::Extent;
use crate::archive::tar::{Entry, EntryKind, Tar};
use crate::dir::{Dir, is_dir};
use crate::error::{Call, Error, Kind, Result};
use crate::overlayfs;

pub(crate) const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Zeros of this length and alignment become holes.
const HOLE: usize = 4096;
const CHUNK: usize = 256 << 10;

/// What a layer turned out to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Bytes of file contents, holes not counted.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Whether the archive says what the root directory itself is like.
    pub(crate) root: bool,
    /// Device nodes left out, as a user namespace cannot make them.
    pub(crate) devices_skipped: u64,
}

/// Extracts an archive into `root`, an empty directory.
pub(crate) fn extract<R: std::io::Read>(source: R, root: &Dir, limits: &Limits) -> Result<Extracted> {
    let mut tar = Tar::new(source);
    let rootless = !in_initial_user_namespace();
    let mut layer =
        Layer { root, limits, rootless, done: Extracted::default(), parent: None, times: Vec::new(), devices: 0 };
    let mut buffer = vec![0; CHUNK];
    while let Some(entry) = tar.next()? {
        layer.add(&entry, &mut tar, &mut buffer).map_err(|error| named(&entry, error))?;
        crate::crash::point_every(4096, layer.done.entries);
    }
    layer.finish()
}

/// Only there can device nodes be made, and `trusted.` attributes be set.
pub(crate) fn in_initial_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Puts the entry's name in front of what went wrong with it, once.
fn named(entry: &Entry, error: Error) -> Error {
    if error.to_string().contains(&entry.shown()) {
        return error;
    }
    error.prefixed(format!("entry {}", entry.shown()))
}

struct Layer<'a> {
    root: &'a Dir,
    limits: &'a Limits,
    rootless: bool,
    done: Extracted,
    /// The directory of the entry before: mostly that of the next one too.
    parent: Option<(PathBuf, Dir)>,
    /// Directory times, set last, as every new entry changes them.
    times: Vec<(PathBuf, TimeSpec)>,
    devices: u64,
}

impl Layer<'_> {
    fn add<R: std::io::Read>(&mut self, entry: &Entry, tar: &mut Tar<R>, buffer: &mut [u8]) -> Result<()> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(entry.refused(format!("the archive has more than {} entries", self.limits.entries)));
        }
        let path = clean(entry, &entry.path, self.limits)?;
        let Some(name) = path.file_name() else { return self.add_root(entry) };
        let above = path.parent().unwrap_or(Path::new(""));
        self.enter(entry, above)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.add_whiteout(entry, above, name.as_bytes(), hidden);
        }
        match entry.kind {
            EntryKind::Dir => return self.add_dir(entry, &path, name),
            EntryKind::HardLink => return self.add_hard_link(entry, name),
            _ => {}
        }
        self.make_room(name)?;
        let parent = self.at();
        let show = || parent.path().join(name);
        match entry.kind {
            EntryKind::File => self.add_file(entry, name, tar, buffer),
            EntryKind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(entry.refused("a symlink without a target"));
                }
                symlinkat(OsStr::from_bytes(&entry.link), parent, name).call(|| format!("symlinkat({:?})", show()))?;
                self.attributes_by_name(entry, name)
            }
            EntryKind::Fifo => self.add_node(entry, name, SFlag::S_IFIFO),
            EntryKind::Char => self.add_node(entry, name, SFlag::S_IFCHR),
            EntryKind::Block => self.add_node(entry, name, SFlag::S_IFBLK),
            EntryKind::Dir | EntryKind::HardLink => Ok(()),
        }
    }

    /// The directory that [`Self::enter`] went to.
    fn at(&self) -> &Dir {
        self.parent.as_ref().map_or(self.root, |(_, dir)| dir)
    }

    /// Goes to the directory of an entry, making what is missing of it.
    fn enter(&mut self, entry: &Entry, path: &Path) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(at, _)| at == path) {
            return Ok(());
        }
        self.parent = None;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let dir = match self.root.sub(path) {
            Ok(dir) => dir,
            Err(error) if error.kind() == Kind::NotFound => {
                let mut dir = self.root.try_clone()?;
                for name in path {
                    dir = dir.ensure(name, 0o755).map_err(|error| through(entry, path, error))?;
                }
                dir
            }
            Err(error) => return Err(through(entry, path, error)),
        };
        self.parent = Some((path.to_owned(), dir));
        Ok(())
    }

    /// Removes what an earlier entry of the same name left.
    fn make_room(&mut self, name: &OsStr) -> Result<()> {
        if self.at().has(name)? {
            self.at().remove_tree(name)?;
        }
        Ok(())
    }

    fn add_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Dir {
            return Err(entry.refused("the root is not a directory"));
        }
        self.parent = None;
        self.done.root = true;
        self.attributes(entry, self.root.as_fd())?;
        self.times.push((PathBuf::new(), time(entry)));
        Ok(())
    }

    fn add_dir(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> Result<()> {
        let mut opaque = false;
        let there = match self.at().stat(name) {
            Ok(stat) => {
                // A directory that takes the place of what a lower layer had must not be merged with it.
                opaque = overlayfs::is_whiteout(&stat);
                is_dir(&stat)
            }
            Err(error) if error.kind() == Kind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !there {
            self.make_room(name)?;
            self.at().mkdir(name, 0o700)?;
        }
        let dir = self.at().sub(name)?;
        if opaque {
            overlayfs::set_opaque(&dir, self.rootless)?;
        }
        self.attributes(entry, dir.as_fd())?;
        self.times.push((path.to_owned(), time(entry)));
        Ok(())
    }

    fn add_hard_link(&mut self, entry: &Entry, name: &OsStr) -> Result<()> {
        let target = clean(entry, &entry.link, self.limits)?;
        let Some(target_name) = target.file_name() else {
            return Err(entry.refused("a hard link to the root directory"));
        };
        let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let refused = |why: &str| entry.refused(format!("hard link to {target:?}: {why}"));
        let missing = |error: Error| match error.kind() {
            Kind::NotFound => refused("no such file in this archive"),
            _ => through(entry, above, error),
        };
        let from = self.root.sub(above).map_err(missing)?;
        let stat = from.stat(target_name).map_err(missing)?;
        if is_dir(&stat) || overlayfs::is_whiteout(&stat) {
            return Err(refused("it is not a file"));
        }
        // A link to itself, as some archivers write for the second name of one path, is there already.
        if self.at().stat(name).is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.make_room(name)?;
        let show = self.at().path().join(name);
        linkat(&from, target_name, self.at(), name, AtFlags::empty()).call(|| format!("linkat({target:?}, {show:?})"))
    }

    fn add_whiteout(&mut self, entry: &Entry, above: &Path, name: &[u8], hidden: &[u8]) -> Result<()> {
        if name == OPAQUE {
            let dir = self.at().try_clone()?;
            return overlayfs::set_opaque(&dir, self.rootless);
        }
        // aufs kept its own files under this prefix; they mean nothing here.
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(entry.refused("a whiteout of nothing"));
        }
        let hidden = OsStr::from_bytes(hidden);
        match self.at().stat(hidden) {
            // The layer itself has such an entry, which a whiteout does not touch; but no lower one shows through.
            Ok(stat) if is_dir(&stat) => overlayfs::set_opaque(&self.at().sub(hidden)?, self.rootless),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::NotFound => overlayfs::whiteout(self.at(), hidden),
            Err(error) => Err(through(entry, above, error)),
        }
    }

    fn add_node(&mut self, entry: &Entry, name: &OsStr, kind: SFlag) -> Result<()> {
        let (major, minor) = entry.device;
        if kind != SFlag::S_IFIFO {
            self.devices += 1;
            if self.devices > self.limits.devices {
                return Err(entry.refused(format!("the archive has more than {} device nodes", self.limits.devices)));
            }
            if (major, minor) == (0, 0) {
                return Err(entry.refused("device 0:0 is how overlayfs marks a deleted file"));
            }
            if major >= 1 << 12 || minor >= 1 << 20 {
                return Err(entry.refused(format!("there is no device {major}:{minor}")));
            }
        }
        let device = makedev(u64::from(major), u64::from(minor));
        match mknodat(self.at(), name, kind, Mode::from_bits_truncate(0o600), device) {
            Err(Errno::EPERM) if self.rootless && kind != SFlag::S_IFIFO => {
                self.done.devices_skipped += 1;
                return Ok(());
            }
            result => result.call(|| format!("mknodat({:?}, {major}:{minor})", self.at().path().join(name)))?,
        }
        self.attributes_by_name(entry, name)
    }

    fn add_file<R: std::io::Read>(
        &mut self,
        entry: &Entry,
        name: &OsStr,
        tar: &mut Tar<R>,
        buffer: &mut [u8],
    ) -> Result<()> {
        let file =
            self.at().open_at(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW, 0o600)?;
        let whole = [Extent { offset: 0, length: entry.size }];
        let mut end = 0;
        for extent in entry.extents.as_deref().unwrap_or(&whole) {
            let mut at = extent.offset;
            let until = extent.offset + extent.length;
            while at < until {
                let want = usize::try_from(until - at).unwrap_or(CHUNK).min(CHUNK);
                let count = tar.read_data(&mut buffer[..want])?;
                self.done.bytes += count as u64;
                if self.done.bytes > self.limits.bytes {
                    return Err(entry.refused(format!("the archive unpacks to more than {} bytes", self.limits.bytes)));
                }
                end = write_sparsely(&file, at, &buffer[..count], end)?;
                at += count as u64;
            }
        }
        if end < entry.size {
            let size = i64::try_from(entry.size).map_err(|_| entry.refused("bad size"))?;
            nix::unistd::ftruncate(&file, size).call(|| format!("ftruncate({size})"))?;
        }
        self.attributes(entry, file.as_fd())?;
        futimens(&file, &time(entry), &time(entry)).call(|| format!("futimens({})", entry.shown()))
    }

    /// Owner, mode and extended attributes of an open file or directory.
    fn attributes(&self, entry: &Entry, fd: impl AsFd) -> Result<()> {
        let (uid, gid) = owner(entry)?;
        fchown(&fd, Some(uid), Some(gid))
            .call(|| format!("fchown({uid}, {gid})"))
            .map_err(|error| self.unmapped(error))?;
        // Mode and file capabilities come after the owner, as changing that clears them (man 2 chown).
        fchmod(&fd, Mode::from_bits_truncate(entry.mode)).call(|| format!("fchmod({:#o})", entry.mode))?;
        self.xattrs(entry, fd)
    }

    /// The same for what is never opened: links, devices, fifos.
    fn attributes_by_name(&self, entry: &Entry, name: &OsStr) -> Result<()> {
        let (uid, gid) = owner(entry)?;
        let parent = self.at();
        let show = || parent.path().join(name);
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .call(|| format!("fchownat({:?}, {uid}, {gid})", show()))
            .map_err(|error| self.unmapped(error))?;
        let fd = || parent.open_at(name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0);
        if entry.kind != EntryKind::Symlink {
            let fd: OwnedFd = fd()?;
            offshoot_sys::path::fchmod(&fd, entry.mode)?;
            self.xattrs(entry, &fd)?;
        } else if !entry.xattrs.is_empty() {
            self.xattrs(entry, &fd()?)?;
        }
        utimensat(parent, name, &time(entry), &time(entry), UtimensatFlags::NoFollowSymlink)
            .call(|| format!("utimensat({:?})", show()))
    }

    fn unmapped(&self, error: Error) -> Error {
        match self.rootless {
            true => error.with_hint("the archive has owners beyond your range of subordinate ids (man 5 subuid)"),
            false => error,
        }
    }

    fn xattrs(&self, entry: &Entry, fd: impl AsFd) -> Result<()> {
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| wanted(name)) {
            let name = OsStr::from_bytes(name);
            match offshoot_sys::fsattr::set(&fd, name, value) {
                // Attributes of users are a convenience that tmpfs and network file systems may lack; capabilities are not.
                Err(error) if error.errno() == Errno::EOPNOTSUPP && name.as_bytes().starts_with(b"user.") => {}
                // The kernel has no user attributes on links and devices (man 7 xattr), yet some archivers write them.
                Err(error) if error.errno() == Errno::EPERM && name.as_bytes().starts_with(b"user.") => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Extracted> {
        // The deepest last entries first, though only order within a directory would matter.
        while let Some((path, time)) = self.times.pop() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            // A later entry may have replaced the directory.
            let Ok(dir) = self.root.sub(path) else { continue };
            futimens(&dir, &time, &time).call(|| format!("futimens({path:?})"))?;
        }
        Ok(self.done)
    }
}

/// The attributes that belong to a file; overlayfs's own would let an archive forge layers, and labels are the host's.
pub(crate) fn wanted(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// A symlink where a directory must be is the usual escape; say so rather than ELOOP.
fn through(entry: &Entry, path: &Path, error: Error) -> Error {
    let text = error.to_string();
    if text.ends_with(&offshoot_sys::errno_text(Errno::ELOOP))
        || text.ends_with(&offshoot_sys::errno_text(Errno::ENOTDIR))
    {
        return entry.refused(format!("{path:?} leads through a symlink or file"));
    }
    error
}

/// A name's components below the root; what could lead out is refused.
fn clean(entry: &Entry, path: &[u8], limits: &Limits) -> Result<PathBuf> {
    if path.starts_with(b"/") {
        return Err(entry.refused(format!("absolute name {:?}", String::from_utf8_lossy(path))));
    }
    if path.is_empty() || path.contains(&0) || path.len() > 4095 {
        return Err(entry.refused("a name that is empty, too long or holds a zero byte"));
    }
    let mut clean = PathBuf::new();
    let mut depth = 0;
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(entry.refused(format!("\"..\" in {:?}", String::from_utf8_lossy(path)))),
            _ => clean.push(OsStr::from_bytes(part)),
        }
        depth += 1;
    }
    match depth > limits.depth {
        true => Err(entry.refused(format!("more than {} directories deep", limits.depth))),
        false => Ok(clean),
    }
}

fn owner(entry: &Entry) -> Result<(Uid, Gid)> {
    // 2^32-1 means "no change" to chown.
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (id(entry.uid), id(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(entry.refused(format!("owner {}:{} is not an id", entry.uid, entry.gid))),
    }
}

fn time(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime.0, i64::from(entry.mtime.1))
}

/// Writes what is not zeros; returns where the file ends now, `end` being where it ended before.
fn write_sparsely(file: &OwnedFd, offset: u64, bytes: &[u8], mut end: u64) -> Result<u64> {
    let mut at = 0;
    while at < bytes.len() {
        let is_hole = |block: &[u8]| block.len() == HOLE && block.iter().all(|byte| *byte == 0);
        let blocks = bytes[at..].chunks(HOLE).take_while(|block| !is_hole(block));
        let mut data = &bytes[at..at + blocks.map(<[u8]>::len).sum::<usize>()];
        let mut place = offset + at as u64;
        at += data.len();
        while !data.is_empty() {
            let position = i64::try_from(place).map_err(|_| Error::refused("bad offset"))?;
            let count = nix::sys::uio::pwrite(file, data, position)
                .call(|| format!("pwrite64({} bytes at {place})", data.len()))?;
            place += count as u64;
            end = end.max(place);
            data = &data[count..];
        }
        let holes = bytes[at..].chunks(HOLE).take_while(|block| is_hole(block)).count();
        at += holes * HOLE;
    }
    Ok(end)
}
