//! overlayfs before Linux 6.13, which takes its layers by path only, and only from attached mounts.
//!
//! A thread with a mount namespace of its own attaches the id-mapped copy of the store there, mounts the overlay, takes a
//! detached copy of that and ends; the namespace and its mounts end with it, and the caller's never change.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};
use offshoot_sys::mount::{OPEN_TREE_CLONE, mount_legacy, move_mount_to, open_tree};

use crate::driver::overlay::{Stack, base, ensure_writable};
use crate::error::{Call, Error, Kind, Result};
use crate::idmap::IdMap;
use crate::store::{Store, place};

/// How long a thread may take to end, and between two looks; the kernel waits for all processors meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(200);

/// The options of mount(2) fill at most a page, their end included.
const PAGE: usize = 4095;

/// Mounts the stack by paths.
pub(crate) fn mount(stack: &Stack, store: &Store, idmap: Option<&IdMap>) -> Result<OwnedFd> {
    let options = options(stack)?;
    in_thread(|| in_own_namespace(store, idmap, &options))
}

/// Does something in a thread of its own, which may enter namespaces, and returns when the thread is gone for good.
///
/// A thread is joined before its namespaces are taken down, and counts until then: a caller who wants to fork, as a runtime does,
/// must have a single one.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let mut id = None;
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            id = Some(gettid());
            work()
        });
        thread.join().unwrap_or_else(|_| Err(Error::new(Kind::System, "the mounting thread panicked")))
    });
    let task = format!("/proc/self/task/{}", id.map_or(0, Pid::as_raw));
    let end = Instant::now() + PATIENCE;
    while Path::new(&task).exists() && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
    result
}

/// Names of layers and clones hold neither colons nor commas nor backslashes, so nothing needs escaping.
fn options(stack: &Stack) -> Result<String> {
    let lower: Vec<_> = stack.lower.iter().map(|path| path.display().to_string()).collect();
    let mut text = format!("lowerdir={},upperdir={}", lower.join(":"), stack.upper.display());
    let _ = write!(text, ",workdir={}", stack.work.display());
    for (key, value) in stack.options() {
        let _ = match value {
            Some(value) => write!(text, ",{key}={value}"),
            None => write!(text, ",{key}"),
        };
    }
    match text.len() > PAGE {
        true => Err(Error::new(
            Kind::Unsupported,
            format!("{} layers are too many for this kernel's overlayfs", lower.len()),
        )
        .with_hint("Linux 6.13 takes up to 500; or export the image and import it again as one layer")),
        false => Ok(text),
    }
}

fn in_own_namespace(store: &Store, idmap: Option<&IdMap>, options: &str) -> Result<OwnedFd> {
    // Where the store is mounted, as descriptors from before lead into the old namespace.
    let path =
        std::fs::read_link(store.root.magic_path()).call(|| format!("readlink({:?})", store.root.magic_path()))?;
    let mapped = base(store, idmap)?;
    // Unsharing mounts unshares the working directory too, so this thread alone moves (man 2 unshare).
    offshoot_sys::process::unshare(libc::CLONE_NEWNS)?;
    mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    if idmap.is_some() {
        move_mount_to(mapped, None, &path)?;
    }
    offshoot_sys::process::chdir(&path)?;
    let mount = || Ok(mount_legacy(Some(Path::new("overlay")), place::TMP, Some("overlay"), 0, Some(options))?);
    match idmap {
        Some(idmap) => idmap.as_mapped_root(mount)?,
        None => mount()?,
    }
    let mount = open_tree(None, place::TMP, OPEN_TREE_CLONE)?;
    ensure_writable(&mount)?;
    Ok(mount)
}
