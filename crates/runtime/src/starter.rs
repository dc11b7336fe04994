//! `spec`

use offshoot_spec::default::{For, config};
use std::path::Path;

/// The text of a `config.json` to start from, for this machine; `rootless` for a caller who is not root.
pub fn default_config(rootless: bool) -> String {
    let whose = match rootless {
        false => For::Root,
        true => For::User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() },
    };
    // Only the root of a cgroup2 file system has this file in this place: not so on a host with cgroup v1.
    config(whose, Path::new("/sys/fs/cgroup/cgroup.controllers").exists())
}
