//! What the kernel-level tests share.
#![allow(dead_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use offshoot_snapshot::{Format, IdMap, IdRange, Image, ImportOptions, Name, Result, Source, Store};

/// A directory that is removed with the guard.
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A fresh directory for the test of that name, on the disk rather than in memory.
pub fn scratch(name: &str) -> Scratch {
    let path = Path::new("/var/tmp").join(format!("offshoot-test-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    Scratch(path)
}

/// Whether the test can run: as root. Says why where not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// A small root file system with every kind of file.
pub fn rootfs(at: &Path) {
    let script = r#"
        set -e; umask 022; mkdir -p "$0/etc" "$0/bin" "$0/var/log" "$0/dev"; cd "$0"
        echo offshoot > etc/hostname; echo hello > etc/motd; echo 1 > var/log/old; echo x > bin/tool
        ln -s ../etc/hostname bin/link; ln bin/tool bin/hard; chmod 4755 bin/tool
        chown 1000:1001 var/log/old; mknod dev/null c 1 3; chmod 666 dev/null; mkfifo var/fifo
        truncate -s 1M var/sparse; echo end >> var/sparse; touch -d 2001-02-03T04:05:06.789 etc/motd
    "#;
    assert!(Command::new("bash").args(["-c", script]).arg(at).status().unwrap().success());
}

/// Imports a path under a name, as what it looks like.
pub fn import(store: &Store, path: &Path, name: &str) -> Result<Image> {
    import_as(store, path, name, Format::Auto)
}

pub fn import_as(store: &Store, path: &Path, name: &str, format: Format) -> Result<Image> {
    let options = ImportOptions { names: vec![Name::parse(name)?], format, ..ImportOptions::default() };
    store.import(Source::Path(path.to_owned()), &options, &mut |_| ())
}

/// A store with one image, `small`, of [`rootfs`].
pub fn store_with_image(scratch: &Scratch) -> (Store, Image) {
    store_at(&scratch.0)
}

/// The same on any disk, with the tree in `tree` and the store in `store`.
pub fn store_at(path: &Path) -> (Store, Image) {
    let tree = path.join("tree");
    std::fs::create_dir(&tree).unwrap();
    rootfs(&tree);
    let store = Store::open(path.join("store")).unwrap();
    let image = import(&store, &tree, "small").unwrap();
    (store, image)
}

/// A file system of its own in a file, mounted in a mount namespace of the test's thread alone.
pub struct Disk {
    file: Scratch,
}

impl Disk {
    /// A fresh file system made by `mkfs.KIND`; says why where that is not possible.
    pub fn new(kind: &str, gigabytes: u64, mkfs: &[&str]) -> Option<Disk> {
        let file = scratch(&format!("disk-{kind}-{}", std::thread::current().name().unwrap_or("x").replace("::", "-")));
        let image = file.0.join("image");
        std::fs::File::create(&image).unwrap().set_len(gigabytes << 30).unwrap();
        let made = Command::new(format!("mkfs.{kind}")).args(mkfs).arg(&image).output();
        if !made.is_ok_and(|output| output.status.success()) {
            println!("skipped: no mkfs.{kind}");
            return None;
        }
        let backing = std::fs::File::options().read(true).write(true).open(&image).unwrap();
        let device = offshoot_sys::loopdev::LoopDevice::attach(&backing, false).unwrap();
        let context = offshoot_sys::mount::FsContext::open(kind).unwrap();
        context.string("source", device.path()).unwrap();
        context.create().unwrap();
        offshoot_sys::process::unshare(libc::CLONE_NEWNS).unwrap();
        offshoot_sys::mount::mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
        let disk = Disk { file };
        std::fs::create_dir(disk.path()).unwrap();
        offshoot_sys::mount::move_mount_to(context.mount(0).unwrap(), None, disk.path()).unwrap();
        Some(disk)
    }

    pub fn path(&self) -> PathBuf {
        self.file.0.join("root")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = offshoot_sys::mount::umount(self.path(), libc::MNT_DETACH);
    }
}

/// A volume group on the disk that the environment names, for one test; the tests on it run one at a time.
pub struct Group {
    pub name: &'static str,
    _alone: std::sync::MutexGuard<'static, ()>,
}

static DISK: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Group {
    /// `None`, with a word why, without a disk.
    pub fn new() -> Option<Group> {
        let Ok(disk) = std::env::var("OFFSHOOT_TEST_DISK") else {
            println!("skipped: lvm-thin needs a spare disk; name one in OFFSHOOT_TEST_DISK");
            return None;
        };
        let guard = DISK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(lvm(&["vgcreate", "-q", "-y", "-ff", "offshoot-test", &disk]));
        Some(Group { name: "offshoot-test", _alone: guard })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        lvm(&["vgremove", "-q", "-y", "-ff", self.name]);
    }
}

pub fn lvm(args: &[&str]) -> bool {
    Command::new("lvm").args(args).status().is_ok_and(|status| status.success())
}

/// A mapping of 65536 ids from `outside` on.
pub fn idmap(outside: u32) -> IdMap {
    let ids = [IdRange { inside: 0, outside, count: 65_536 }];
    IdMap::new(&ids, &ids).unwrap()
}

/// A path below a detached mount.
pub fn within(mount: &OwnedFd, path: &str) -> PathBuf {
    // By number rather than `self`, so that tools find it too.
    PathBuf::from(format!("/proc/{}/fd/{}/{path}", std::process::id(), mount.as_raw_fd()))
}

/// Does something with the file system identity of the root of a range, as a container's root has it.
pub fn as_ids<T: Send>(id: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            offshoot_sys::process::setfsgid(id).unwrap();
            offshoot_sys::process::setfsuid(id).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Everything below a directory with what matters about it, as lines that compare.
pub fn listing(path: &Path) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut lines = Vec::new();
    let mut stack = vec![path.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let at = entry.unwrap().path();
            let stat = std::fs::symlink_metadata(&at).unwrap();
            let kind = stat.file_type();
            let what = if kind.is_symlink() {
                std::fs::read_link(&at).unwrap().display().to_string()
            } else if kind.is_dir() {
                stack.push(at.clone());
                String::new()
            } else if kind.is_file() {
                let bytes = std::fs::read(&at).unwrap();
                format!(
                    "{} bytes, {} links, {:?}",
                    bytes.len(),
                    stat.nlink(),
                    String::from_utf8_lossy(&bytes[..bytes.len().min(20)])
                )
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                format!("device {:#x}", stat.rdev())
            };
            let shown = at.strip_prefix(path).unwrap().display();
            lines.push(format!("{shown} {:o} {}:{} {} {what}", stat.mode(), stat.uid(), stat.gid(), stat.mtime()));
        }
    }
    lines.sort();
    lines
}
