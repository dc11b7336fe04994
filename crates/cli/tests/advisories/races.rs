//! Attacks that change the root filesystem while the runtime works in it: another container shares a volume and swaps
//! a directory for a link as fast as it can. A race is tried a number of times that takes about a second; whatever
//! comes of one try, nothing outside may change.

use crate::place::{self, Place};
use crate::{assert_empty, outside, text};
use offshoot_sys::{libc, path};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};

const TRIES: usize = 25;

/// Exchanges two names without a pause until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn new(one: PathBuf, other: PathBuf) -> Swapper {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let thread = spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                path::renameat2(None, &one, None, &other, libc::RENAME_EXCHANGE).unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Swapper { stop, count, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let swapped = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || swapped.is_ok() && self.count.load(Ordering::Relaxed) > 0);
    }
}

/// Runs the container again and again; how often it came up, and what it printed then.
fn tries(place: &Place) -> Vec<String> {
    let mut printed = Vec::new();
    for _ in 0..TRIES {
        let output = place.output(&["run"], &[]);
        place.assert_nothing_left();
        if output.status.success() {
            printed.push(String::from_utf8_lossy(&output.stdout).into_owned());
        } else {
            assert!(!text(&output).contains("panicked"), "{}", text(&output));
        }
    }
    println!("{} of {TRIES} came up", printed.len());
    printed
}

/// CVE-2021-30465, CVE-2024-45310: a mount point's parent in a shared volume.
#[test]
fn a_mount_point_that_becomes_a_link() {
    let Some(place) = Place::new("race-mount", &["/bin/stat", "-fc", "%T", "/vol/a/made/deep"]) else { return };
    let outside = outside(&place);
    let volume = place.dir.join("volume");
    fs::create_dir_all(volume.join("a")).unwrap();
    symlink(&outside, volume.join("evil")).unwrap();
    place.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/vol", "type": "none", "source": volume, "options": ["bind"]}));
        for name in ["/vol/a/made/deep", "/vol/a/two"] {
            mounts.push(json!({"destination": name, "type": "tmpfs", "source": "tmpfs"}));
        }
        mounts.push(
            json!({"destination": "/vol/a/file", "type": "none", "source": "/etc/hostname", "options": ["bind"]}),
        );
    });
    let swapper = Swapper::new(volume.join("a"), volume.join("evil"));
    tries(&place);
    drop(swapper);
    assert_empty(&outside);
}

/// CVE-2025-31133: `/dev/null` of a shared volume, which is bound over masked files.
#[test]
fn a_null_device_that_becomes_a_link() {
    let Some(place) = Place::new("race-null", &["/bin/stat", "-Lc", "%t:%T", "/key"]) else { return };
    let dev = place.dir.join("dev");
    fs::create_dir(&dev).unwrap();
    let made = Command::new("mknod").arg("-m666").arg(dev.join("null")).args(["c", "1", "3"]).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: no device can be made here");
        return;
    }
    fs::write(place.dir.join("rootfs/key"), "key").unwrap();
    fs::write(place.dir.join("rootfs/other"), "other").unwrap();
    symlink("/other", dev.join("evil")).unwrap();
    place.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(json!({"destination": "/dev", "type": "none", "source": dev, "options": ["bind"]}));
        config["linux"]["maskedPaths"] = json!(["/key"]);
        // Without /dev/pts and the others nothing else is needed of it.
        config["process"]["terminal"] = false.into();
    });
    let swapper = Swapper::new(dev.join("null"), dev.join("evil"));
    let printed = tries(&place);
    drop(swapper);
    for mask in printed {
        assert_eq!(mask, "1:3\n");
    }
    assert_eq!(fs::read(place.dir.join("rootfs/other")).unwrap(), b"other");
}

/// CVE-2023-27561, CVE-2025-52881: `/proc` changes places with a link while labels, parameters and masks are written.
#[test]
fn a_procfs_that_becomes_a_link() {
    let Some(place) = Place::new("race-proc", &["/bin/cat", "/proc/sys/net/ipv4/ip_forward"]) else { return };
    let outside = outside(&place);
    fs::create_dir_all(outside.join("sys/net/ipv4")).unwrap();
    fs::write(outside.join("sys/net/ipv4/ip_forward"), "untouched").unwrap();
    let rootfs = place.dir.join("rootfs");
    fs::create_dir(rootfs.join("proc")).unwrap();
    symlink(&outside, rootfs.join("evil")).unwrap();
    place.edit(|config| config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"}));
    let swapper = Swapper::new(rootfs.join("proc"), rootfs.join("evil"));
    let printed = tries(&place);
    drop(swapper);
    assert!(printed.iter().all(|value| value == "1\n"), "{printed:?}");
    assert_eq!(fs::read(outside.join("sys/net/ipv4/ip_forward")).unwrap(), b"untouched");
}

/// CVE-2026-41579, CVE-2026-47766: the whole of `/dev`.
#[test]
fn a_dev_that_becomes_a_link() {
    let Some(place) = Place::new("race-dev", &["/bin/true"]) else { return };
    let outside = outside(&place);
    let rootfs = place.dir.join("rootfs");
    fs::create_dir(rootfs.join("dev")).unwrap();
    symlink(&outside, rootfs.join("evil")).unwrap();
    place.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        config["linux"]["devices"] = json!([{"path": "/dev/x/y", "type": "p"}]);
    });
    let swapper = Swapper::new(rootfs.join("dev"), rootfs.join("evil"));
    tries(&place);
    drop(swapper);
    assert_empty(&outside);
}

/// CVE-2025-52565: `/dev/console` and the entries of `/dev/pts`, over which a terminal is bound.
#[test]
fn a_console_that_becomes_a_link() {
    let Some(place) = Place::new("race-console", &["/bin/stat", "-Lc", "%t", "/dev/console"]) else { return };
    let outside = outside(&place);
    fs::write(outside.join("file"), "untouched").unwrap();
    let dev = place.dir.join("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::write(dev.join("console"), "").unwrap();
    symlink(outside.join("file"), dev.join("evil")).unwrap();
    fs::write(place.dir.join("rootfs/key"), "key").unwrap();
    place.edit(|config| {
        config["process"]["terminal"] = true.into();
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(json!({"destination": "/dev", "type": "none", "source": dev, "options": ["bind"]}));
        mounts.push(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
        config["linux"]["maskedPaths"] = json!([]);
    });
    let run = format!("{} --root root run {}", place::program().display(), place.id);
    let swapper = Swapper::new(dev.join("console"), dev.join("evil"));
    for _ in 0..TRIES {
        let output = Command::new("script").args(["-qec", &run, "/dev/null"]).current_dir(&place.dir).output().unwrap();
        if output.status.success() {
            // 0x88 is 136: a pseudo-terminal.
            assert!(text(&output).contains("88\r\n"), "{}", text(&output));
        }
        place.assert_nothing_left();
    }
    drop(swapper);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
}

/// CVE-2025-52565: what calls itself devpts is a directory of the image.
#[test]
fn a_false_devpts_gives_no_terminal() {
    let Some(place) = Place::new("pts", &["/bin/true"]) else { return };
    let (dev, victim) = (place.dir.join("dev"), place.dir.join("victim"));
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::write(&victim, "untouched").unwrap();
    place.edit(|config| {
        config["process"]["terminal"] = true.into();
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(json!({"destination": "/dev", "type": "none", "source": dev, "options": ["bind"]}));
    });
    let run = format!("{} --root root run {}", place::program().display(), place.id);
    symlink(&victim, dev.join("pts/0")).unwrap();
    for name in ["nothing", "a file", "a link", "the host's multiplexer"] {
        let ptmx = dev.join("pts/ptmx");
        let _ = fs::remove_file(&ptmx);
        match name {
            "a file" => fs::write(&ptmx, "").unwrap(),
            "a link" => symlink(&victim, &ptmx).unwrap(),
            "the host's multiplexer" => symlink("/dev/ptmx", &ptmx).unwrap(),
            _ => {}
        }
        let output = Command::new("script").args(["-qec", &run, "/dev/null"]).current_dir(&place.dir).output().unwrap();
        assert!(!output.status.success() && text(&output).contains("ptmx"), "{name}: {}", text(&output));
        place.assert_nothing_left();
    }
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o170_000, 0o100_000);
}
