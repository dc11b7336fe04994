//! The store itself: many at once, and damage.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{is_root, scratch, store_with_image};
use offshoot_snapshot::{CloneOptions, Kind, Name, Store};

#[test]
fn many_processes_at_once_never_disturb_each_other() {
    if !is_root() {
        return;
    }
    let scratch = scratch("many");
    let (store, image) = store_with_image(&scratch);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Each with a store of its own, as processes have.
        let open = || Store::open(store.path()).unwrap();
        let cloners: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn(move || {
                    let store = open();
                    for round in 0..40 {
                        let options = CloneOptions { keep: round % 8 == 0, ..CloneOptions::default() };
                        let name = format!("c{number}-{}", round % 3);
                        let clone = store.clone_for(&store.image("small").unwrap(), &name, &options).unwrap();
                        drop(clone.mount(None).unwrap());
                        clone.delete().unwrap();
                    }
                })
            })
            .collect();
        let name_fights = scope.spawn(move || {
            let store = open();
            let made = (0..200).filter(|_| {
                match store.clone_for(&store.image("small").unwrap(), "contested", &CloneOptions::default()) {
                    Ok(clone) => clone.delete().is_ok(),
                    Err(error) => {
                        assert!(matches!(error.kind(), Kind::Exists | Kind::NotFound), "{error}");
                        false
                    }
                }
            });
            assert!(made.count() > 0);
        });
        let (done, tree) = (&done, scratch.0.join("tree"));
        scope.spawn(move || {
            let store = open();
            while !done.load(Ordering::Relaxed) {
                let _ = store.clone_for(&store.image("small").unwrap(), "contested", &CloneOptions::default());
                store.delete_clones(&["contested".to_owned()]).unwrap();
                store.sweep().unwrap();
                assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
                let again = common::import(&store, &tree, "again").unwrap();
                store.remove_image("again").unwrap();
                assert!(again.bytes() > 0);
            }
        });
        for cloner in cloners {
            cloner.join().unwrap();
        }
        name_fights.join().unwrap();
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.clones().unwrap().is_empty());
    store.sweep().unwrap();
    assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
    store.remove_image(image.id().hex()).unwrap();
    assert_eq!(std::fs::read_dir(store.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn damage_is_found_named_and_repaired() {
    if !is_root() {
        return;
    }
    let scratch = scratch("damage");
    let (store, image) = store_with_image(&scratch);
    let keep = CloneOptions { keep: true, ..CloneOptions::default() };
    for name in ["torn", "empty", "hollow", "fine"] {
        store.clone_for(&image, name, &keep).unwrap();
    }
    store.tag(&image, &Name::parse("other").unwrap()).unwrap();
    let clone = |path: &str| store.path().join("clones").join(path);
    std::fs::write(clone("torn/clone.json"), "{\"version\":1,").unwrap();
    std::fs::write(clone("empty/clone.json"), "").unwrap();
    std::fs::remove_dir_all(clone("hollow/r1")).unwrap();
    let report = store.check(false).unwrap();
    assert_eq!((report.images, report.layers, report.clones), (1, 1, 4));
    for name in ["\"torn\"", "\"empty\"", "\"hollow\""] {
        assert!(report.problems.iter().any(|problem| problem.contains(name)), "{name}: {:?}", report.problems);
    }
    assert_eq!(report.problems.len(), 3);
    let report = store.check(true).unwrap();
    assert_eq!(
        report.repairs.iter().filter(|repair| repair.contains("removed clone")).count(),
        2,
        "{:?}",
        report.repairs
    );
    // What has a record is left to its owner, as there may be something of use in it.
    assert_eq!(store.check(false).unwrap().problems.len(), 1);
    store.delete_clones(&["hollow".to_owned()]).unwrap();
    drop(store.find_clone("fine").unwrap().mount(None).unwrap());
    store.find_clone("fine").unwrap().delete().unwrap();

    std::fs::write(store.path().join("images").join(image.id().hex()).join("image.json"), "").unwrap();
    assert_eq!(store.check(false).unwrap().problems.len(), 1);
    let report = store.check(true).unwrap();
    assert!(report.repairs.iter().any(|repair| repair.contains("removed image")), "{:?}", report.repairs);
    assert!(report.repairs.iter().any(|repair| repair.contains("removed name")), "{:?}", report.repairs);
    assert_eq!(store.check(false).unwrap().problems, Vec::<String>::new());
    assert!(store.images().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(store.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_reboot_ends_what_was_not_to_be_kept() {
    if !is_root() {
        return;
    }
    let scratch = scratch("reboot");
    let (store, image) = store_with_image(&scratch);
    let make = |name: &str, keep: bool| {
        store.clone_for(&image, name, &CloneOptions { keep, ..CloneOptions::default() }).unwrap();
    };
    make("kept", true);
    make("of-before", false);
    make("of-now", false);
    // As the record of a clone from before the boot looks.
    let record = store.path().join("clones/of-before/clone.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    std::fs::write(&record, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
    drop(store);
    let store = Store::open(scratch.0.join("store")).unwrap();
    assert_eq!(store.prune(false).unwrap().clones, ["of-before"]);
    let names: Vec<_> = store.clones().unwrap().iter().map(|clone| clone.name().to_owned()).collect();
    assert_eq!(names, ["kept", "of-now"]);
    store.find_clone("kept").unwrap().mount(None).unwrap();
}
