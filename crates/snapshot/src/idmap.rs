//! Id mappings of mounts: one stored tree serves every range of ids, and no file is ever chowned.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use offshoot_sys::mount::{AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};
use offshoot_sys::process::{capget, capset, setfsgid, setfsuid};

use crate::driver::overlay;
use crate::error::{Error, Result};
use crate::store::Store;

/// How an id shows that a map leaves out (`/proc/sys/kernel/overflowuid`, which nobody changes).
const OVERFLOW: u32 = 65534;

/// A run of ids: `count` of them from `inside` on appear as those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first id within the container, which is the one on disk.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How ids on disk appear on a mount.
#[derive(Debug)]
pub struct IdMap {
    userns: OwnedFd,
    root_uid: u32,
    root_gid: u32,
}

impl IdMap {
    /// A mapping of its own.
    pub fn new(uids: &[Range], gids: &[Range]) -> Result<IdMap> {
        let text = |ranges: &[Range]| -> String {
            ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
        };
        let userns = offshoot_sys::userns::mapped(&text(uids), &text(gids))?;
        IdMap::of_userns(userns, root_of(uids)?, root_of(gids)?)
    }

    /// The mapping of a user namespace that exists already; `root_uid` and `root_gid` are the host's ids of its root.
    pub fn of_userns(userns: OwnedFd, root_uid: u32, root_gid: u32) -> Result<IdMap> {
        Ok(IdMap { userns, root_uid, root_gid })
    }

    /// The mapping of a user namespace that exists already, and whose map only the kernel knows: it is read off a file of
    /// root's on a mount with that mapping.
    pub fn of_existing(userns: OwnedFd, store: &Store) -> Result<IdMap> {
        let map = IdMap { userns, root_uid: 0, root_gid: 0 };
        let own = store.root.stat_self()?;
        let seen = overlay::base(store, Some(&map))?.stat_self()?;
        match (own.st_uid, own.st_gid) == (0, 0) && seen.st_uid != OVERFLOW && seen.st_gid != OVERFLOW {
            true => Ok(IdMap { root_uid: seen.st_uid, root_gid: seen.st_gid, ..map }),
            false => Err(Error::invalid(
                "the user namespace maps no id 0, to which most files of an image belong, or the store is not root's",
            )),
        }
    }

    /// The user namespace that holds the map.
    pub(crate) fn userns(&self) -> BorrowedFd<'_> {
        self.userns.as_fd()
    }

    /// Maps the ids of a detached mount that nobody uses yet.
    pub(crate) fn apply(&self, mount: impl AsFd) -> Result<()> {
        let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns: Some(self.userns.as_fd()), ..MountAttr::default() };
        mount_setattr(mount, "", AT_EMPTY_PATH, &attr).map_err(|error| {
            Error::from(error)
                .with_hint("the file system of the store must know id-mapped mounts: ext4, xfs, btrfs, tmpfs, erofs")
        })
    }

    /// Runs `work` with the file system identity of the mapped root, and all of the thread's capabilities.
    ///
    /// overlayfs does its work on the upper layer as whoever created it. On an id-mapped layer the host's root is
    /// nobody, so creating `work/work` would fail and the mount silently become read-only (errno 75 in the kernel's log).
    pub(crate) fn as_mapped_root<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let identity = Identity::take(self.root_uid, self.root_gid)?;
        let result = work();
        identity.give_back()?;
        result
    }
}

/// The identity of this thread before; of the thread alone, as these calls are (man 2 setfsuid, capset).
struct Identity {
    uid: u32,
    gid: u32,
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

impl Identity {
    fn take(uid: u32, gid: u32) -> Result<Identity> {
        let before = capget()?;
        let gid = setfsgid(gid)?;
        let uid = setfsuid(uid)?;
        // Leaving uid 0 took the file system capabilities out of the effective set (man 7 capabilities).
        capset(before.permitted, before.permitted, before.inheritable)?;
        let (effective, permitted, inheritable) = (before.effective, before.permitted, before.inheritable);
        Ok(Identity { uid, gid, effective, permitted, inheritable })
    }

    fn give_back(self) -> Result<()> {
        setfsuid(self.uid)?;
        setfsgid(self.gid)?;
        Ok(capset(self.effective, self.permitted, self.inheritable)?)
    }
}

/// The host's id of the container's root.
fn root_of(ranges: &[Range]) -> Result<u32> {
    let holds_root = |range: &&Range| range.inside == 0 && range.count > 0;
    let root = ranges.iter().find(holds_root).map(|range| range.outside);
    root.ok_or_else(|| Error::invalid("an id mapping must map id 0, to which most files of an image belong"))
}
