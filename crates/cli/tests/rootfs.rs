//! Containers on clones: a bundle names an image by the annotation `org.offshoot.rootfs` instead of holding a root
//! filesystem. By each storage driver that this machine has a file system for.
//!
//! Needs root and a static busybox.

#![forbid(unsafe_code)]

mod place;

use offshoot_sys::{libc, loopdev::LoopDevice, mount};
use place::Place;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const FIRST: u32 = 100_000;
const SECOND: u32 = 500_000;

/// A store with the image `box`, and a bundle that names it.
struct Grove {
    place: Place,
    /// The file system of the store, where it has one of its own; unmounted with it.
    disk: Option<PathBuf>,
}

impl Grove {
    /// `None`, with a word why, where it cannot be.
    fn new(name: &str, script: &str) -> Option<Grove> {
        let place = Place::new(name, &["/bin/sh", "-c", script])?;
        Grove::on(place, None)
    }

    fn on(mut place: Place, disk: Option<PathBuf>) -> Option<Grove> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        let Some(busybox) = busybox else {
            println!("skipped: no busybox");
            return None;
        };
        let tree = place.dir.join("tree");
        for dir in ["bin", "etc", "dev", "proc", "sys", "var"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
        }
        fs::copy(busybox, tree.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "stat", "sleep", "mkdir", "chown", "rm", "grep", "init", "ln", "cp"] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        fs::write(tree.join("etc/issue"), "from the image\n").unwrap();
        std::os::unix::fs::chown(tree.join("var"), Some(7), Some(8)).unwrap();
        place.store = Some(disk.clone().unwrap_or_else(|| place.dir.clone()).join("store"));
        place.edit(|config| {
            config.as_object_mut().unwrap().remove("root");
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_CHOWN".into());
            }
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["options"][0] != "rbind");
        });
        let grove = Grove { place, disk };
        grove.ask("image=box");
        let made = grove.place.command(&["image", "import", "-q", "tree", "box"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(grove)
    }

    /// On file systems of its own as well: the driver that is native to each. They are mounted in a mount namespace of
    /// the test's thread.
    fn all(name: &str, script: &str) -> Vec<(String, Grove)> {
        let mut groves: Vec<_> =
            Grove::new(name, script).map(|grove| ("overlay".to_owned(), grove)).into_iter().collect();
        if groves.is_empty() {
            return groves;
        }
        offshoot_sys::process::unshare(libc::CLONE_NEWNS).unwrap();
        // Shared, as systemd makes a host's mounts; with nobody but this namespace.
        for propagation in [libc::MS_PRIVATE, libc::MS_SHARED] {
            mount::mount_legacy(None, "/", None, libc::MS_REC | propagation, None).unwrap();
        }
        for (kind, driver) in [("tmpfs", "overlay"), ("btrfs", "btrfs"), ("xfs", "reflink"), ("ext4", "dir")] {
            let Some(place) = Place::new(&format!("{name}-{kind}"), &["/bin/sh", "-c", script]) else { continue };
            let Some(disk) = file_system(&place.dir, kind) else { continue };
            groves.extend(Grove::on(place, Some(disk)).map(|grove| (driver.to_owned(), grove)));
        }
        groves
    }

    fn ask(&self, annotation: &str) {
        self.place.edit(|config| config["annotations"]["org.offshoot.rootfs"] = annotation.into());
    }

    /// Gives the container a user namespace with ids from `first` on.
    fn map(&self, first: u32) {
        self.place.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "user");
            namespaces.push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        });
    }

    fn script(&self, script: &str) {
        self.place.edit(|config| config["process"]["args"][2] = script.into());
    }

    /// What the container says.
    fn run(&self) -> String {
        let output = self.place.output(&["run"], &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn store(&self) -> &Path {
        self.place.store.as_deref().unwrap()
    }

    fn clones(&self) -> Vec<String> {
        let output = self.place.command(&["clone", "list", "-f", "json"]).output().unwrap();
        let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        list.iter().map(|clone| clone["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Nothing of the container, of its clone, or of the making of either.
    fn assert_nothing_left(&self, when: &str) {
        self.place.assert_nothing_left();
        assert_eq!(self.clones(), Vec::<String>::new(), "{when}");
        assert_eq!(fs::read_dir(self.store().join("tmp")).unwrap().count(), 0, "{when}");
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let of_store = format!("{}/", self.store().display());
        assert!(!mounts.contains(&of_store), "{when}");
    }
}

impl Drop for Grove {
    fn drop(&mut self) {
        let _ = self.place.on(&["delete", "--force"], &[]);
        if let Some(disk) = &self.disk {
            let _ = mount::umount(disk, libc::MNT_DETACH);
        }
    }
}

/// A fresh file system, mounted below the directory; `None`, with a word why, where it cannot be made.
fn file_system(dir: &Path, kind: &str) -> Option<PathBuf> {
    let context = mount::FsContext::open(kind).ok()?;
    if kind != "tmpfs" {
        let image = dir.join("disk");
        fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output();
        if !made.is_ok_and(|output| output.status.success()) {
            println!("skipped: no mkfs.{kind}");
            return None;
        }
        let backing = fs::File::options().read(true).write(true).open(&image).unwrap();
        let device = LoopDevice::attach(&backing, false).unwrap();
        context.string("source", device.path()).unwrap();
        context.create().unwrap();
        return Some(attach(&context, dir));
    }
    context.create().unwrap();
    Some(attach(&context, dir))
}

fn attach(context: &mount::FsContext, dir: &Path) -> PathBuf {
    let at = dir.join("fs");
    fs::create_dir(&at).unwrap();
    mount::move_mount_to(context.mount(0).unwrap(), None, &at).unwrap();
    at
}

#[test]
fn a_clone_is_the_root_and_goes_with_the_container() {
    let script = "cat /etc/issue; echo changed > /etc/issue; mkdir /new; stat -c %u:%g / /etc/issue /new /var";
    for (driver, grove) in Grove::all("clone", script) {
        grove.ask(&format!("image=box,driver={driver}"));
        for _ in 0..2 {
            assert_eq!(grove.run(), "from the image\n0:0\n0:0\n0:0\n7:8\n", "{driver}");
            grove.assert_nothing_left(&driver);
        }
        grove.map(FIRST);
        for _ in 0..2 {
            assert_eq!(grove.run(), "from the image\n0:0\n0:0\n0:0\n7:8\n", "{driver}");
            grove.assert_nothing_left(&driver);
        }
    }
}

#[test]
fn a_kept_clone_is_the_next_container_s_whatever_its_ids() {
    let script = "echo kept > /etc/issue; mkdir /own; chown 5:6 /own";
    for (driver, grove) in Grove::all("kept", script) {
        let id = &grove.place.id;
        grove.ask(&format!("image=box,driver={driver},keep=true"));
        grove.map(FIRST);
        grove.run();
        grove.place.assert_nothing_left();
        assert_eq!(&grove.clones(), std::slice::from_ref(id), "{driver}");
        // Unshifted on disk: what the container's root made is root's, and nothing was chowned.
        if driver == "overlay" || driver == "btrfs" {
            let upper = grove.store().join("clones").join(id).join("r1");
            let owner = |path: &str| fs::metadata(upper.join(path)).map(|meta| (meta.uid(), meta.gid())).unwrap();
            assert_eq!((owner("etc/issue"), owner("own"), owner("")), ((0, 0), (5, 6), (0, 0)), "{driver}");
        }
        grove.script("cat /etc/issue; stat -c %u:%g /etc/issue /own /var; cat /proc/self/uid_map; echo more > /more");
        grove.map(SECOND);
        let said = grove.run();
        assert!(said.starts_with("kept\n0:0\n5:6\n7:8\n") && said.contains("500000"), "{driver}: {said}");
        let diff = grove.place.command(&["clone", "diff", id]).output().unwrap();
        let diff = String::from_utf8(diff.stdout).unwrap();
        assert!(diff.contains("A /more") && diff.contains("/etc/issue") && !diff.contains("/var"), "{driver}: {diff}");
        // Another image is another clone.
        assert!(grove.place.command(&["image", "import", "-q", "rootfs", "other"]).status().unwrap().success());
        grove.ask("image=other,keep=true");
        let (status, errors) = grove.place.on(&["run"], &[]);
        assert!(status == 1 && errors.contains("is of image box:latest, not other"), "{errors}");
        assert!(errors.contains(&format!("hint: offshoot clone rm {id}")), "{errors}");
        assert!(grove.place.command(&["clone", "rm", id]).status().unwrap().success());
        grove.assert_nothing_left(&driver);
    }
}

#[test]
fn a_container_enters_the_user_namespace_of_another() {
    let Some(grove) = Grove::new("clone-join", "stat -c %u:%g / /var; cat /proc/self/uid_map") else { return };
    let ns = offshoot_sys::userns::mapped("0 300000 65536\n", "0 400000 65536\n").unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&ns));
    grove.place.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user", "path": path}));
    });
    let said = grove.run();
    assert!(said.starts_with("0:0\n7:8\n") && said.contains("300000"), "{said}");
    grove.assert_nothing_left("joined");
    // One without root.
    let ns = offshoot_sys::userns::mapped("1 300000 10\n", "1 400000 10\n").unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&ns));
    grove.place.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().last_mut().unwrap()["path"] = path.into();
    });
    let (status, errors) = grove.place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("maps no id 0"), "{errors}");
    grove.assert_nothing_left("joined without root");
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_leaves_nothing() {
    let Some(grove) = Grove::new("clone-wrong", "true") else { return };
    for (annotation, says) in [
        ("image=none", "annotations[\\\"org.offshoot.rootfs\\\"]: there is no image"),
        ("image=none", "hint: offshoot image list"),
        ("keep=x,driver=floppy", "names no image"),
        ("keep=x,driver=floppy", "neither true nor false"),
        ("keep=x,driver=floppy", "no storage driver"),
        ("image=box,driver=btrfs", "is not on btrfs"),
        ("image=box,driver=overlay,size=1G", "cannot limit a clone's size"),
    ] {
        grove.ask(annotation);
        grove.place.edit(|config| config["process"]["cwd"] = "x".into());
        let (status, errors) = grove.place.on(&["create"], &[]);
        assert!(status == 1 && errors.contains(says) && errors.contains("Cwd must be"), "{annotation}: {errors}");
        grove.assert_nothing_left(annotation);
    }
    grove.ask("image=box");
    grove.place.edit(|config| {
        config["process"]["cwd"] = "/".into();
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
        config["linux"].as_object_mut().unwrap().remove("maskedPaths");
        config["linux"].as_object_mut().unwrap().remove("readonlyPaths");
    });
    let (status, errors) = grove.place.on(&["create"], &[]);
    assert!(status == 1 && errors.contains("needs a mount namespace"), "{errors}");
    // A store that is not there is not made.
    let missing = grove.place.dir.join("missing");
    let (status, errors) = grove.place.on(&["create", "--store", missing.to_str().unwrap()], &[]);
    assert!(status == 1 && errors.contains("nor a store in") && !missing.exists(), "{errors}");
    grove.assert_nothing_left("wrong");
}

#[test]
fn a_plan_shows_the_clone_and_makes_none() {
    let Some(grove) = Grove::new("clone-plan", "true") else { return };
    let output = grove.place.command(&["plan"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("host      clone the image box:latest (driver auto, removed by delete)"), "{text}");
    grove.assert_nothing_left("plan");
    grove.ask("image=none");
    let output = grove.place.command(&["plan"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no image"), "{output:?}");
}

#[test]
fn an_init_is_found_in_the_image_or_in_the_kept_clone() {
    for (driver, grove) in Grove::all("clone-init", "rm /bin/init") {
        let (place, id) = (&grove.place, &grove.place.id);
        let ask = |wanted: &str, program: &[&str]| {
            place.edit(|config| {
                config["annotations"]["org.offshoot.system"] = wanted.into();
                config["process"]["args"] = program.into();
            });
        };
        let made = |place: &Place| {
            place.ok(&["create"], &[]);
            let state = fs::read(place.dir.join("root").join(id).join("state.json")).unwrap();
            let state: Value = serde_json::from_slice(&state).unwrap();
            let refused = place.on(&["checkpoint"], &[]).1;
            place.ok(&["delete", "--force"], &[]);
            (state["is_system"].as_bool().unwrap(), state["init"].as_str().map(str::to_owned), refused)
        };
        grove.ask(&format!("image=box,driver={driver},keep=true"));
        ask("auto", &["/bin/init"]);
        let (is_system, init, refused) = made(place);
        assert_eq!((is_system, init.as_deref()), (true, Some("busybox")), "{driver}");
        assert!(refused.contains("is a system container: CRIU can neither dump nor restore it"), "{refused}");
        let (status, errors) = place.on(&["restore"], &[]);
        assert!(status == 1 && errors.contains("CRIU can neither"), "{errors}");
        ask("false", &["/bin/sh", "-c", "rm /bin/init; cp /bin/busybox /bin/own; ln -s own /bin/init"]);
        grove.run();
        ask("auto", &["/bin/init"]);
        assert!(!made(place).0, "{driver}: the clone has another init by now");
        assert!(place.command(&["clone", "rm", id]).status().unwrap().success());
        grove.assert_nothing_left(&driver);
    }
}

#[test]
fn verbs_that_only_look_do_not_need_the_store() {
    let Some(grove) = Grove::new("clone-look", "sleep 100") else { return };
    grove.place.ok(&["create"], &[]);
    grove.place.ok(&["start"], &[]);
    let aside = grove.place.dir.join("aside");
    fs::rename(grove.store(), &aside).unwrap();
    assert_eq!(grove.place.status(), "running");
    grove.place.ok(&["exec"], &["/bin/cat", "/etc/issue"]);
    grove.place.ok(&["kill"], &["KILL"]);
    grove.place.wait_for("stopped");
    fs::rename(&aside, grove.store()).unwrap();
    assert_eq!(grove.clones().len(), 1);
    grove.place.ok(&["delete"], &[]);
    grove.assert_nothing_left("look");
}

#[test]
fn nothing_is_left_of_a_runtime_that_was_killed() {
    let Some(grove) = Grove::new("clone-killed", "sleep 100") else { return };
    grove.map(FIRST);
    for step in 0..60u64 {
        let mut creator = grove.place.start_in_background(&["create", &grove.place.id]);
        sleep(Duration::from_micros(step * 400));
        let _ = creator.kill();
        creator.wait().unwrap();
        grove.place.ok(&["delete", "--force"], &[]);
        grove.assert_nothing_left(&format!("{step}"));
    }
}

#[test]
fn a_failure_at_any_step_leaves_no_clone() {
    let Some(grove) = Grove::new("clone-fail", "true") else { return };
    grove.map(FIRST);
    for keep in [false, true] {
        grove.ask(&format!("image=box,keep={keep}"));
        let mut failed = 0;
        for side in ["clone", "host", "stage"] {
            for index in 0.. {
                let point = format!("{side}:{index}");
                let Some(mut command) = grove.place.failing(&point, &["run", &grove.place.id]) else { return };
                let output = command.output().unwrap();
                let text = String::from_utf8_lossy(&output.stderr);
                if !text.contains("failed on purpose") {
                    assert!(output.status.success(), "{point}: {text}");
                    if keep {
                        assert_eq!(grove.clones().len(), 1);
                        assert!(grove.place.command(&["clone", "rm", &grove.place.id]).status().unwrap().success());
                    }
                    grove.assert_nothing_left(&point);
                    break;
                }
                // After `start` a kept clone is the container's: its program may have run.
                let started = text.contains("after start") || output.status.code() == Some(255);
                if !(keep && started) {
                    grove.assert_nothing_left(&point);
                } else {
                    let _ = grove.place.command(&["clone", "rm", &grove.place.id]).status();
                }
                failed += 1;
            }
        }
        assert!(failed > 40, "only {failed} steps could fail");
    }
}

#[test]
fn one_of_many_creators_wins_and_makes_the_only_clone() {
    for keep in [false, true] {
        let Some(grove) = Grove::new(&format!("clone-creators-{keep}"), "sleep 100") else { return };
        grove.ask(&format!("image=box,keep={keep}"));
        let create = |_| grove.place.start_in_background(&["create", &grove.place.id]);
        let children: Vec<_> = (0..8).map(create).collect();
        let won =
            children.into_iter().filter_map(|mut child| child.wait().ok()).filter(|status| status.success()).count();
        assert_eq!((won, grove.clones().len()), (1, 1));
        grove.place.ok(&["delete", "--force"], &[]);
        assert_eq!(grove.clones().len(), usize::from(keep));
    }
}

#[test]
fn a_kept_clone_has_one_container_at_a_time() {
    let Some(grove) = Grove::new("clone-twice", "sleep 100") else { return };
    grove.ask("image=box,driver=overlay,keep=true");
    grove.place.ok(&["create"], &[]);
    let other = grove.place.dir.join("other-root");
    let mut command = grove.place.command(&["create", &grove.place.id]);
    // The last --root counts.
    let second = command.output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("already exists"), "{second:?}");
    let program = place::program();
    let second = Command::new(program)
        .arg("--root")
        .arg(&other)
        .args(["create", &grove.place.id])
        .current_dir(&grove.place.dir)
        .env("OFFSHOOT_STORE", grove.store())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && errors.contains("it is mounted") && errors.contains("hint: stop"), "{errors}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    assert_eq!(grove.clones().len(), 1);
    grove.place.ok(&["delete", "--force"], &[]);
}

/// Packs the tree as `docker save` does, with this configuration.
fn docker_archive(dir: &Path, config: Value) -> PathBuf {
    let script = r#"
        set -e; cd "$0"; mkdir -p docker; tar -C tree -cf docker/layer.tar .
        digest=$(sha256sum docker/layer.tar | cut -d" " -f1)
        printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
            "$2" "$1" "$digest" > docker/config.json
        printf '[{"Config":"config.json","RepoTags":["app:1"],"Layers":["layer.tar"]}]' > docker/manifest.json
        tar -C docker -cf app.tar manifest.json config.json layer.tar
    "#;
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let made = Command::new("bash").args(["-c", script]).arg(dir).arg(config.to_string()).arg(machine).status();
    assert!(made.unwrap().success());
    dir.join("app.tar")
}

#[test]
fn an_image_runs_without_a_bundle() {
    let Some(grove) = Grove::new("clone-image", "true") else { return };
    let tree = grove.place.dir.join("tree");
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "users:x:100:\naudio:x:29:ann\n").unwrap();
    let config = json!({
        "User": "ann", "Env": ["PATH=/bin", "GREETING=hello"], "WorkingDir": "/var",
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $GREETING $PWD $HOME; grep -E ^Groups /proc/self/status"],
    });
    let archive = docker_archive(&grove.place.dir, config);
    assert!(grove.place.command(&["image", "import", "-q"]).arg(archive).status().unwrap().success());
    let id = grove.place.id.as_str();
    let run = |words: &[&str]| {
        let output = grove.place.command(&[&["run"], words].concat()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code().unwrap(), text)
    };
    assert_eq!(run(&["--image", "app:1", id]), (0, "hello /var /home/ann\nGroups:\t29 \n".into()));
    assert_eq!(run(&["--image", "app:1", id, "exit 7"]).0, 7);
    assert_eq!(run(&["--image", "box", id, "/bin/stat", "-c", "%u:%g", "/var"]), (0, "7:8\n".into()));
    let (_, said) = run(&["--image", "box", id, "/bin/grep", "-c", ":", "/proc/net/dev"]);
    assert_eq!(said, "1\n", "more than lo");
    grove.assert_nothing_left("image");
    // Kept, and found again.
    let keep = ["--image", "box", "--keep-clone", id, "/bin/sh", "-c"];
    assert_eq!(run(&[&keep[..], &["echo mine > /etc/issue"]].concat()).0, 0);
    assert_eq!(run(&[&keep[..], &["cat /etc/issue"]].concat()), (0, "mine\n".into()));
    assert!(grove.place.command(&["clone", "rm", id]).status().unwrap().success());
    // Step by step.
    grove.place.ok(&["create", "--image", "box"], &["/bin/sleep", "100"]);
    grove.place.ok(&["start"], &[]);
    grove.place.ok(&["exec"], &["/bin/cat", "/etc/issue"]);
    grove.place.ok(&["delete", "--force"], &[]);
    for (words, says) in [
        (vec!["--image", "box", "-b", ".", id], "an image and a bundle are given"),
        (vec!["--image", "none", id], "hint: offshoot image list"),
        (vec!["--image", "box", "--driver", "floppy", id], "no storage driver"),
        (vec!["--image", "box", "--size", "1G", "--driver", "overlay", id], "cannot limit"),
        (vec!["--driver", "overlay", id], "--driver is for a container of an image"),
        (vec![id, "/bin/true"], "run\\\" requires exactly 1 argument"),
    ] {
        let (status, said) = run(&words);
        assert!(status == 1 && said.contains(says), "{words:?}: {said}");
        grove.assert_nothing_left(says);
    }
}

#[test]
fn a_user_runs_a_clone_of_the_user_s_own_store() {
    use std::os::unix::process::CommandExt;
    let Some(grove) = Grove::new("clone-user", "true") else { return };
    if !["newuidmap", "newgidmap"].iter().all(|tool| Path::new("/usr/bin").join(tool).exists()) {
        println!("skipped: no newuidmap (package uidmap)");
        return;
    }
    const NOBODY: u32 = 65534;
    offshoot_sys::process::unshare(libc::CLONE_NEWNS).unwrap();
    mount::mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
    for name in ["subuid", "subgid"] {
        let (own, etc) = (grove.place.dir.join(name), Path::new("/etc").join(name));
        if !etc.exists() {
            println!("skipped: no {}", etc.display());
            return;
        }
        fs::write(&own, format!("{NOBODY}:700000:65536\n")).unwrap();
        mount::mount_legacy(Some(&own), &etc, None, libc::MS_BIND, None).unwrap();
    }
    let home = grove.place.dir.join("home");
    fs::create_dir_all(home.join("run")).unwrap();
    let program = home.join("offshoot");
    fs::copy(place::program(), &program).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(grove.place.dir.join("tree")).arg("-cf").arg(home.join("box.tar")).arg(".");
    assert!(tar.status().unwrap().success());
    for path in [&home, &home.join("run"), &home.join("box.tar"), &program] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let user = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(&home).env_clear().uid(NOBODY).gid(NOBODY);
        command.env("HOME", &home).env("XDG_DATA_HOME", home.join("data")).env("XDG_RUNTIME_DIR", home.join("run"));
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code().unwrap(), text)
    };
    let (status, said) = user(&["image", "import", "-q", "box.tar", "box"]);
    assert_eq!(status, 0, "{said}");
    let script = "echo mine > /etc/issue; stat -c %u:%g / /var /etc/issue; cat /proc/self/uid_map";
    let (status, said) = user(&["run", "--image", "box", "x", "/bin/sh", "-c", script]);
    assert!(status == 0 && said.starts_with("0:0\n7:8\n0:0\n") && said.contains("700000"), "{said}");
    let (_, said) = user(&["run", "--image", "box", "x", "/bin/cat", "/etc/issue"]);
    assert_eq!(said, "from the image\n");
    assert_eq!(user(&["clone", "list", "-f", "json"]).1, "[]\n");
    // What would be out of reach later is not begun.
    let (status, said) = user(&["run", "-d", "--image", "box", "x", "/bin/true"]);
    assert!(status == 1 && said.contains("mounted by root") && said.contains("hint: "), "{said}");
}

#[test]
fn a_full_store_makes_no_container() {
    let Some(place) = Place::new("clone-full", &["/bin/sh", "-c", "true"]) else { return };
    offshoot_sys::process::unshare(libc::CLONE_NEWNS).unwrap();
    mount::mount_legacy(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
    let context = mount::FsContext::open("tmpfs").unwrap();
    context.string("nr_inodes", "100").unwrap();
    context.create().unwrap();
    let disk = attach(&context, &place.dir);
    let Some(grove) = Grove::on(place, Some(disk.clone())) else { return };
    let fill = |at: usize| fs::write(disk.join(format!("fill{at}")), "");
    let full = (0..200).find_map(|at| fill(at).err()).unwrap();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    let (status, errors) = grove.place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("no space left on device"), "{errors}");
    assert!(errors.contains("hint: free some space") && errors.contains("offshoot image prune"), "{errors}");
    grove.assert_nothing_left("full");
    for at in 0..200 {
        let _ = fs::remove_file(disk.join(format!("fill{at}")));
    }
    grove.run();
    grove.assert_nothing_left("no longer full");
}

#[test]
fn a_container_on_a_kept_clone_is_dumped_and_restored() {
    let script = "i=0; while :; do i=$((i + 1)); echo $i > /count; sleep 0.1; done";
    let Some(grove) = Grove::new("clone-criu", script) else { return };
    if !Command::new("criu").arg("check").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no criu that works with this kernel");
        return;
    }
    let images = grove.place.dir.join("images");
    let images = ["--image-path", images.to_str().unwrap()];
    let count = || -> u32 {
        let output = grove.place.output(&["exec"], &["/bin/cat", "/count"]);
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    };
    // CRIU can dump no open file of the host's.
    let run = || assert!(grove.place.start_in_background(&["run", "-d", &grove.place.id]).wait().unwrap().success());
    // One that would be gone with its clone is not dumped.
    run();
    let (status, errors) = grove.place.on(&[&["checkpoint"], &images[..]].concat(), &[]);
    assert!(status == 1 && errors.contains("a clone that goes with it") && errors.contains("keep=true"), "{errors}");
    assert_eq!(grove.place.status(), "running");
    grove.place.ok(&["delete", "--force"], &[]);
    grove.ask("image=box,keep=true");
    run();
    while count() < 5 {
        sleep(Duration::from_millis(20));
    }
    grove.place.ok(&[&["checkpoint"], &images[..]].concat(), &[]);
    grove.place.assert_nothing_left();
    assert_eq!(grove.clones().len(), 1);
    grove.place.ok(&[&["restore", "-d"], &images[..]].concat(), &[]);
    assert_eq!(grove.place.status(), "running");
    let after = count();
    assert!(after >= 5, "{after}");
    grove.place.ok(&["delete", "--force"], &[]);
    assert!(grove.place.command(&["clone", "rm", &grove.place.id]).status().unwrap().success());
    grove.assert_nothing_left("restored");
}
