//! What a clone may run into: a full disk, a full clone, a missing tool, something busy. A sentence, a hint, nothing left.

mod common;

use std::path::Path;

use common::{Disk, Group, import, is_root, store_at, within};
use offshoot_snapshot::{Choice, CloneOptions, DriverKind, Error, Kind, Store};
use offshoot_sys::mount::{FsContext, mount_legacy};

fn by(kind: DriverKind, size: Option<u64>) -> CloneOptions {
    CloneOptions { driver: Choice::Fixed(kind), keep: true, size }
}

/// Nothing of a clone is left that could not be made.
fn assert_no_clone(store: &Store) {
    assert_eq!(store.clones().unwrap().len(), 0);
    assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
}

fn assert_hint(error: &Error, kind: Kind, text: &str, hint: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().starts_with("failed to ") && error.to_string().contains(text), "{error:?}");
    assert!(error.hint().is_some_and(|found| found.contains(hint)), "{error:?}");
}

#[test]
fn a_full_disk_makes_no_clone() {
    if !is_root() {
        return;
    }
    // Room for some files only: an overlay's clone has no content of its own.
    for (kind, option, value) in [(DriverKind::Dir, "size", "3m"), (DriverKind::Overlay, "nr_inodes", "60")] {
        let context = FsContext::open("tmpfs").unwrap();
        context.string(option, value).unwrap();
        context.create().unwrap();
        let mount = context.mount(0).unwrap();
        let (store, image) = store_at(&within(&mount, "."));
        let fill = |at: usize| match kind {
            DriverKind::Dir => std::fs::write(within(&mount, &format!("fill{at}")), vec![0; 1 << 16]),
            _ => std::fs::write(within(&mount, &format!("fill{at}")), ""),
        };
        let full = (0..100).find_map(|at| fill(at).err()).unwrap();
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
        let error = store.clone_for(&image, "c", &by(kind, None)).unwrap_err();
        assert_hint(&error, Kind::NoSpace, "clone image \"small:latest\" as \"c\"", "offshoot image prune");
        assert_no_clone(&store);
        for at in 0..100 {
            let _ = std::fs::remove_file(within(&mount, &format!("fill{at}")));
        }
        store.clone_for(&image, "c", &by(kind, None)).unwrap().delete().unwrap();
    }
}

#[test]
fn a_clone_in_a_file_is_as_large_as_was_asked_for() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::new("xfs", 2, &["-q", "-m", "reflink=1"]) else { return };
    let (store, image) = store_at(&disk.path());
    let size = 64 << 20;
    let error = store.clone_for(&image, "tiny", &by(DriverKind::Reflink, Some(1 << 20))).unwrap_err();
    assert!(error.to_string().contains("too small: the image alone needs"), "{error}");
    assert_no_clone(&store);
    let clone = store.clone_for(&image, "c", &by(DriverKind::Reflink, Some(size))).unwrap();
    assert_eq!(clone.size_limit(), Some(size));
    let before = clone.usage().unwrap();
    let mount = clone.mount(None).unwrap();
    let full = std::fs::write(within(&mount, "big"), vec![b'x'; 96 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    std::fs::write(within(&mount, "big"), vec![b'x'; 16 << 20]).unwrap();
    offshoot_sys::fsattr::syncfs(std::fs::File::open(within(&mount, "big")).unwrap()).unwrap();
    drop(mount);
    let used = clone.usage().unwrap();
    assert!(used >= before + (16 << 20) && used <= size, "{before} then {used}");
    clone.delete().unwrap();
    assert_no_clone(&store);
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::new("xfs", 2, &["-q", "-m", "reflink=1"]) else { return };
    let (store, image) = store_at(&disk.path());
    // In this test's mount namespace.
    for place in ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].map(Path::new) {
        if place.is_file() {
            mount_legacy(Some(Path::new("/dev/null")), place, None, libc::MS_BIND, None).unwrap();
        }
    }
    let error = store.clone_for(&image, "c", &by(DriverKind::Reflink, None)).unwrap_err();
    assert_hint(&error, Kind::Unsupported, "there is no mkfs.ext4 on this machine", "install the package e2fsprogs");
    assert_no_clone(&store);
    // `auto` goes on to what works.
    store.clone_for(&image, "c", &CloneOptions { keep: true, ..CloneOptions::default() }).unwrap().delete().unwrap();
}

#[test]
fn a_busy_subvolume_stays_until_it_is_free() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::new("btrfs", 1, &["-q"]) else { return };
    let (store, image) = store_at(&disk.path());
    let clone = store.clone_for(&image, "c", &by(DriverKind::Btrfs, None)).unwrap();
    // A subvolume that is sent is read-only meanwhile, and the kernel keeps it; so does the default of a mount.
    let tree = store.path().join("clones/c/r1");
    let set = |path: &Path| std::process::Command::new("btrfs").args(["subvolume", "set-default"]).arg(path).status();
    if !set(&tree).is_ok_and(|status| status.success()) {
        println!("skipped: no btrfs-progs");
        return;
    }
    let error = clone.delete().unwrap_err();
    assert_hint(&error, Kind::Busy, "delete clone \"c\"", "btrfs subvolume set-default");
    assert!(set(&disk.path()).unwrap().success());
    store.delete_clones(&["c".into()]).unwrap();
    store.sweep().unwrap();
    assert_no_clone(&store);
}

#[test]
fn a_full_pool_makes_no_clone_and_says_how_to_extend_it() {
    if !is_root() {
        return;
    }
    let Some(group) = Group::new() else { return };
    let scratch = common::scratch("full-pool");
    let (store, small) = store_at(&scratch.0);
    store.use_thin_pool(&format!("{}/pool", group.name), Some(24 << 20)).unwrap();
    let tree = scratch.0.join("large");
    std::fs::create_dir(&tree).unwrap();
    let noise = std::fs::File::open("/dev/urandom").unwrap();
    std::io::copy(&mut std::io::Read::take(noise, 32 << 20), &mut std::fs::File::create(tree.join("noise")).unwrap())
        .unwrap();
    let large = import(&store, &tree, "large").unwrap();
    let error = store.clone_for(&large, "c", &by(DriverKind::LvmThin, Some(96 << 20))).unwrap_err();
    assert_hint(&error, Kind::NoSpace, "clone image \"large:latest\" as \"c\"", "lvextend");
    assert_no_clone(&store);
    // The pool is as good as before.
    store.clone_for(&small, "c", &by(DriverKind::LvmThin, Some(64 << 20))).unwrap().delete().unwrap();
}
