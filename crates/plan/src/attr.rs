//! Kernel constants that plans carry: namespace, mount and propagation flags.

/// `MOUNT_ATTR_RDONLY`, man 2 mount_setattr.
pub const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the field that holds relatime (0), noatime or strictatime.
pub const ATIME: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`.
pub const NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const NOSYMFOLLOW: u64 = 0x20_0000;

/// A change of mount attributes: bits to set, bits to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear; the whole ATIME field when a kind of atime is asked for.
    pub clear: u64,
}

impl Attributes {
    /// Whether nothing was asked for.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    /// Asks for one bit, the last word winning as in mount(8).
    pub fn put(&mut self, bit: u64, on: bool) {
        if on {
            self.set |= bit;
            self.clear &= !bit;
        } else {
            self.set &= !bit;
            self.clear |= bit;
        }
    }

    /// Takes back the wish for a kind of atime, if there is one.
    pub fn forget_atime(&mut self, kind: u64) {
        if self.clear & ATIME != 0 && self.set & ATIME == kind {
            self.set &= !ATIME;
            self.clear &= !ATIME;
        }
    }

    /// Asks for a kind of atime: 0 is relatime.
    pub fn atime(&mut self, kind: u64) {
        self.set = self.set & !ATIME | kind;
        self.clear |= ATIME;
    }
}
