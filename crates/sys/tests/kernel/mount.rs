use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use offshoot_sys::fork::{CLONE_NEWNS, CLONE_NEWUSER, fork, wait};
use offshoot_sys::mount::*;
use offshoot_sys::path::{fd_path, mkdirat, open, openat, openat2, write_all};
use offshoot_sys::{event, path, process};

use crate::{Test, in_namespaces, need_root};

pub const TESTS: &[Test] = &[
    ("mount::a_tmpfs_by_descriptors", a_tmpfs_by_descriptors),
    ("mount::errors_carry_the_kernels_log", errors_carry_the_kernels_log),
    ("mount::attributes_of_a_tree", attributes_of_a_tree),
    ("mount::ids_are_mapped", ids_are_mapped),
    ("mount::a_file_system_is_reconfigured", a_file_system_is_reconfigured),
    ("mount::pivot_and_detach", pivot_and_detach),
    ("mount::classic_calls_on_descriptors", classic_calls_on_descriptors),
    ("mount::statx_tells_mounts_apart", statx_tells_mounts_apart),
    ("mount::resolution_stays_in_root", resolution_stays_in_root),
];

/// Runs the test in a mount namespace from which nothing comes out.
fn alone(test: impl FnOnce()) {
    need_root();
    in_namespaces(CLONE_NEWNS, || {
        mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
        test();
    });
}

/// A tmpfs attached at `/tmp` of the test's own mount namespace.
fn tmpfs() -> OwnedFd {
    let context = FsContext::open("tmpfs").unwrap();
    context.string("size", "64k").unwrap();
    context.create().unwrap();
    let mount = context.mount(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV).unwrap();
    move_mount(&mount, open("/tmp", libc::O_PATH, 0).unwrap()).unwrap();
    mount
}

fn a_tmpfs_by_descriptors() {
    alone(|| {
        let mount = tmpfs();
        assert_eq!(fstatfs_magic(&mount).unwrap(), libc::TMPFS_MAGIC as u64);
        let flags = fstatfs(&mount).unwrap().flags;
        assert_eq!(flags & (libc::ST_NOSUID | libc::ST_NODEV | libc::ST_RDONLY), libc::ST_NOSUID | libc::ST_NODEV);
        mkdirat(Some(mount.as_fd()), "below", 0o755).unwrap();
        let clone = open_tree(Some(mount.as_fd()), "below", OPEN_TREE_CLONE).unwrap();
        mkdirat(Some(mount.as_fd()), "again", 0o755).unwrap();
        move_mount_to(&clone, Some(mount.as_fd()), "again").unwrap();
        write_all(openat(Some(clone.as_fd()), "file", libc::O_CREAT | libc::O_WRONLY, 0o644).unwrap(), b"x").unwrap();
        assert_eq!(std::fs::read("/tmp/again/file").unwrap(), b"x");
        umount("/tmp/again", libc::MNT_DETACH).unwrap();
        assert_eq!(umount("/tmp/again", 0).unwrap_err().to_string(), "umount2(\"/tmp/again\", 0x0): invalid argument");
        assert_eq!(std::fs::read("/tmp/below/file").unwrap(), b"x");
    });
}

fn errors_carry_the_kernels_log() {
    alone(|| {
        let error = FsContext::open("no-such-fs").unwrap_err();
        assert_eq!(error.to_string(), "fsopen(\"no-such-fs\"): no such device");
        let context = FsContext::open("tmpfs").unwrap();
        let error = context.string("no-such-option", "1").unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().ends_with("(tmpfs: Unknown parameter 'no-such-option')"), "{error}");
        let error = context.string("size", "a\0b").unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(context.flag("size").is_err());
        assert!(context.binary("size", b"1").is_err());
        assert!(context.fd("size", &context).is_err());
        assert!(context.mount(0).unwrap_err().to_string().starts_with("fsmount(["));
    });
}

fn attributes_of_a_tree() {
    alone(|| {
        let mount = tmpfs();
        let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: MOUNT_ATTR_NODEV, ..MountAttr::default() };
        mount_setattr(&mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr).unwrap();
        let flags = fstatfs(&mount).unwrap().flags;
        assert_eq!(flags & (libc::ST_RDONLY | libc::ST_NODEV), libc::ST_RDONLY);
        assert_eq!(mkdirat(Some(mount.as_fd()), "x", 0o755).unwrap_err().errno(), Errno::EROFS);
        let shared = MountAttr { propagation: libc::MS_SHARED, ..MountAttr::default() };
        mount_setattr(&mount, "", AT_EMPTY_PATH, &shared).unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(mounts.lines().any(|line| line.contains(" /tmp ro,nosuid,relatime shared:")), "{mounts}");
    });
}

fn ids_are_mapped() {
    alone(|| {
        let mount = tmpfs();
        let (reader, writer) = event::pipe().unwrap();
        let holder = fork(CLONE_NEWUSER as u64, None, || path::read(&reader, &mut [0]).map_or(1, |_| 0)).unwrap();
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{map}", holder.pid), "0 100000 1000").unwrap();
        }
        let userns = open(format!("/proc/{}/ns/user", holder.pid), libc::O_RDONLY, 0).unwrap();
        write_all(&writer, b"x").unwrap();
        wait(holder.pidfd).unwrap();
        let copy = open_tree(Some(mount.as_fd()), "", OPEN_TREE_CLONE | AT_EMPTY_PATH).unwrap();
        let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns: Some(userns.as_fd()), ..MountAttr::default() };
        match mount_setattr(&copy, "", AT_EMPTY_PATH, &attr) {
            Err(error) if error.errno() == Errno::EINVAL => println!("skipped: tmpfs maps ids since Linux 6.3 only"),
            result => {
                result.unwrap();
                let file = openat(Some(mount.as_fd()), "f", libc::O_CREAT | libc::O_WRONLY, 0o644).unwrap();
                path::fchown(&file, 5, 6).unwrap();
                let seen = statx(Some(copy.as_fd()), "f", 0).unwrap();
                assert_eq!((seen.uid, seen.gid), (100_005, 100_006));
            }
        }
    });
}

fn a_file_system_is_reconfigured() {
    alone(|| {
        let mount = tmpfs();
        for context in [FsContext::pick(Some(mount.as_fd()), "").unwrap(), FsContext::pick(None, "/tmp").unwrap()] {
            context.flag("ro").unwrap();
            context.reconfigure().unwrap();
            assert_eq!(fstatfs(&mount).unwrap().flags & libc::ST_RDONLY, libc::ST_RDONLY);
        }
    });
}

fn pivot_and_detach() {
    alone(|| {
        let root = tmpfs();
        mkdirat(Some(root.as_fd()), "marker", 0o755).unwrap();
        process::fchdir(&root).unwrap();
        pivot_root(".", ".").unwrap();
        umount(".", libc::MNT_DETACH).unwrap();
        process::chdir("/").unwrap();
        assert_eq!(path::read_dir(open("/", libc::O_RDONLY, 0).unwrap()).unwrap(), ["marker"]);
        assert!(pivot_root("/no", "/no").unwrap_err().to_string().starts_with("pivot_root(\"/no\", \"/no\"): "));
    });
}

fn classic_calls_on_descriptors() {
    alone(|| {
        let mount = tmpfs();
        mkdirat(Some(mount.as_fd()), "a", 0o755).unwrap();
        let target = openat(Some(mount.as_fd()), "a", libc::O_PATH, 0).unwrap();
        mount_legacy(Some(Path::new("none")), fd_path(&target), Some("tmpfs"), libc::MS_RDONLY, Some("size=4k"))
            .unwrap();
        let top = openat(Some(mount.as_fd()), "a", libc::O_PATH, 0).unwrap();
        assert_eq!(fstatfs(&top).unwrap().flags & libc::ST_RDONLY, libc::ST_RDONLY);
        umount_fd(&top).unwrap();
        let error = mount_legacy(None, "/tmp/none", Some("tmpfs"), 0, None).unwrap_err();
        assert_eq!(error.to_string(), "mount(\"\", \"/tmp/none\", \"tmpfs\", 0x0, \"\"): no such file or directory");
    });
}

fn statx_tells_mounts_apart() {
    alone(|| {
        let mount = tmpfs();
        let root = statx(Some(mount.as_fd()), "", libc::AT_EMPTY_PATH).unwrap();
        assert!(root.is_mount_root() && !root.is_verity());
        assert_eq!(root.kind(), libc::S_IFDIR);
        mkdirat(Some(mount.as_fd()), "a", 0o700).unwrap();
        let below = statx(Some(mount.as_fd()), "a", libc::AT_SYMLINK_NOFOLLOW).unwrap();
        assert_eq!((below.mnt_id, below.dev, below.mode), (root.mnt_id, root.dev, libc::S_IFDIR | 0o700));
        assert!(!below.is_mount_root());
        assert_ne!(statx(None, "/", 0).unwrap().mnt_id, root.mnt_id);
        assert_eq!(statx(None, "/dev/null", 0).unwrap().rdev, (1, 3));
    });
}

fn resolution_stays_in_root() {
    alone(|| {
        let root = tmpfs();
        let dir = Some(root.as_fd());
        mkdirat(dir, "etc", 0o755).unwrap();
        path::symlinkat("/etc", dir, "absolute").unwrap();
        path::symlinkat("../../../../proc", dir, "climbing").unwrap();
        let inside = statx(dir, "etc", 0).unwrap().ino;
        let found = openat2(dir, "absolute", libc::O_PATH, 0, libc::RESOLVE_IN_ROOT).unwrap();
        assert_eq!(statx(Some(found.as_fd()), "", libc::AT_EMPTY_PATH).unwrap().ino, inside);
        let error = openat2(dir, "climbing", libc::O_PATH, 0, libc::RESOLVE_IN_ROOT).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
        let error = openat2(dir, "absolute", libc::O_PATH, 0, libc::RESOLVE_BENEATH).unwrap_err();
        assert_eq!(error.errno(), Errno::EXDEV);
        let error = openat2(dir, "absolute", libc::O_PATH, 0, libc::RESOLVE_NO_SYMLINKS).unwrap_err();
        assert_eq!(error.errno(), Errno::ELOOP);
    });
}
