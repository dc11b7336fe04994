//! `clone`: root file systems that share with their image what they have not changed.

use std::path::Path;

use offshoot_snapshot::{CloneOptions, Name, RootClone, parse_size};
use serde_json::json;

use crate::call::Call;
use crate::columns::columns;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use crate::verbs::image::{Bar, FORMAT, STORE, export_format, failed, output, size, store};
use crate::verbs::network::home;

/// `offshoot clone`
pub static COMMAND: Command = Command::group(
    "clone",
    "grow root file systems from images",
    &[&CREATE, &LIST, &DIFF, &MOUNT, &SNAPSHOT, &ROLLBACK, &FORGET, &COMMIT, &EXPORT, &REMOVE],
);

static CREATE: Command =
    Command::new("create", "make clones of an image", create).takes("IMAGE NAME...", Count::AtLeast(2)).flags(&[
        STORE,
        Flag::text("driver", "storage driver: auto, overlay, btrfs, lvm-thin, reflink, zfs or dir").default("auto"),
        Flag::text("size", "the most that a clone may grow to, such as 2G").short("s"),
        Flag::switch("temporary", "remove them by prune after the next boot"),
    ]);

static LIST: Command = Command::new("list", "list the clones", list)
    .flags(&[STORE, Flag::text("format", "table or json").short("f").default("table")]);

static DIFF: Command =
    Command::new("diff", "list what a clone has changed", diff).takes("CLONE", Count::Exactly(1)).flags(&[STORE]);

static MOUNT: Command = Command::new("mount", "mount a clone on a directory", mount)
    .takes("CLONE DIRECTORY", Count::Exactly(2))
    .flags(&[STORE])
    .details("To prepare a template by hand; undo it by umount(8).");

static SNAPSHOT: Command = Command::new("snapshot", "remember a clone's state under a name", snapshot)
    .takes("CLONE SNAPSHOT", Count::Exactly(2))
    .flags(&[STORE]);

static ROLLBACK: Command = Command::new("rollback", "go back to a snapshot", rollback)
    .takes("CLONE SNAPSHOT", Count::Exactly(2))
    .flags(&[STORE])
    .details("What was written since is lost.");

static FORGET: Command =
    Command::new("forget", "delete a snapshot", forget).takes("CLONE SNAPSHOT", Count::Exactly(2)).flags(&[STORE]);

static COMMIT: Command = Command::new("commit", "make an image of a clone as it is now", commit)
    .takes("CLONE NAME...", Count::AtLeast(2))
    .flags(&[STORE]);

static EXPORT: Command = Command::new("export", "write a clone as a tarball or OCI archive", export)
    .takes("CLONE FILE", Count::Exactly(2))
    .flags(&[STORE, FORMAT])
    .details("FILE \"-\" is stdout.");

static REMOVE: Command = Command::new("rm", "delete clones with their snapshots", remove)
    .takes("CLONE...", Count::AtLeast(1))
    .flags(&[STORE]);

/// Does something with the clone that the first argument names, and the second argument.
fn with(call: &Call, work: fn(&mut RootClone, &str) -> offshoot_snapshot::Result<()>) -> Result<u8, Failure> {
    let store = store(call)?;
    let mut clone = store.find_clone(&call.arguments()[0]).map_err(failed)?;
    let second = call.arguments().get(1).map_or("", String::as_str);
    work(&mut clone, second).map_err(failed).map(|()| 0)
}

fn create(call: &Call) -> Result<u8, Failure> {
    let store = store(call)?;
    let image = store.image(&call.arguments()[0]).map_err(failed)?;
    let options = CloneOptions {
        driver: call.text("driver").unwrap_or("auto").parse().map_err(failed)?,
        keep: !call.on("temporary"),
        size: call.text("size").map(parse_size).transpose().map_err(failed)?,
    };
    for clone in store.clone_many(&image, &call.arguments()[1..], &options) {
        clone.map_err(failed)?;
    }
    Ok(0)
}

fn list(call: &Call) -> Result<u8, Failure> {
    let store = store(call)?;
    let clones = store.clones().map_err(failed)?;
    let snapshots = |clone: &RootClone| clone.snapshots().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    match call.text("format") {
        Some("table") => {
            let head = ["NAME", "IMAGE", "DRIVER", "CREATED", "SNAPSHOTS"].map(String::from);
            let rows = clones.iter().map(|clone| {
                let (driver, snapshots) = (clone.driver().to_string(), snapshots(clone).join(" "));
                [clone.name(), clone.image_name(), &driver, clone.created(), &snapshots].map(String::from)
            });
            print(columns(std::iter::once(head).chain(rows)))?;
        }
        Some("json") => {
            let one = |clone: &RootClone| {
                json!({
                    "name": clone.name(),
                    "image": clone.image().to_string(),
                    "imageName": clone.image_name(),
                    "driver": clone.driver().as_str(),
                    "created": clone.created(),
                    "keep": clone.keep(),
                    "size": clone.size_limit(),
                    "snapshots": snapshots(clone),
                })
            };
            print(format!("{}\n", json!(clones.iter().map(one).collect::<Vec<_>>())))?;
        }
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

fn diff(call: &Call) -> Result<u8, Failure> {
    let changes = store(call)?.find_clone(&call.arguments()[0]).and_then(|clone| clone.diff()).map_err(failed)?;
    let lines = changes.iter().map(|change| format!("{} /{}\n", change.kind.letter(), change.path.display()));
    print(lines.collect::<String>()).map(|()| 0)
}

fn mount(call: &Call) -> Result<u8, Failure> {
    with(call, |clone, directory| clone.mount_on(Path::new(directory)))
}

fn snapshot(call: &Call) -> Result<u8, Failure> {
    with(call, |clone, name| clone.snapshot(name))
}

/// Fails for the file system of a machine, which has a verb of its own for that.
fn not_of_a_machine(call: &Call, names: &[String], verb: &str) -> Result<(), Failure> {
    let home = home(call);
    match names.iter().find(|name| home.machine(name).exists()) {
        None => Ok(()),
        Some(name) => Err(Failure::new(format!("clone {name:?} is the file system of machine {name:?}"))
            .hint(format_args!("offshoot machine {verb} {name}"))),
    }
}

fn rollback(call: &Call) -> Result<u8, Failure> {
    not_of_a_machine(call, &call.arguments()[..1], "rollback")?;
    with(call, |clone, name| clone.rollback(name))
}

fn forget(call: &Call) -> Result<u8, Failure> {
    with(call, |clone, name| clone.delete_snapshot(name))
}

fn commit(call: &Call) -> Result<u8, Failure> {
    let store = store(call)?;
    let clone = store.find_clone(&call.arguments()[0]).map_err(failed)?;
    let names: Result<Vec<_>, _> = call.arguments()[1..].iter().map(|name| Name::parse(name)).collect();
    let bar = Bar::new("committing", false);
    let image = store.commit(&clone, &names.map_err(failed)?, &mut |progress| bar.at(progress)).map_err(failed)?;
    drop(bar);
    print(format!("{}  {}  {}\n", image.id().short(), size(image.bytes()), image.shown())).map(|()| 0)
}

fn export(call: &Call) -> Result<u8, Failure> {
    let (store, format) = (store(call)?, export_format(call)?);
    let clone = store.find_clone(&call.arguments()[0]).map_err(failed)?;
    store.export_clone(&clone, format, output(&call.arguments()[1])?).map_err(failed).map(|()| 0)
}

fn remove(call: &Call) -> Result<u8, Failure> {
    not_of_a_machine(call, call.arguments(), "rm")?;
    store(call)?.delete_clones(call.arguments()).map_err(failed).map(|()| 0)
}
