//! Archives as hostile input: decompression, tar framing and extraction with limits.

pub(crate) mod blobs;
pub(crate) mod compress;
pub(crate) mod extract;
pub(crate) mod pack;
pub(crate) mod sparse;
pub(crate) mod stream;
pub(crate) mod tar;

/// What an archive may at most hold; beyond it, it is refused as a bomb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of file contents, all layers together.
    pub bytes: u64,
    /// Files, directories, links and devices, per layer.
    pub entries: u64,
    /// Device nodes, per layer.
    pub devices: u64,
    /// Directory levels of one name.
    pub depth: usize,
}

impl Default for Limits {
    /// 64 GiB in 4 million entries: more than any distribution, less than a disk.
    fn default() -> Limits {
        Limits { bytes: 64 << 30, entries: 4_000_000, devices: 1024, depth: 256 }
    }
}
