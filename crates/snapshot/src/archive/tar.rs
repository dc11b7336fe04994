//! Tar framing: blocks in, entries out.
//!
//! Field decoding is the tar crate's. The framing is ours, as its iterator (0.4.46) reads extension headers of any size into
//! memory, splits PAX records at newlines (so a binary `security.capability` is lost), and takes an archive that
//! ends between two entries for a complete one. Sizes of header-only entries are ignored as Go's reader does, which wrote the archives.

use std::io::Read;

use crate::archive::sparse::{Extent, numbers, pax_map};
use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// The most that a PAX header or long name may hold: xattrs are at most 64 KiB each (XATTR_SIZE_MAX).
const EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// One entry of an archive, with its extensions applied.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// The file's length, holes included.
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes belong, of a sparse file.
    pub(crate) extents: Option<Vec<Extent>>,
}

impl Entry {
    /// The name for messages.
    pub(crate) fn shown(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.path))
    }

    pub(crate) fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::refused(format!("entry {}: {why}", self.shown()))
    }
}

/// An archive being read.
pub(crate) struct Tar<R> {
    source: R,
    /// Bytes of the stream consumed, for messages.
    at: u64,
    /// Stored bytes of the current entry not read yet, and the padding after them.
    left: u64,
    padding: u64,
    last: String,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    fn pax(&self, key: &[u8]) -> Option<&[u8]> {
        self.pax.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        self.pax(key.as_bytes())
            .map(|value| {
                numbers(value)
                    .and_then(|all| match all[..] {
                        [one] => Some(one),
                        _ => None,
                    })
                    .ok_or_else(|| Error::refused(format!("PAX {key} is not a number")))
            })
            .transpose()
    }
}

impl<R: Read> Tar<R> {
    pub(crate) fn new(source: R) -> Tar<R> {
        Tar { source, at: 0, left: 0, padding: 0, last: "the beginning".to_owned() }
    }

    /// How many bytes of the archive were read: right after [`Self::next`], where the entry's stored bytes begin.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.source.read_exact(buffer).map_err(|error| self.broken(&error))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// What a failed read means: the archive is cut off, or its compressed form is damaged.
    fn broken(&self, error: &std::io::Error) -> Error {
        let place = format!("after {}, at byte {}", self.last, self.at);
        match (error.kind(), error.raw_os_error()) {
            (_, Some(_)) => Error::io(format!("read(archive) {place}"), error),
            (std::io::ErrorKind::UnexpectedEof, _) => Error::refused(format!("the archive is truncated {place}")),
            _ => Error::refused(format!("the archive is corrupt {place}: {error}")),
        }
    }

    /// Reads stored bytes of the current entry; 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        self.fill(&mut buffer[..want])?;
        self.left -= want as u64;
        Ok(want)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = std::io::copy(&mut (&mut self.source).take(count), &mut std::io::sink());
        let skipped = skipped.map_err(|error| self.broken(&error))?;
        self.at += skipped;
        match skipped == count {
            true => Ok(()),
            false => Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION {
            return Err(Error::refused(format!("an extension header after {} has {size} bytes", self.last)));
        }
        self.begin_data(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_data(&mut bytes)?;
        self.skip(self.padding)?;
        self.begin_data(0);
        Ok(bytes)
    }

    /// The next entry; what was not read of the one before is skipped. `None` at the end mark.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left + self.padding)?;
        self.begin_data(0);
        let mut extensions = Extensions::default();
        // Extension headers may follow each other, but there are only four sorts of them.
        for _ in 0..8 {
            let mut header = tar::Header::new_old();
            self.fill(header.as_mut_bytes())?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                self.drain()?;
                return Ok(None);
            }
            self.verify(&header)?;
            let size = || {
                header.entry_size().map_err(|_| Error::refused(format!("bad size in the header after {}", self.last)))
            };
            match header.as_bytes()[156] {
                b'L' => extensions.path = Some(until_nul(self.extension(size()?)?)),
                b'K' => extensions.link = Some(until_nul(self.extension(size()?)?)),
                b'x' => extensions.pax = parse_pax(&self.extension(size()?)?)?,
                b'g' => drop(self.extension(size()?)?),
                // A volume label.
                b'V' => self.skip(size()?.next_multiple_of(BLOCK as u64))?,
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Err(Error::refused(format!("too many extension headers after {}", self.last)))
    }

    fn verify(&self, header: &tar::Header) -> Result<()> {
        let bytes = header.as_bytes();
        let rest = bytes[..148].iter().chain(&bytes[156..]);
        let sum = rest.fold(8 * u32::from(b' '), |sum, byte| sum + u32::from(*byte));
        match header.cksum() {
            Ok(promised) if promised == sum => Ok(()),
            _ => Err(Error::refused(format!(
                "no tar header at byte {}, after {}: it is not a tar archive, or corrupt",
                self.at - BLOCK as u64,
                self.last
            ))),
        }
    }

    fn entry(&mut self, header: &tar::Header, extensions: Extensions) -> Result<Entry> {
        let path = match (extensions.pax(b"GNU.sparse.name"), extensions.pax(b"path"), &extensions.path) {
            (Some(path), _, _) | (_, Some(path), _) => path.to_owned(),
            (_, _, Some(path)) => path.clone(),
            _ => header.path_bytes().into_owned(),
        };
        self.last = format!("entry {:?}", String::from_utf8_lossy(&path));
        let bad = |field: &str| Error::refused(format!("entry {:?}: bad {field}", String::from_utf8_lossy(&path)));
        let kind = match header.as_bytes()[156] {
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Dir,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            other => return Err(bad(&format!("type {:?}", char::from(other)))),
        };
        let link = match (extensions.pax(b"linkpath"), &extensions.link) {
            (Some(link), _) => link.to_owned(),
            (_, Some(link)) => link.clone(),
            _ => header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
        };
        let number = |key, field: std::io::Result<u64>| match extensions.number(key)? {
            Some(value) => Ok(value),
            None => field.map_err(|_| bad(key)),
        };
        let mut entry = Entry {
            kind,
            link,
            mode: header.mode().map_err(|_| bad("mode"))? & 0o7777,
            uid: number("uid", header.uid())?,
            gid: number("gid", header.gid())?,
            size: 0,
            mtime: mtime(&extensions, header),
            device: (0, 0),
            xattrs: xattrs(&extensions),
            extents: None,
            path: path.clone(),
        };
        match kind {
            EntryKind::Char | EntryKind::Block => {
                let part = |part: std::io::Result<Option<u32>>| part.ok().flatten().ok_or_else(|| bad("device number"));
                entry.device = (part(header.device_major())?, part(header.device_minor())?);
            }
            EntryKind::File => {
                let stored = number("size", header.entry_size())?;
                if stored > i64::MAX as u64 {
                    return Err(bad("size"));
                }
                self.begin_data(stored);
                self.file_layout(&mut entry, header, &extensions, stored)?;
            }
            _ => {}
        }
        Ok(entry)
    }

    /// The length of a file, and the extents of a sparse one in any of the four forms that GNU tar has written.
    fn file_layout(
        &mut self,
        entry: &mut Entry,
        header: &tar::Header,
        extensions: &Extensions,
        stored: u64,
    ) -> Result<()> {
        entry.size = stored;
        let map = if header.as_bytes()[156] == b'S' {
            Some(self.old_sparse(entry, header)?)
        } else if extensions.pax(b"GNU.sparse.major") == Some(b"1") {
            Some(self.sparse_in_data(entry)?)
        } else {
            pax_map(&extensions.pax).map_err(|why| entry.refused(why))?
        };
        let Some(map) = map else { return Ok(()) };
        entry.size = match header.as_bytes()[156] {
            b'S' => header.as_gnu().and_then(|gnu| gnu.real_size().ok()),
            _ => extensions.number("GNU.sparse.realsize")?.or(extensions.number("GNU.sparse.size")?),
        }
        .ok_or_else(|| entry.refused("sparse without a size"))?;
        let mut end = 0;
        let mut data = 0u64;
        for extent in &map {
            if extent.offset < end || extent.end().is_none_or(|end| end > entry.size) {
                return Err(entry.refused("its sparse map overlaps or leaves the file"));
            }
            end = extent.offset + extent.length;
            data += extent.length;
        }
        if data != self.left {
            return Err(entry.refused(format!("its sparse map has {data} bytes, the archive {}", self.left)));
        }
        entry.extents = Some(map);
        Ok(())
    }

    fn old_sparse(&mut self, entry: &Entry, header: &tar::Header) -> Result<Vec<Extent>> {
        let gnu = header.as_gnu().ok_or_else(|| entry.refused("sparse, but not in GNU format"))?;
        let mut map = Vec::new();
        let mut add = |part: &tar::GnuSparseHeader| {
            if part.is_empty() {
                return Ok(());
            }
            match (part.offset(), part.length()) {
                (Ok(offset), Ok(length)) => map.push(Extent { offset, length }),
                _ => return Err(entry.refused("bad sparse map")),
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            blocks += 1;
            if blocks > EXTENSION / BLOCK as u64 {
                return Err(entry.refused("its sparse map is too long"));
            }
            let mut block = tar::GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes())?;
            block.sparse().iter().try_for_each(&mut add)?;
            more = block.is_extended();
        }
        Ok(map)
    }

    /// PAX sparse format 1.0: the map stands in front of the data, decimal numbers by line, padded to a block.
    fn sparse_in_data(&mut self, entry: &Entry) -> Result<Vec<Extent>> {
        let mut text = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            if self.left < BLOCK as u64 || text.len() as u64 >= EXTENSION {
                return Err(entry.refused("its sparse map is cut off or too long"));
            }
            self.read_data(&mut block)?;
            text.extend_from_slice(&block);
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let Some(values) = numbers(&text[..end]) else {
                return Err(entry.refused("bad sparse map"));
            };
            let Some((count, pairs)) = values.split_first() else { continue };
            if pairs.len() as u64 >= count.saturating_mul(2) {
                return Ok(pairs.chunks_exact(2).map(|p| Extent { offset: p[0], length: p[1] }).collect());
            }
        }
    }

    /// Reads to the end of the stream, so that its digest and checksums cover all of it.
    fn drain(&mut self) -> Result<()> {
        std::io::copy(&mut self.source, &mut std::io::sink()).map_err(|error| self.broken(&error))?;
        Ok(())
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Splits `<length> <key>=<value>\n` records by their lengths, so that values may hold anything.
fn parse_pax(mut bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let bad = || Error::refused("malformed PAX header");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        if bytes[0] == 0 {
            break;
        }
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = numbers(&bytes[..space]).and_then(|all| all.first().copied()).ok_or_else(bad)?;
        let length = usize::try_from(length).map_err(|_| bad())?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        records.push((record[..equals].to_owned(), record[equals + 1..].to_owned()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// PAX has fractions of a second, `1700000000.25`; the header whole ones.
fn mtime(extensions: &Extensions, header: &tar::Header) -> (i64, u32) {
    let plain = (header.mtime().map_or(0, u64::cast_signed), 0);
    let Some(text) = extensions.pax(b"mtime").and_then(|value| std::str::from_utf8(value).ok()) else { return plain };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = whole.parse::<i64>() else { return plain };
    let digits: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    match digits.parse::<u32>() {
        // A negative time counts its fraction downwards.
        Ok(nanos) if nanos > 0 && whole.starts_with('-') => (seconds - 1, 1_000_000_000 - nanos),
        Ok(nanos) => (seconds, nanos),
        Err(_) => (seconds, 0),
    }
}

fn xattrs(extensions: &Extensions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named = |(key, value): &(Vec<u8>, Vec<u8>)| {
        key.strip_prefix(b"SCHILY.xattr.").map(|name| (name.to_owned(), value.clone()))
    };
    extensions.pax.iter().filter_map(named).collect()
}
