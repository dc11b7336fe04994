//! Copying a view into a real directory: the fallback clone, and the template of every driver that needs whole trees.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, futimens, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use crate::archive::pack::extents;
use crate::dir::{Dir, file_type};
use crate::error::{Call, Result};
use crate::union::{Node, Union};

/// Copies everything of the view into `to`, an empty directory. Blocks are shared where the file system can. A
/// layer is copied with what makes it one.
pub(crate) fn copy_tree(from: &Union, to: &Dir) -> Result<()> {
    let mut copy = Copy { to, layer: from.is_layer(), reflink: true, links: HashMap::new(), times: Vec::new() };
    from.walk(&mut |node| copy.add(node))?;
    while let Some((path, time)) = copy.times.pop() {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        futimens(to.sub(path)?, &time, &time).call(|| format!("futimens({path:?})"))?;
    }
    Ok(())
}

struct Copy<'a> {
    to: &'a Dir,
    layer: bool,
    /// Whether sharing blocks has worked until now.
    reflink: bool,
    links: HashMap<(u64, u64), PathBuf>,
    times: Vec<(PathBuf, TimeSpec)>,
}

impl Copy<'_> {
    fn add(&mut self, node: &Node) -> Result<()> {
        let kind = file_type(&node.stat);
        let time = TimeSpec::new(node.stat.st_mtime, node.stat.st_mtime_nsec);
        let (parent, name) = match (node.path.parent(), node.path.file_name()) {
            (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => (self.to.sub(parent)?, name),
            (_, Some(name)) => (self.to.try_clone()?, name),
            _ => (self.to.try_clone()?, OsStr::new(".")),
        };
        if node.stat.st_nlink > 1 && kind != SFlag::S_IFDIR {
            let id = (node.stat.st_dev, node.stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                return linkat(self.to, first, &parent, name, AtFlags::empty())
                    .call(|| format!("linkat({first:?}, {:?})", node.path));
            }
            self.links.insert(id, node.path.to_owned());
        }
        let call = |what: &str| format!("{what}({:?})", node.path);
        match kind {
            SFlag::S_IFDIR => {
                if name != "." {
                    parent.mkdir(name, 0o700)?;
                }
                self.times.push((node.path.to_owned(), time));
            }
            SFlag::S_IFREG => self.file(node, &parent, name)?,
            SFlag::S_IFLNK => {
                let target = nix::fcntl::readlinkat(node.dir, node.name).call(|| call("readlinkat"))?;
                symlinkat(target.as_os_str(), &parent, name).call(|| call("symlinkat"))?;
            }
            // A socket means nothing without its process.
            SFlag::S_IFSOCK => return Ok(()),
            _ => mknodat(&parent, name, kind, Mode::empty(), node.stat.st_rdev).call(|| call("mknodat"))?,
        }
        self.attributes(node, &parent, name)?;
        if kind != SFlag::S_IFDIR {
            utimensat(&parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).call(|| call("utimensat"))?;
        }
        Ok(())
    }

    fn file(&mut self, node: &Node, parent: &Dir, name: &OsStr) -> Result<()> {
        let from: OwnedFd = node.dir.open_at(node.name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK, 0)?;
        let to = parent.open_at(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
        let size = node.stat.st_size.cast_unsigned();
        if size == 0 {
            return Ok(());
        }
        if self.reflink {
            match offshoot_sys::fsattr::ficlone(&to, &from) {
                Ok(()) => return Ok(()),
                Err(_) => self.reflink = false,
            }
        }
        copy_data(from, to, &node.stat)
    }

    fn attributes(&self, node: &Node, parent: &Dir, name: &OsStr) -> Result<()> {
        let stat = &node.stat;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .call(|| format!("fchownat({:?}, {uid}, {gid})", node.path))?;
        let to = parent.open_at(name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0)?;
        if file_type(stat) != SFlag::S_IFLNK {
            offshoot_sys::path::fchmod(&to, stat.st_mode & 0o7777)?;
        }
        let from = node.dir.open_at(node.name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0)?;
        for attribute in offshoot_sys::fsattr::list(&from)? {
            let of_layer =
                self.layer && crate::overlayfs::OPAQUE.iter().any(|one| attribute.as_bytes() == one.as_bytes());
            if !of_layer && !crate::archive::extract::wanted(attribute.as_bytes()) {
                continue;
            }
            if let Some(value) = offshoot_sys::fsattr::get(&from, &attribute)? {
                offshoot_sys::fsattr::set(&to, &attribute, &value)?;
            }
        }
        Ok(())
    }
}

/// Copies the data of a file, leaving its holes, inside the kernel where that can.
fn copy_data(from: OwnedFd, to: OwnedFd, stat: &FileStat) -> Result<()> {
    let size = stat.st_size.cast_unsigned();
    let mut from = File::from(from);
    for extent in extents(&mut from, size)? {
        let mut at = extent.offset.cast_signed();
        let end = (extent.offset + extent.length).cast_signed();
        while at < end {
            let (mut source, mut target) = (at, at);
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            let copied = match nix::fcntl::copy_file_range(&from, Some(&mut source), &to, Some(&mut target), want) {
                // Between file systems of different types (man 2 copy_file_range, VERSIONS).
                Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP) => copy_by_buffer(&from, &to, at, want)?,
                result => result.call(|| format!("copy_file_range({want} bytes at {at})"))?,
            };
            if copied == 0 {
                break;
            }
            at += copied as i64;
        }
    }
    nix::unistd::ftruncate(&to, stat.st_size).call(|| format!("ftruncate({size})"))
}

fn copy_by_buffer(from: &File, to: &OwnedFd, at: i64, want: usize) -> Result<usize> {
    let mut buffer = vec![0; want.min(1 << 20)];
    let count = nix::sys::uio::pread(from, &mut buffer, at).call(|| format!("pread64({want} bytes at {at})"))?;
    let mut done = 0;
    while done < count {
        let part = &buffer[done..count];
        done += nix::sys::uio::pwrite(to, part, at + done as i64).call(|| format!("pwrite64({} bytes)", part.len()))?;
    }
    Ok(count)
}
