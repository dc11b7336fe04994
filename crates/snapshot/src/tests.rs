//! Death at every crash point: whatever is killed wherever, the store is consistent for whoever comes next.

use std::path::Path;
use std::process::Command;

use crate::testing::{is_root, listing, scratch};
use crate::{CloneOptions, ImportOptions, Kind, Name, Source, Store, crash};

/// What the victim does, from an empty store on: each step's crash points are counted through.
fn life(store: &Path, tree: &Path) -> crate::Result<()> {
    let store = Store::open(store)?;
    let options = ImportOptions { names: vec![Name::parse("small")?], ..ImportOptions::default() };
    store.import(Source::Path(tree.to_owned()), &options, &mut |_| ())?;
    let image = store.image("small")?;
    store.tag(&image, &Name::parse("other")?)?;
    for driver in crate::DriverKind::ALL {
        let options = CloneOptions { driver: crate::Choice::Fixed(driver), keep: true, size: None };
        if let Err(error) = store.choose(&options) {
            println!("skipped: {driver}: {error}");
            continue;
        }
        let mut clone = store.clone_for(&image, &format!("c-{driver}"), &options)?;
        clone.snapshot("one")?;
        clone.snapshot("two")?;
        clone.rollback("one")?;
        clone.delete_snapshot("two")?;
        clone.delete()?;
    }
    store.remove_image("other")?;
    store.remove_image("small")?;
    Ok(())
}

/// Not a test of its own: the process that the test below kills.
#[test]
#[ignore = "runs as the victim of another test"]
fn victim() {
    let var = |name: &str| std::env::var(name).unwrap();
    crash::dies_at(var("OFFSHOOT_DIES_AT").parse().unwrap());
    life(Path::new(&var("OFFSHOOT_STORE")), Path::new(&var("OFFSHOOT_TREE"))).unwrap();
}

#[test]
fn a_process_killed_anywhere_leaves_a_consistent_store() {
    if !is_root() {
        return;
    }
    let (_guard, path) = scratch("killed");
    let tree = path.join("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::write(tree.join("a/b/c"), "text").unwrap();
    for k in 0.. {
        let store = path.join(format!("store-{k}"));
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::victim", "--ignored", "--test-threads=1"])
            .env("OFFSHOOT_DIES_AT", k.to_string())
            .env("OFFSHOOT_STORE", &store)
            .env("OFFSHOOT_TREE", &tree)
            .output()
            .unwrap();
        match run.status.code() {
            Some(137) => survives(&store, &tree, k),
            Some(0) => {
                assert!(k > 40, "only {k} crash points were passed");
                println!("{k} crash points");
                return;
            }
            other => panic!("at {k}: {other:?}\n{}", String::from_utf8_lossy(&run.stdout)),
        }
        std::fs::remove_dir_all(&store).unwrap();
    }
}

fn survives(path: &Path, tree: &Path, k: i64) {
    let store = Store::open(path).unwrap();
    let report = store.check(false).unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "killed at {k}");
    // What was there is whole, and can be used and removed.
    for clone in store.clones().unwrap() {
        let mount = clone.mount(None).unwrap();
        let root = crate::dir::Dir::from_fd(mount, "clone".into());
        assert_eq!(listing(&root.magic_path().join(".")), listing(tree), "killed at {k}");
        drop(root);
        clone.delete().unwrap();
    }
    match store.image("small") {
        Ok(image) => {
            store.clone_for(&image, "again", &CloneOptions::default()).unwrap().delete().unwrap();
            store.remove_image(image.id().hex()).unwrap();
        }
        Err(error) => assert_eq!(error.kind(), Kind::NotFound),
    }
    for image in store.images().unwrap() {
        store.remove_image(image.id().hex()).unwrap();
    }
    store.sweep().unwrap();
    for place in ["layers", "images", "templates", "clones", "tmp"] {
        assert_eq!(listing(&path.join(place)), Vec::<String>::new(), "{place}, killed at {k}");
    }
}
