//! ext4 on a block device of its own, for the drivers whose clones are whole file systems.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use offshoot_sys::mount::{FsContext, MOUNT_ATTR_RDONLY};

use crate::dir::Dir;
use crate::driver::template;
use crate::error::{Error, Kind, Result};
use crate::idmap::IdMap;
use crate::record;
use crate::store::Store;
use crate::tool::Tool;

pub(crate) const MKFS: Tool = Tool { name: "mkfs.ext4", package: "e2fsprogs" };

/// Room that a container gets where no size is asked for, beside twice what its image holds.
const ROOM: u64 = 8 << 30;
const MEBIBYTE: u64 = 1 << 20;

/// How large the file system for an image is: as asked for, in whole mebibytes.
pub(crate) fn size_for(image: &record::Image, size: Option<u64>) -> Result<u64> {
    let least = image.bytes + image.bytes / 4 + 32 * MEBIBYTE;
    let size = size.unwrap_or(2 * image.bytes + ROOM).next_multiple_of(MEBIBYTE);
    match size < least {
        true => Err(Error::invalid(format!("size {size} is too small: the image alone needs {least} bytes"))),
        false => Ok(size),
    }
}

/// Makes a file system on a device or file and fills it with the image.
pub(crate) fn make(
    store: &Store,
    image: &record::Image,
    path: &Path,
    mount: impl FnOnce() -> Result<OwnedFd>,
) -> Result<()> {
    // Inode tables are written (as holes) now, as the kernel would otherwise write those of every clone in the
    // background. No reserve for root: the container's root is one like any other.
    let options = "lazy_itable_init=0,lazy_journal_init=1";
    // Blocks of a page whatever the size: smaller ones cannot be mounted where the device's sectors are that large, as a loop
    // device's are over a file system that does direct I/O in pages.
    MKFS.run(&["-q", "-F", "-b", "4096", "-m", "0", "-E", options, "-L", "offshoot", &path.display().to_string()])?;
    // fsmount gives an O_PATH descriptor, which syncfs refuses.
    let root = Dir::from_fd(mount()?, "template".into()).sub(".")?;
    root.remove_tree("lost+found")?;
    template::flatten(store, image, &root).map_err(|error| match error.kind() {
        Kind::NoSpace => {
            error.with_hint("give the clones a larger size: the image has more files than this one has room for")
        }
        _ => error,
    })?;
    Ok(offshoot_sys::fsattr::syncfs(&root)?)
}

/// A detached mount of the file system on a device.
pub(crate) fn mount(device: &Path, idmap: Option<&IdMap>, discard: bool) -> Result<OwnedFd> {
    let mount = context(device, discard)?.mount(0)?;
    if let Some(idmap) = idmap {
        idmap.apply(&mount)?;
    }
    Ok(mount)
}

/// The same for reading only. The file system itself is not read-only, as it may be mounted elsewhere, or have a journal to replay.
pub(crate) fn view(device: &Path) -> Result<OwnedFd> {
    Ok(context(device, false)?.mount(MOUNT_ATTR_RDONLY)?)
}

fn context(device: &Path, discard: bool) -> Result<FsContext> {
    let context = FsContext::open("ext4")?;
    context.string("source", device)?;
    if discard {
        context.flag("discard")?;
    }
    context.create().map_err(|error| match error.errno() {
        Errno::EBUSY => Error::from(error).with_hint("something else holds the device"),
        _ => Error::from(error),
    })?;
    Ok(context)
}
