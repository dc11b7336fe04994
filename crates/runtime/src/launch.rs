//! What `create`, `run` and `exec` ask for beside the bundle.

use crate::connect::Connections;
use crate::image::FromImage;
use crate::wanted::Wanted;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Its name.
    pub id: String,
    /// Its bundle; empty for the working directory.
    pub bundle: PathBuf,
    /// An image, in place of a bundle.
    pub image: Option<FromImage>,
    /// What the caller gets of its process.
    pub connections: Connections,
    /// Where images and clones are, for a bundle that names an image (see [`crate::rootfs`]); the default store where not
    /// given.
    pub store: Option<PathBuf>,
    /// Detached, return when the process says that it is ready (man 3 sd_notify; systemd: when it has booted), or fail if
    /// it has not after this time.
    pub ready: Option<Duration>,
    /// Change the root by moving a mount: on a ramdisk pivot_root(2) cannot work.
    pub no_pivot: bool,
    /// Leave the process in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Return when the process runs. `create` always does.
    pub detached: bool,
    /// Keep the container when its process has ended.
    pub keep: bool,
    /// Become the parent of the container's orphans.
    pub subreaper: bool,
}

/// A further process in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Further {
    /// The container's name.
    pub id: String,
    /// The process.
    pub wanted: Wanted,
    /// What the caller gets of it.
    pub connections: Connections,
    /// Where below the container's cgroup it goes; see [`crate::wanted::sub_cgroups`].
    pub cgroups: BTreeMap<String, String>,
    /// Also in a paused container, where it will not run until that is resumed.
    pub ignore_paused: bool,
    /// Return when the process runs.
    pub detached: bool,
    /// Its standard streams, where it has no terminal of its own.
    pub streams: Streams,
}

/// What a further process without a terminal of its own has for standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// The caller's.
    #[default]
    Caller,
    /// The caller's, but for terminals, in whose place there are pipes that the caller copies: whoever has a terminal open can
    /// read what is typed there from then on, for the host's shell as well. Not for detached ones, which nobody copies for.
    NoTerminal,
    /// Nothing to read, and nobody who reads.
    None,
}
