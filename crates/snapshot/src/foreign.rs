//! Root filesystems that somebody else has prepared: a directory, or an overlay that an engine has mounted. They get the
//! ids of a container, and not a file is chowned.
//!
//! A directory is shown through an id-mapped copy of its mount. Overlayfs itself cannot be id-mapped; but it takes id-mapped
//! layers, so an overlay is mounted anew from the layers of the first. What the container writes goes into the engine's own
//! upper layer, with the ids of the container, where `docker diff`, `commit` and the next start find it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use offshoot_sys::mount::{
    AT_EMPTY_PATH, AT_RECURSIVE, FsContext, MOUNT_ATTR_IDMAP, MountAttr, OPEN_TREE_CLONE, fstatfs, mount_legacy,
    mount_setattr, move_mount_to, open_tree, statx,
};
use offshoot_sys::path;

use crate::dir::Dir;
use crate::driver::old_overlay::in_thread;
use crate::driver::overlay::ensure_writable;
use crate::error::{Error, Kind, Result};
use crate::idmap::IdMap;

/// `OVERLAYFS_SUPER_MAGIC`, linux/magic.h.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// Beside the upper layer. The engine's own work directory is in use by its mount, whose temporary files are in it.
const WORK: &str = "offshoot-work";

/// The options of mount(2) fill at most a page, their end included.
const PAGE: usize = 4095;

/// Options that say how the layers are to be read; all others are the kernel's defaults or do not matter to a second mount.
const KEPT: [&str; 6] = ["redirect_dir", "metacopy", "userxattr", "xino", "index", "nfs_export"];

/// A detached mount of the root filesystem at `path`, whose files appear with the ids that `idmap` maps to. What is mounted
/// below a directory comes along; below an overlay no engine mounts anything. Goes away with the descriptor.
///
/// # Errors
/// The file system cannot do it.
pub fn map_root(path: &Path, idmap: &IdMap) -> Result<OwnedFd> {
    let failed = |error: Error| error.during(format!("shift the ids of the root filesystem {}", path.display()));
    let tree = open_tree(None, path, OPEN_TREE_CLONE | AT_RECURSIVE).map_err(|error| failed(error.into()))?;
    match set(&tree, idmap, AT_RECURSIVE) {
        Ok(()) => return Ok(tree),
        Err(error) if error.errno() != Errno::EINVAL => return Err(failed(error.into())),
        Err(_) => {}
    }
    if fstatfs(&tree).map_err(|error| failed(error.into()))?.magic == OVERLAY_MAGIC {
        return overlay(path, idmap).map_err(failed);
    }
    // What is mounted below, perhaps, and not the root itself.
    set(&tree, idmap, 0).map_err(|error| {
        let hint =
            "the file system must know id-mapped mounts: ext4, xfs, btrfs, erofs, tmpfs, f2fs, or overlay over them";
        failed(Error::from(error).with_hint(hint))
    })?;
    Ok(tree)
}

fn set(mount: impl AsFd, idmap: &IdMap, flags: u32) -> offshoot_sys::Result<()> {
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns: Some(idmap.userns()), ..MountAttr::default() };
    mount_setattr(mount, "", AT_EMPTY_PATH | flags, &attr)
}

/// The layers of an overlay, as its mounter named them.
#[derive(Debug, PartialEq, Eq)]
struct Layers {
    /// The uppermost first.
    lower: Vec<PathBuf>,
    /// Lower layers with file contents only.
    data: Vec<PathBuf>,
    upper: Option<PathBuf>,
    /// Those of [`KEPT`], with values where they have one.
    options: Vec<(String, Option<String>)>,
}

fn overlay(root: &Path, idmap: &IdMap) -> Result<OwnedFd> {
    let at = statx(None, root, libc::AT_SYMLINK_NOFOLLOW)?;
    if !at.is_mount_root() {
        return Err(Error::new(Kind::Unsupported, "it is a directory within an overlay, which cannot be id-mapped")
            .with_hint("put the root filesystem on ext4, xfs, btrfs or tmpfs"));
    }
    // Any user may have mounted something at a name that is no text.
    let mountinfo = std::fs::read("/proc/thread-self/mountinfo")
        .map_err(|error| Error::io("read(\"/proc/thread-self/mountinfo\")", &error))?;
    let mountinfo = String::from_utf8_lossy(&mountinfo);
    let options = super_options(&mountinfo, at.mnt_id)
        .ok_or_else(|| Error::new(Kind::Unsupported, "its mount is not in /proc/self/mountinfo"))?;
    let layers = Layers::read(options).absolute(root)?;
    let mount = match layers.by_descriptors(idmap)? {
        Some(mount) => mount,
        // Before Linux 6.13 layers are taken by path, and only from mounts that are attached.
        None => in_thread(|| layers.by_paths(idmap))?,
    };
    if layers.upper.is_some() {
        ensure_writable(&mount)?;
    }
    Ok(mount)
}

/// The super block options of the mount `id`. man 5 proc_pid_mountinfo
fn super_options(mountinfo: &str, id: u64) -> Option<&str> {
    let line =
        mountinfo.lines().find(|line| line.split(' ').next().and_then(|field| field.parse().ok()) == Some(id))?;
    line.split_once(" - overlay ")?.1.split(' ').nth(1)
}

impl Layers {
    fn read(options: &str) -> Layers {
        let mut layers = Layers { lower: Vec::new(), data: Vec::new(), upper: None, options: Vec::new() };
        for option in split(options, b',') {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(unescape(value))),
                None => (option.as_str(), None),
            };
            let path = |value: &Option<Vec<u8>>| PathBuf::from(OsStr::from_bytes(value.as_deref().unwrap_or_default()));
            match key {
                "lowerdir" => {
                    let text = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
                    let mut into_data = false;
                    for part in split(&text, b':') {
                        // Two colons begin the layers with contents only.
                        match part.is_empty() {
                            true => into_data = true,
                            false if into_data => layers.data.push(bare(&part)),
                            false => layers.lower.push(bare(&part)),
                        }
                    }
                }
                "lowerdir+" => layers.lower.push(path(&value)),
                "datadir+" => layers.data.push(path(&value)),
                "upperdir" => layers.upper = Some(path(&value)),
                _ if KEPT.contains(&key) => {
                    let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                    layers.options.push((key.to_owned(), value));
                }
                _ => {}
            }
        }
        layers
    }

    /// Many layers do not fit into a page, so engines name them from a directory of theirs: the one that holds the
    /// container's.
    fn absolute(self, path: &Path) -> Result<Layers> {
        let beside = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
        let upper = self.upper.as_deref().filter(|upper| upper.is_absolute());
        let bases: Vec<PathBuf> = upper.and_then(beside).into_iter().chain(beside(path)).collect();
        let find = |layer: PathBuf| {
            let places = bases.iter().map(|base| base.join(&layer));
            let place = if layer.is_absolute() { Some(layer.clone()) } else { places.into_iter().find(|p| p.is_dir()) };
            // Through the short links that Docker and Podman keep.
            let real = place.and_then(|place| std::fs::canonicalize(place).ok());
            real.ok_or_else(|| {
                Error::new(Kind::Unsupported, format!("the layer {} of its overlay cannot be found", layer.display()))
            })
        };
        let all = |list: Vec<PathBuf>| list.into_iter().map(&find).collect::<Result<Vec<_>>>();
        let (lower, data) = (all(self.lower)?, all(self.data)?);
        let upper = self.upper.map(&find).transpose()?;
        Ok(Layers { lower, data, upper, options: self.options })
    }

    /// An id-mapped copy of a layer's mount.
    fn mapped(path: &Path, idmap: &IdMap) -> Result<OwnedFd> {
        let tree = open_tree(None, path, OPEN_TREE_CLONE)?;
        idmap.apply(&tree).map_err(|error| error.prefixed(path.display()))?;
        Ok(tree)
    }

    /// The directory that holds the upper layer and, made here, its work directory.
    fn home(&self) -> Result<Option<(&Path, &OsStr)>> {
        let Some(upper) = &self.upper else { return Ok(None) };
        let (Some(home), Some(name)) = (upper.parent(), upper.file_name()) else {
            return Err(Error::new(Kind::Unsupported, "its upper layer is the root of a file system"));
        };
        Dir::open(home)?.ensure(WORK, 0o700)?;
        Ok(Some((home, name)))
    }

    /// Mounts by descriptors; `None` where the kernel takes none.
    fn by_descriptors(&self, idmap: &IdMap) -> Result<Option<OwnedFd>> {
        let context = FsContext::open("overlay")?;
        // Detached mounts come apart with their descriptors: these live until the overlay is made.
        let mut copies = Vec::new();
        for (key, list) in [("lowerdir+", &self.lower), ("datadir+", &self.data)] {
            for layer in list {
                let copy = Layers::mapped(layer, idmap)?;
                match context.fd(key, &copy) {
                    Err(error) if matches!(error.errno(), Errno::EBADF | Errno::EINVAL) => return Ok(None),
                    result => result?,
                }
                copies.push(copy);
            }
        }
        if let Some((home, name)) = self.home()? {
            // One mount for both, as overlayfs demands.
            let copy = Layers::mapped(home, idmap)?;
            for (key, name) in [("upperdir", name), ("workdir", OsStr::new(WORK))] {
                let dir =
                    path::openat(Some(copy.as_fd()), name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
                context.fd(key, dir)?;
            }
            copies.push(copy);
        }
        for (key, value) in &self.options {
            match value {
                Some(value) => context.string(key, value)?,
                None => context.flag(key)?,
            }
        }
        idmap.as_mapped_root(|| Ok(context.create()?))?;
        drop(copies);
        Ok(Some(context.mount(0)?))
    }

    /// Mounts by paths, in a mount namespace of this thread's own where the id-mapped copies stand in the layers' places.
    fn by_paths(&self, idmap: &IdMap) -> Result<OwnedFd> {
        let home = self.home()?;
        let options = self.text(home)?;
        let places = self.lower.iter().chain(&self.data).map(PathBuf::as_path).chain(home.map(|(home, _)| home));
        let copies: Vec<(&Path, OwnedFd)> =
            places.map(|place| Ok((place, Layers::mapped(place, idmap)?))).collect::<Result<_>>()?;
        // Unsharing mounts unshares the working directory too, so this thread alone moves (man 2 unshare).
        offshoot_sys::process::unshare(libc::CLONE_NEWNS)?;
        mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
        for (place, copy) in copies {
            move_mount_to(copy, None, place)?;
        }
        // Any directory will do to mount on: only a copy of the mount leaves this namespace.
        let target = Path::new("/proc");
        let mount = || Ok(mount_legacy(Some(Path::new("overlay")), target, Some("overlay"), 0, Some(&options))?);
        idmap.as_mapped_root(mount)?;
        Ok(open_tree(None, target, OPEN_TREE_CLONE)?)
    }

    fn text(&self, home: Option<(&Path, &OsStr)>) -> Result<String> {
        let list = |paths: &[PathBuf]| paths.iter().map(|path| escape(path)).collect::<Vec<_>>().join(":");
        let mut text = format!("lowerdir={}", list(&self.lower));
        if !self.data.is_empty() {
            text += &self.data.iter().map(|path| format!("::{}", escape(path))).collect::<String>();
        }
        if let Some((home, name)) = home {
            text += &format!(",upperdir={},workdir={}", escape(&home.join(name)), escape(&home.join(WORK)));
        }
        for (key, value) in &self.options {
            text += &value.as_ref().map_or(format!(",{key}"), |value| format!(",{key}={value}"));
        }
        match text.len() > PAGE {
            true => {
                let message = format!("{} layers are too many for this kernel's overlayfs by paths", self.lower.len());
                Err(Error::new(Kind::Unsupported, message).with_hint("Linux 6.13 has no such limit"))
            }
            false => Ok(text),
        }
    }
}

/// The escapes of mount options for overlayfs: a comma would end the option, a colon the layer.
fn escape(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().flat_map(|c| if matches!(c, ',' | ':' | '\\') { vec!['\\', c] } else { vec![c] }).collect()
}

/// Splits at `separator` where no backslash stands before it; escapes stay.
fn split(text: &str, separator: u8) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == char::from(separator) && !escaped {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

/// Without backslashes before separators.
fn bare(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    PathBuf::from(out)
}

/// Octal escapes of mountinfo: space, tab, line break, backslash.
fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_from_mountinfo() {
        let line = "603 29 0:52 / /d/x/merged rw,relatime shared:340 - overlay overlay \
                    rw,lowerdir=/d/l/A:/d/l/B\\040C,upperdir=/d/x/diff,workdir=/d/x/work,index=off,userxattr,nouserxattr=x";
        let options = super_options(line, 603).unwrap();
        assert_eq!(super_options(line, 604), None);
        let layers = Layers::read(options);
        assert_eq!(layers.lower, [PathBuf::from("/d/l/A"), PathBuf::from("/d/l/B C")]);
        assert_eq!(layers.upper, Some(PathBuf::from("/d/x/diff")));
        assert_eq!(layers.options, [("index".into(), Some("off".into())), ("userxattr".into(), None)]);
    }

    #[test]
    fn layers_of_the_new_mount_calls_and_data_layers() {
        let layers = Layers::read("ro,lowerdir+=/a,lowerdir+=/b,datadir+=/c");
        assert_eq!((layers.lower.len(), layers.data.len(), layers.upper), (2, 1, None));
        let layers = Layers::read("rw,lowerdir=/a:/b::/c::/d");
        assert_eq!((layers.lower.len(), layers.data.len()), (2, 2));
    }

    /// An overlay as an engine mounts it, in a mount namespace of this thread's own.
    fn with_overlay(name: &str, test: impl FnOnce(&Path) + Send) {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                offshoot_sys::process::unshare(libc::CLONE_NEWNS).unwrap();
                mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
                let dir = std::env::temp_dir().join(format!("offshoot-foreign-{name}-{}", std::process::id()));
                std::fs::create_dir_all(&dir).unwrap();
                // On a file system of its own, as the one of the machine may know no id maps.
                mount_legacy(Some(Path::new("tmpfs")), &dir, Some("tmpfs"), 0, None).unwrap();
                for name in ["a", "b", "x/diff", "x/work", "x/merged"] {
                    std::fs::create_dir_all(dir.join(name)).unwrap();
                }
                std::fs::write(dir.join("b/lower"), "text").unwrap();
                let shown = dir.display();
                let options = format!("lowerdir={shown}/a:{shown}/b,upperdir={shown}/x/diff,workdir={shown}/x/work");
                let merged = dir.join("x/merged");
                mount_legacy(Some(Path::new("overlay")), &merged, Some("overlay"), 0, Some(&options)).unwrap();
                test(&dir);
                offshoot_sys::mount::umount(&dir, libc::MNT_DETACH).unwrap();
                std::fs::remove_dir(&dir).unwrap();
            });
            thread.join().unwrap();
        });
    }

    fn map() -> IdMap {
        let ids = [crate::IdRange { inside: 0, outside: 3_000_000, count: 65536 }];
        IdMap::new(&ids, &ids).unwrap()
    }

    /// What is seen of a file through the mount, and where a file lies that the container's root makes.
    fn check(mount: &OwnedFd, dir: &Path) {
        let seen = path::fstatat(Some(mount.as_fd()), "lower", 0).unwrap();
        assert_eq!((seen.st_uid, seen.st_gid), (3_000_000, 3_000_000));
        let make = || Ok(path::openat(Some(mount.as_fd()), "made", libc::O_CREAT | libc::O_WRONLY, 0o600)?);
        map().as_mapped_root(make).unwrap();
        let stored = path::fstatat(None, dir.join("x/diff/made"), 0).unwrap();
        assert_eq!((stored.st_uid, stored.st_gid), (0, 0), "ids on disk are shifted");
    }

    #[test]
    fn an_engine_s_overlay_gets_ids_and_its_upper_layer_keeps_them_unshifted() {
        with_overlay("fds", |dir| check(&map_root(&dir.join("x/merged"), &map()).unwrap(), dir));
    }

    #[test]
    fn the_same_by_paths_as_before_linux_6_13() {
        with_overlay("paths", |dir| {
            let mountinfo = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let id = statx(None, dir.join("x/merged"), 0).unwrap().mnt_id;
            let layers = Layers::read(super_options(&mountinfo, id).unwrap()).absolute(&dir.join("x/merged")).unwrap();
            let mount = std::thread::scope(|scope| scope.spawn(|| layers.by_paths(&map())).join().unwrap()).unwrap();
            check(&mount, dir);
        });
    }

    #[test]
    fn a_directory_is_shown_with_the_ids_and_not_changed() {
        with_overlay("dir", |dir| {
            let mount = map_root(&dir.join("b"), &map()).unwrap();
            assert_eq!(path::fstatat(Some(mount.as_fd()), "lower", 0).unwrap().st_uid, 3_000_000);
            assert_eq!(path::fstatat(None, dir.join("b/lower"), 0).unwrap().st_uid, 0);
        });
    }

    #[test]
    fn separators_in_names_are_escaped_and_read_back() {
        let path = Path::new("/a:b,c\\d");
        assert_eq!(escape(path), "/a\\:b\\,c\\\\d");
        assert_eq!(bare(&escape(path)), path);
        assert_eq!(split("a\\,b,c", b','), ["a\\,b", "c"]);
        assert_eq!(unescape("a\\134:b"), b"a\\:b");
    }
}
