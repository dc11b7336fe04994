//! The root of a system container, with all rights in its user namespace, against what is not its own.

#![forbid(unsafe_code)]

#[path = "../place/mod.rs"]
mod place;

mod mounts;

use offshoot_sys::libc;
use place::Place;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A bundle of a system container, with the host's programs.
fn system(name: &str) -> Option<Place> {
    if !Path::new("/usr/bin/perl").exists() {
        println!("skipped: no perl, which makes the guest's system calls");
        return None;
    }
    let place = Place::new(name, &[])?;
    place.edit(|config| {
        config["annotations"] = json!({"org.offshoot.system": "true"});
        config["root"]["readonly"] = false.into();
        config["linux"]["cgroupsPath"] = format!("/{}", place.id).into();
    });
    Some(place)
}

/// Adds a mount to a configuration.
fn mount(config: &mut Value, destination: &str, source: &Path, options: &[&str]) {
    let mount = json!({"destination": destination, "type": "none", "source": source, "options": options});
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Numbers of system calls, and a function that makes one and says with which error it ended; 0 is none.
fn prelude() -> String {
    let calls = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("pivot_root", libc::SYS_pivot_root),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
    ];
    let calls: Vec<String> = calls.iter().map(|(name, number)| format!("{name} => {number}")).collect();
    let own = "sub call { my ($name, @args) = @_; $! = 0; my $got = syscall($call{$name}, @args); $result = $got; $got == -1 ? $! + 0 : 0 }\n\
        sub within { my $code = shift; my $pid = fork; if (!$pid) { call('unshare', 0x20000) == 0 or exit 250; exit $code->() } \
        waitpid $pid, 0; $? & 127 ? 251 : $? >> 8 }\n";
    format!("use strict; our ($result, %call); %call = ({});\n{own}", calls.join(", "))
}

/// What a program in Perl prints in the container, as its root.
fn perl(place: &Place, change: impl FnOnce(&mut Value), program: &str) -> String {
    fs::write(place.dir.join("rootfs/program"), prelude() + program).unwrap();
    place.prints(change, "exec perl /program")
}
