//! Writing a tree as a tar archive in PAX format: numeric owners, xattrs, hard links, holes; the same tree gives the same bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, major, minor};

use crate::archive::extract::{WHITEOUT, wanted};
use crate::archive::sparse::Extent;
use crate::dir::file_type;
use crate::error::{Call, Error, Result};
use crate::overlayfs;
use crate::union::{Node, Union};

const BLOCK: usize = 512;

/// After [`WHITEOUT`]: the directory hides what those below have in it.
const OPAQUE: &[u8] = b".wh..opq";

/// Writes the view as an archive; what a layer deletes of those below it as OCI archives have that.
/// spec: image-spec layer.md#whiteouts
pub(crate) fn pack(tree: &Union, out: impl Write) -> Result<()> {
    let mut packer = Packer { out, is_layer: tree.is_layer(), links: HashMap::new() };
    tree.walk(&mut |node| packer.add(node))?;
    packer.write(&[0; 2 * BLOCK])
}

struct Packer<W> {
    out: W,
    is_layer: bool,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).call(|| format!("write(archive, {} bytes)", bytes.len()))
    }

    fn add(&mut self, node: &Node) -> Result<()> {
        let kind = file_type(&node.stat);
        let mut name = b"./".to_vec();
        name.extend_from_slice(node.path.as_os_str().as_bytes());
        if kind == SFlag::S_IFDIR && !node.path.as_os_str().is_empty() {
            name.push(b'/');
        }
        if self.is_layer && overlayfs::is_whiteout(&node.stat) {
            return self.mark(node, name.len() - node.name.len(), name, node.name.as_bytes());
        }
        let mut record = Record::new(&node.stat, &name);
        if node.stat.st_nlink > 1 && kind != SFlag::S_IFDIR {
            let id = (node.stat.st_dev, node.stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                record.link(first);
                return self.header(record, b'1');
            }
            self.links.insert(id, name.clone());
        }
        record.xattrs(node)?;
        match kind {
            SFlag::S_IFREG => self.add_file(node, record),
            SFlag::S_IFDIR => {
                self.header(record, b'5')?;
                match self.is_layer && overlayfs::is_opaque(node.dir.sub(node.name)?)? {
                    true => self.mark(node, name.len(), name, OPAQUE),
                    false => Ok(()),
                }
            }
            SFlag::S_IFLNK => {
                let target =
                    nix::fcntl::readlinkat(node.dir, node.name).call(|| format!("readlinkat({:?})", node.path))?;
                record.link(target.as_bytes());
                self.header(record, b'2')
            }
            SFlag::S_IFIFO => self.header(record, b'6'),
            SFlag::S_IFCHR | SFlag::S_IFBLK => {
                let (major, minor) = (major(node.stat.st_rdev) as u32, minor(node.stat.st_rdev) as u32);
                let set = record.header.set_device_major(major).and_then(|()| record.header.set_device_minor(minor));
                set.call(|| "set device number")?;
                self.header(record, if kind == SFlag::S_IFCHR { b'3' } else { b'4' })
            }
            // A socket means nothing without its process, and tar has no entry for one.
            _ => Ok(()),
        }
    }

    /// An empty file whose name says what is deleted, in the directory whose name is the first `length` bytes of `name`.
    fn mark(&mut self, node: &Node, length: usize, mut name: Vec<u8>, what: &[u8]) -> Result<()> {
        name.truncate(length);
        name.extend_from_slice(WHITEOUT);
        name.extend_from_slice(what);
        let mut record = Record::new(&node.stat, &name);
        record.header.set_mode(0);
        self.header(record, b'0')
    }

    fn header(&mut self, record: Record, kind: u8) -> Result<()> {
        let (pax, header) = record.finish(kind);
        if !pax.is_empty() {
            self.write(extension_header(pax.len() as u64).as_bytes())?;
            self.write(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.write(header.as_bytes())
    }

    fn pad(&mut self, length: u64) -> Result<()> {
        let padding = (length.wrapping_neg() % BLOCK as u64) as usize;
        self.write(&[0; BLOCK][..padding])
    }

    fn add_file(&mut self, node: &Node, mut record: Record) -> Result<()> {
        let fd: OwnedFd = node.dir.open_at(node.name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK, 0)?;
        let mut file = File::from(fd);
        let size = node.stat.st_size.cast_unsigned();
        let extents = match node.stat.st_blocks.cast_unsigned() * 512 < size {
            true => extents(&mut file, size)?,
            false => vec![Extent { offset: 0, length: size }],
        };
        let mut map = Vec::new();
        if extents != [Extent { offset: 0, length: size }] && size > 0 {
            map = sparse_map(&extents);
            record.pax("GNU.sparse.major", b"1");
            record.pax("GNU.sparse.minor", b"0");
            record.pax("GNU.sparse.name", &record.name.clone());
            record.pax("GNU.sparse.realsize", size.to_string().as_bytes());
        }
        let stored = map.len() as u64 + extents.iter().map(|extent| extent.length).sum::<u64>();
        record.size(stored);
        self.header(record, b'0')?;
        self.write(&map)?;
        for extent in &extents {
            let call = || format!("read({:?})", node.path);
            file.seek(SeekFrom::Start(extent.offset)).call(call)?;
            // The header has promised a length, so a file that shrinks meanwhile is filled up with zeros.
            let mut data = (&mut file).chain(io::repeat(0)).take(extent.length);
            io::copy(&mut data, &mut self.out).call(|| format!("copy {:?} to the archive", node.path))?;
        }
        self.pad(stored)
    }
}

/// Where a file has data, asked from the file system.
pub(crate) fn extents(file: &mut File, size: u64) -> Result<Vec<Extent>> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match lseek(&*file, at.cast_signed(), Whence::SeekData) {
            Err(Errno::ENXIO) => break,
            result => result.call(|| format!("lseek({at}, SEEK_DATA)"))?.cast_unsigned(),
        };
        let end = lseek(&*file, start.cast_signed(), Whence::SeekHole).call(|| format!("lseek({start}, SEEK_HOLE)"))?;
        let end = end.cast_unsigned().min(size);
        if end <= start {
            break;
        }
        found.push(Extent { offset: start, length: end - start });
        at = end;
    }
    Ok(found)
}

/// The map of PAX sparse format 1.0, padded to a block.
fn sparse_map(extents: &[Extent]) -> Vec<u8> {
    let mut text = format!("{}\n", extents.len());
    for extent in extents {
        text.push_str(&format!("{}\n{}\n", extent.offset, extent.length));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// A header with what does not fit in it.
struct Record {
    name: Vec<u8>,
    header: tar::Header,
    pax: Vec<u8>,
}

impl Record {
    fn new(stat: &FileStat, name: &[u8]) -> Record {
        let mut record = Record { name: name.to_owned(), header: tar::Header::new_ustar(), pax: Vec::new() };
        record.header.set_mode(stat.st_mode & 0o7777);
        record.size(0);
        let fits = |id: u32| u64::from(id) < 1 << 21;
        for (key, id) in [("uid", stat.st_uid), ("gid", stat.st_gid)] {
            if !fits(id) {
                record.pax(key, id.to_string().as_bytes());
            }
        }
        record.header.set_uid(if fits(stat.st_uid) { stat.st_uid.into() } else { 0 });
        record.header.set_gid(if fits(stat.st_gid) { stat.st_gid.into() } else { 0 });
        let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
        let plain = (0..1 << 33).contains(&seconds);
        if !plain || nanos != 0 {
            record.pax("mtime", decimal_time(seconds, nanos).as_bytes());
        }
        record.header.set_mtime(if plain { seconds.cast_unsigned() } else { 0 });
        record.field(0, 100, "path", name);
        record
    }

    /// Writes a name into the header, and whole into an extension where it does not fit.
    fn field(&mut self, offset: usize, room: usize, key: &str, value: &[u8]) {
        let kept = &value[..value.len().min(room)];
        self.header.as_mut_bytes()[offset..offset + kept.len()].copy_from_slice(kept);
        if value.len() > room {
            self.pax(key, value);
        }
    }

    fn link(&mut self, target: &[u8]) {
        self.field(157, 100, "linkpath", target);
    }

    fn size(&mut self, size: u64) {
        let fits = size < 1 << 33;
        if !fits {
            self.pax("size", size.to_string().as_bytes());
        }
        self.header.set_size(if fits { size } else { 0 });
    }

    fn xattrs(&mut self, node: &Node) -> Result<()> {
        let fd = node.dir.open_at(node.name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0)?;
        let mut names = offshoot_sys::fsattr::list(&fd)?;
        names.sort();
        for name in names.iter().filter(|name| wanted(name.as_bytes())) {
            if let Some(value) = offshoot_sys::fsattr::get(&fd, name)? {
                let key = name
                    .to_str()
                    .ok_or_else(|| Error::invalid(format!("{:?}: attribute {name:?} is not UTF-8", node.path)))?;
                self.pax(&format!("SCHILY.xattr.{key}"), &value);
            }
        }
        Ok(())
    }

    /// A record `<length> <key>=<value>\n`, whose length counts its own digits.
    fn pax(&mut self, key: &str, value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length = length.to_string().len() + rest;
        }
        self.pax.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.pax.extend_from_slice(value);
        self.pax.push(b'\n');
    }

    fn finish(mut self, kind: u8) -> (Vec<u8>, tar::Header) {
        self.header.as_mut_bytes()[156] = kind;
        self.header.set_cksum();
        (self.pax, self.header)
    }
}

/// A time before 1970 counts its fraction downwards: -1.5 s is (-2, 500000000) in a stat.
fn decimal_time(seconds: i64, nanos: i64) -> String {
    match seconds < 0 && nanos > 0 {
        true => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
        false => format!("{seconds}.{nanos:09}"),
    }
}

fn extension_header(length: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..14].copy_from_slice(b"././@PaxHeader");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(length);
    header.as_mut_bytes()[156] = b'x';
    header.set_cksum();
    header
}
