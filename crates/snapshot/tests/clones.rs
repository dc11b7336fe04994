//! Clones by every driver that works on the build machine's own file system.

mod common;

use std::os::unix::fs::MetadataExt;

use common::{as_ids, idmap, is_root, listing, scratch, store_with_image, within};
use offshoot_snapshot::{Choice, CloneOptions, DriverKind, Kind};

fn by(kind: DriverKind) -> CloneOptions {
    CloneOptions { driver: Choice::Fixed(kind), keep: true, size: None }
}

#[test]
fn every_driver_shows_the_image_and_keeps_what_is_written_apart() {
    if !is_root() {
        return;
    }
    let scratch = scratch("every-driver");
    let (store, image) = store_with_image(&scratch);
    let wanted = listing(&scratch.0.join("tree"));
    for kind in [DriverKind::Overlay, DriverKind::Dir] {
        let (one, two) = (format!("{kind}-1"), format!("{kind}-2"));
        let one = store.clone_for(&image, &one, &by(kind)).unwrap();
        let two = store.clone_for(&image, &two, &by(kind)).unwrap();
        let (mount, other) = (one.mount(None).unwrap(), two.mount(None).unwrap());
        assert_eq!(listing(&within(&mount, "")), wanted, "{kind}");
        std::fs::write(within(&mount, "etc/hostname"), "changed").unwrap();
        std::fs::remove_file(within(&mount, "etc/motd")).unwrap();
        assert_eq!(listing(&within(&other, "")), wanted, "{kind}");
        drop((mount, other));
        one.delete().unwrap();
        two.delete().unwrap();
    }
    assert!(store.clones().unwrap().is_empty());
}

#[test]
fn ids_are_mapped_by_the_mount_and_never_stored() {
    if !is_root() {
        return;
    }
    let scratch = scratch("ids");
    let (store, image) = store_with_image(&scratch);
    for kind in [DriverKind::Overlay, DriverKind::Dir] {
        let clone = store.clone_for(&image, &format!("{kind}"), &by(kind)).unwrap();
        let mount = clone.mount(Some(&idmap(1_000_000))).unwrap();
        let owner =
            |path: &str| std::fs::symlink_metadata(within(&mount, path)).map(|stat| (stat.uid(), stat.gid())).unwrap();
        assert_eq!(owner("etc/hostname"), (1_000_000, 1_000_000), "{kind}");
        assert_eq!(owner("var/log/old"), (1_001_000, 1_001_001), "{kind}");
        as_ids(1_000_000, || {
            std::fs::write(within(&mount, "new"), "written by the mapped root").unwrap();
            std::fs::write(within(&mount, "etc/motd"), "copied up").unwrap();
        });
        assert_eq!(owner("new"), (1_000_000, 1_000_000), "{kind}");
        drop(mount);
        let stored = scratch.0.join(format!("store/clones/{kind}/r1"));
        for path in ["new", "etc/motd"] {
            let stat = std::fs::metadata(stored.join(path)).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (0, 0), "{kind} {path}");
        }
        // The same clone under another range, and under none.
        let mount = clone.mount(Some(&idmap(2_000_000))).unwrap();
        assert_eq!(std::fs::metadata(within(&mount, "new")).unwrap().uid(), 2_000_000, "{kind}");
        drop(mount);
        let mount = clone.mount(None).unwrap();
        assert_eq!(std::fs::metadata(within(&mount, "new")).unwrap().uid(), 0, "{kind}");
    }
}

#[test]
fn a_clone_goes_back_to_its_snapshots() {
    if !is_root() {
        return;
    }
    let scratch = scratch("snapshots");
    let (store, image) = store_with_image(&scratch);
    for kind in [DriverKind::Overlay, DriverKind::Dir] {
        let mut clone = store.clone_for(&image, &format!("{kind}"), &by(kind)).unwrap();
        let read = |clone: &offshoot_snapshot::RootClone| {
            let mount = clone.mount(None).unwrap();
            std::fs::read_to_string(within(&mount, "state")).ok()
        };
        let write = |clone: &offshoot_snapshot::RootClone, text: &str| {
            let mount = clone.mount(None).unwrap();
            std::fs::write(within(&mount, "state"), text).unwrap();
        };
        clone.snapshot("fresh").unwrap();
        write(&clone, "one");
        clone.snapshot("one").unwrap();
        write(&clone, "two");
        assert_eq!(clone.snapshot("one").unwrap_err().kind(), Kind::Exists);
        clone.rollback("fresh").unwrap();
        assert_eq!(read(&clone), None, "{kind}");
        clone.rollback("one").unwrap();
        assert_eq!(read(&clone).as_deref(), Some("one"), "{kind}");
        clone.delete_snapshot("fresh").unwrap();
        clone.delete_snapshot("one").unwrap();
        assert_eq!(read(&clone).as_deref(), Some("one"), "{kind}");
        assert_eq!(clone.rollback("one").unwrap_err().kind(), Kind::NotFound);
        clone.delete().unwrap();
    }
    assert_eq!(store.sweep().unwrap(), 0);
}

#[test]
fn a_mounted_overlay_is_not_frozen() {
    if !is_root() {
        return;
    }
    let scratch = scratch("mounted");
    let (store, image) = store_with_image(&scratch);
    let mut clone = store.clone_for(&image, "c", &by(DriverKind::Overlay)).unwrap();
    let mount = clone.mount(None).unwrap();
    std::fs::write(within(&mount, "x"), "x").unwrap();
    let error = clone.snapshot("s").unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.hint().is_some());
    drop(mount);
    clone.snapshot("s").unwrap();
}
