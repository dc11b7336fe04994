//! Clones by every driver that works on the build machine's own file system.

mod common;

use std::os::unix::fs::MetadataExt;

use common::{Disk, Group, Scratch, as_ids, idmap, is_root, listing, scratch, store_at, store_with_image, within};
use offshoot_snapshot::{Choice, CloneOptions, DriverKind, Kind};

fn by(kind: DriverKind) -> CloneOptions {
    CloneOptions { driver: Choice::Fixed(kind), keep: true, size: None }
}

/// Where a driver works, and for how long: a scratch directory, or a disk of its own.
enum Place {
    Here(Scratch),
    On(Disk),
    With(Scratch, Group),
}

impl Place {
    fn path(&self) -> std::path::PathBuf {
        match self {
            Place::Here(scratch) => scratch.0.clone(),
            Place::On(disk) => disk.path(),
            Place::With(scratch, _) => scratch.0.clone(),
        }
    }
}

/// Every driver with a place for it, as far as this machine has one.
fn places(test: &str) -> Vec<(DriverKind, Place)> {
    if !is_root() {
        return Vec::new();
    }
    let mut places = Vec::new();
    for kind in [DriverKind::Overlay, DriverKind::Dir] {
        places.push((kind, Place::Here(scratch(&format!("{test}-{kind}")))));
    }
    if let Some(disk) = Disk::new("btrfs", 1, &["-q"]) {
        places.push((DriverKind::Btrfs, Place::On(disk)));
    }
    if let Some(disk) = Disk::new("xfs", 2, &["-q", "-m", "reflink=1"]) {
        places.push((DriverKind::Reflink, Place::On(disk)));
    }
    if let Some(group) = Group::new() {
        places.push((DriverKind::LvmThin, Place::With(scratch(&format!("{test}-lvm")), group)));
    }
    places
}

#[test]
fn every_driver_shows_the_image_and_keeps_what_is_written_apart() {
    for (kind, place) in places("every") {
        let (store, image) = store_at(&place.path());
        if let Place::With(_, group) = &place {
            store.use_thin_pool(&format!("{}/pool", group.name), Some(4 << 30)).unwrap();
        }
        let wanted = listing(&place.path().join("tree"));
        let (one, two) = (format!("{kind}-1"), format!("{kind}-2"));
        let one = store.clone_for(&image, &one, &by(kind)).unwrap();
        let two = store.clone_for(&image, &two, &by(kind)).unwrap();
        let (mount, other) = (one.mount(None).unwrap(), two.mount(None).unwrap());
        assert_eq!(listing(&within(&mount, "")), wanted, "{kind}");
        std::fs::write(within(&mount, "etc/hostname"), "changed").unwrap();
        std::fs::remove_file(within(&mount, "etc/motd")).unwrap();
        assert_eq!(listing(&within(&other, "")), wanted, "{kind}");
        drop((mount, other));
        let changes =
            one.diff().unwrap().iter().map(|c| format!("{} {}", c.kind.letter(), c.path.display())).collect::<Vec<_>>();
        assert_eq!(changes, ["C etc/hostname", "D etc/motd"], "{kind}");
        one.delete().unwrap();
        two.delete().unwrap();
        assert!(store.clones().unwrap().is_empty());
        assert_eq!(store.sweep().unwrap(), 0, "{kind}");
        assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
        store.remove_image("small").unwrap();
        for place in ["layers", "images", "templates", "clones", "tmp"] {
            assert_eq!(std::fs::read_dir(store.path().join(place)).unwrap().count(), 0, "{kind} {place}");
        }
    }
}

#[test]
fn ids_are_mapped_by_the_mount_and_never_stored() {
    for (kind, place) in places("ids") {
        let (store, image) = store_at(&place.path());
        if let Place::With(_, group) = &place {
            store.use_thin_pool(&format!("{}/pool", group.name), Some(4 << 30)).unwrap();
        }
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
        let stored = place.path().join(format!("store/clones/{kind}/r1"));
        for path in ["new", "etc/motd"] {
            if matches!(kind, DriverKind::Reflink | DriverKind::LvmThin) {
                // Its files are in a file system of their own; mounting it without a map below tells the same.
                continue;
            }
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
    for (kind, place) in places("snapshots") {
        let (store, image) = store_at(&place.path());
        if let Place::With(_, group) = &place {
            store.use_thin_pool(&format!("{}/pool", group.name), Some(4 << 30)).unwrap();
        }
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
        assert_eq!(store.sweep().unwrap(), 0);
    }
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

#[test]
fn a_kept_overlay_is_mounted_once_at_a_time() {
    if !is_root() {
        return;
    }
    let scratch = scratch("once");
    let (store, image) = store_with_image(&scratch);
    let clone = store.clone_for(&image, "c", &by(DriverKind::Overlay)).unwrap();
    // The first time the clone is known to be fresh, later the kernel is asked.
    for _ in 0..2 {
        let mount = clone.mount(None).unwrap();
        for _ in 0..2 {
            assert_eq!(clone.mount(None).unwrap_err().kind(), Kind::Busy);
        }
        drop(mount);
    }
}

#[test]
fn a_clone_that_is_not_kept_can_be_mounted_again() {
    if !is_root() {
        return;
    }
    let scratch = scratch("volatile");
    let (store, image) = store_with_image(&scratch);
    let clone = store.clone_for(&image, "c", &CloneOptions { keep: false, ..by(DriverKind::Overlay) }).unwrap();
    for round in 0..3 {
        let mount = clone.mount(Some(&idmap(1_000_000))).unwrap();
        as_ids(1_000_000, || std::fs::write(within(&mount, &format!("f{round}")), "x").unwrap());
        assert_eq!(
            std::fs::read_dir(within(&mount, ""))
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_name().len() == 2)
                .count(),
            round + 1
        );
    }
    clone.delete().unwrap();
}

#[test]
fn btrfs_takes_nested_subvolumes_along_and_limits_sizes() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::new("btrfs", 1, &["-q"]) else { return };
    let (store, image) = store_at(&disk.path());
    let mut clone = store.clone_for(&image, "c", &by(DriverKind::Btrfs)).unwrap();
    let mount = clone.mount(None).unwrap();
    let root = |path: &str| std::fs::File::open(within(&mount, path)).unwrap();
    offshoot_sys::btrfs::create_subvolume(root("var"), "machines".as_ref()).unwrap();
    offshoot_sys::btrfs::create_subvolume(root("var/machines"), "inner".as_ref()).unwrap();
    std::fs::write(within(&mount, "var/machines/inner/file"), "nested").unwrap();
    clone.snapshot("s").unwrap();
    std::fs::write(within(&mount, "var/machines/inner/file"), "changed").unwrap();
    drop(mount);
    clone.rollback("s").unwrap();
    let mount = clone.mount(None).unwrap();
    assert_eq!(std::fs::read_to_string(within(&mount, "var/machines/inner/file")).unwrap(), "nested");
    drop(mount);
    clone.delete().unwrap();
    let mut limited = CloneOptions { size: Some(32 << 20), ..by(DriverKind::Btrfs) };
    let error = store.clone_for(&image, "limited", &limited).unwrap_err();
    assert!(error.hint().unwrap().contains("btrfs quota enable"), "{error:?}");
    let enable = std::process::Command::new("btrfs").args(["quota", "enable"]).arg(disk.path()).status();
    if !enable.is_ok_and(|status| status.success()) {
        println!("skipped: btrfs quota enable");
        return;
    }
    // Automatic choice comes to btrfs, as the first that can limit.
    limited.driver = Choice::Auto;
    let clone = store.clone_for(&image, "limited", &limited).unwrap();
    assert_eq!(clone.driver(), DriverKind::Btrfs);
    let mount = clone.mount(None).unwrap();
    let full = std::fs::write(within(&mount, "big"), vec![b'x'; 64 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::EDQUOT));
    assert!(clone.usage().unwrap() > 0);
}

/// What an overlay has changed becomes layers over its image's: deleted, replaced and hidden files, hard links and owners among it.
#[test]
fn an_image_of_an_overlay_shares_the_layers_of_its_own() {
    if !is_root() {
        return;
    }
    let scratch = scratch("commit");
    let (store, image) = store_with_image(&scratch);
    let mut clone = store.clone_for(&image, "c", &by(DriverKind::Overlay)).unwrap();
    let shell = |clone: &offshoot_snapshot::RootClone, script: &str| {
        let mount = clone.mount(None).unwrap();
        let output = std::process::Command::new("sh").args(["-c", script]).current_dir(within(&mount, ".")).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    shell(
        &clone,
        "echo new >etc/new; ln etc/new etc/same; chown 5:6 etc/new; rm etc/motd; rm -r var; mkdir var; echo x >var/x",
    );
    clone.snapshot("s").unwrap();
    shell(&clone, "rm etc/hostname; echo later >bin/tool; rm var/x; rm -r bin/link; mkdir bin/link");
    let list = "find . -printf '%p %y %m %U:%G %l\\n' | sort; stat -c %h etc/new; find . -type f -exec cat {} +";
    let wanted = shell(&clone, list);
    let names = |name: &str| [offshoot_snapshot::Name::parse(name).unwrap()];
    let made = store.commit(&clone, &names("made"), &mut |_| {}).unwrap();
    let other = store.clone_for(&made, "other", &by(DriverKind::Overlay)).unwrap();
    assert_eq!(shell(&other, list), wanted);
    assert!(made.bytes() < 2 * image.bytes(), "one layer more for each of two");
    let layers = || std::fs::read_dir(scratch.0.join("store/layers")).unwrap().count();
    assert_eq!(layers(), 3);
    // The same by a driver that makes one tree of them.
    let flat = store.clone_for(&made, "flat", &by(DriverKind::Dir)).unwrap();
    assert_eq!(shell(&flat, list), wanted);
    // Another generation, and so on until one layer is made of all.
    let mut last = made;
    for number in 0..20 {
        let clone = store.clone_for(&last, &format!("g{number}"), &by(DriverKind::Overlay)).unwrap();
        shell(&clone, &format!("echo {number} >etc/new"));
        last = store.commit(&clone, &names("last"), &mut |_| {}).unwrap();
    }
    let clone = store.clone_for(&last, "end", &by(DriverKind::Overlay)).unwrap();
    assert_eq!(shell(&clone, "cat etc/same etc/new"), "new\n19\n");
    let all: Vec<String> = store.clones().unwrap().iter().map(|clone| clone.name().to_owned()).collect();
    store.delete_clones(&all).unwrap();
}
