//! What the caller asked for beside `config.json`.

use std::path::PathBuf;

/// The arguments of `create` and `run` that decide something about the container.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The container's name.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Cgroups are made by systemd.
    pub systemd_cgroup: bool,
    /// Permission errors of cgroups are passed over.
    pub rootless: bool,
    /// MS_MOVE and chroot in place of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on reach the process, those of `LISTEN_FDS` included.
    pub preserve_fds: u32,
    /// How many of them are `LISTEN_FDS`.
    pub listen_fds: u32,
    /// Names of the `LISTEN_FDS`, as received.
    pub listen_fd_names: Option<String>,
    /// Host directory with the socket `notify.sock` that stands for `$NOTIFY_SOCKET`.
    pub notify_dir: Option<PathBuf>,
    /// Whether the caller returns before the process ends.
    pub detached: bool,
    /// Whether a console socket was given.
    pub console_socket: bool,
    /// Whether the joined network namespace is the caller's own.
    pub joins_own_network: bool,
    /// The map of users of the user namespace that is joined, where the configuration does not send it along: first id inside,
    /// first outside, how many.
    pub joined_uids: Vec<(u32, u32, u32)>,
    /// Where the root filesystem goes that arrives as a detached mount; `root.path` need not be given then.
    pub root_mount: Option<PathBuf>,
    /// Whether that mount is attached over the host's root until it is entered, and not in its place, which root of a
    /// user namespace may not be able to reach.
    pub root_over_host: bool,
    /// Whether the root filesystem, volumes and devices are mounted before the user namespace is made, so that the kernel
    /// locks them for its root (man 7 mount_namespaces, "Restrictions on mount namespaces").
    pub lock_mounts: bool,
    /// Whether the caller brings a mount namespace with nothing in it, to make them in.
    pub has_void: bool,
    /// Whether a new user namespace belongs to the root that it maps, whom the kernel then charges for its inotify
    /// watches, keys and other objects with a limit a user, in place of the caller.
    pub owned_by_mapped_root: bool,
    /// Whether the process is an init, which has no controlling terminal: that is for whoever logs in on the console, and the kernel
    /// lets nobody take it from another session who is root of a user namespace only (man 2 TIOCSCTTY).
    pub is_init: bool,
    /// Whether bind mounts without a mapping of their own get the container's, where their file systems can.
    pub map_volumes: bool,
}

/// The arguments of `exec` that decide something about the process.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// Permission errors of cgroups are passed over.
    pub rootless: bool,
    /// As in [`Request`].
    pub preserve_fds: u32,
    /// As in [`Request`].
    pub listen_fds: u32,
    /// As in [`Request`].
    pub listen_fd_names: Option<String>,
    /// Whether the caller returns before the process ends.
    pub detached: bool,
    /// Whether a console socket was given.
    pub console_socket: bool,
}
