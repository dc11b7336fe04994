//! `root`, `mounts`, masked and read-only paths, devices, the console. spec: config.md#mounts, config-linux.md

use crate::place::{self, Broken, Place, Row};
use crate::tty::Terminal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::process::Command;

fn mount(config: &mut Value, destination: &str, kind: &str, source: &str, options: &[&str]) {
    let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Prints a mount's options, those of its superblock, and its propagation.
const SHOW: &str = "busybox awk '$5 == \"/m\" { split($0, a, \" - \"); n = split(a[1], b, \" \"); split(a[2], c, \" \"); \
    sub(/:[0-9]+/, \"\", b[7]); print b[6], c[3], b[7] }' /proc/self/mountinfo";

#[test]
fn options_of_a_new_file_system() {
    let Some(place) = Place::new("options", &[]) else { return };
    let mut wrong = Vec::new();
    for (options, expected) in [
        (&[][..], "rw,relatime rw"),
        (&["ro"], "ro,relatime rw"),
        (&["rw", "ro", "rw"], "rw,relatime rw"),
        (&["nosuid", "nodev", "noexec"], "rw,nosuid,nodev,noexec,relatime rw"),
        (&["nosuid", "suid", "nodev", "dev", "noexec", "exec"], "rw,relatime rw"),
        (&["noatime"], "rw,noatime rw"),
        (&["strictatime"], "rw rw"),
        (&["nodiratime", "noatime"], "rw,noatime,nodiratime rw"),
        (&["nosymfollow"], "rw,relatime,nosymfollow rw"),
        (&["sync", "dirsync"], "rw,relatime rw,sync,dirsync"),
        (&["size=64k", "mode=700", "nr_inodes=7"], "rw,relatime rw,size=64k,nr_inodes=7,mode=700"),
        (&["size=64k,mode=700"], "rw,relatime rw,size=64k,mode=700"),
        (&["shared"], "rw,relatime rw shared"),
        (&["private"], "rw,relatime rw"),
        (&["unbindable"], "rw,relatime rw unbindable"),
        (&["rshared"], "rw,relatime rw shared"),
        (&["shared", "slave"], "rw,relatime rw"),
        (&["rro"], "ro,relatime rw"),
        (&["rnosuid", "rnodev", "rnoexec", "rnosymfollow"], "rw,nosuid,nodev,noexec,relatime,nosymfollow rw"),
        (&["noatime", "ratime"], "rw,relatime rw"),
        (&["rnoatime"], "rw,noatime rw"),
        (&["rstrictatime"], "rw rw"),
        (&["rnodiratime"], "rw,nodiratime,relatime rw"),
        (&["defaults", "async", "loud", "iversion"], "rw,relatime rw"),
    ] {
        let printed = place.prints(|c| mount(c, "/m", "tmpfs", "tmpfs", options), SHOW);
        // Some kernels show the inode width; the mode is that of the directory below.
        let printed = printed.replace(",inode64", "").replace(",mode=755", "").trim_end_matches(" -").to_owned();
        if printed != expected {
            wrong.push(format!("{options:?}: {printed:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    place.assert_nothing_left();
}

/// Binds of a directory with a file system mounted below it, made in a mount namespace of the test's own.
#[test]
fn options_of_binds() {
    let Some(place) = Place::new("binds", &[]) else { return };
    let tree = place.dir.join("tree");
    fs::create_dir(&tree).unwrap();
    const BOTH: &str = "busybox awk '$5 == \"/m\" || $5 == \"/m/below\" { print $5, $6 }' /proc/self/mountinfo";
    let mut wrong = Vec::new();
    for (options, expected) in [
        (&["bind"][..], "/m rw,relatime"),
        (&["rbind"], "/m rw,relatime\n/m/below rw,nosuid,relatime"),
        (&["rbind", "ro"], "/m ro,relatime\n/m/below rw,nosuid,relatime"),
        (&["rbind", "rro"], "/m ro,relatime\n/m/below ro,nosuid,relatime"),
        (&["rbind", "ro", "rrw"], "/m rw,relatime\n/m/below rw,nosuid,relatime"),
        (&["rbind", "nodev", "rnoexec"], "/m rw,nodev,noexec,relatime\n/m/below rw,nosuid,noexec,relatime"),
        (&["rbind", "rsuid"], "/m rw,relatime\n/m/below rw,relatime"),
        (&["rbind", "rnoatime"], "/m rw,noatime\n/m/below rw,nosuid,noatime"),
        (&["rbind", "rnosymfollow"], "/m rw,relatime,nosymfollow\n/m/below rw,nosuid,relatime,nosymfollow"),
    ] {
        place.edit(|c| {
            c["process"]["args"] = json!(["/bin/sh", "-c", BOTH]);
            c["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/m");
            mount(c, "/m", "bind", tree.to_str().unwrap(), options);
        });
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs tmpfs tree && mkdir tree/below && \
             mount -t tmpfs -o nosuid tmpfs tree/below && {} --root root run {}",
            place::program().display(),
            place.id
        );
        let output =
            Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(&place.dir).output().unwrap();
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if printed.trim_end() != expected {
            wrong.push(format!("{options:?}: {printed:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    place.assert_nothing_left();
}

#[test]
fn sources_and_places_of_mounts() {
    let Some(place) = Place::new("places", &[]) else { return };
    fs::create_dir_all(place.dir.join("rootfs/filled/sub")).unwrap();
    fs::write(place.dir.join("rootfs/filled/file"), "before").unwrap();
    fs::write(place.dir.join("rootfs/filled/sub/deep"), "deep").unwrap();
    fs::set_permissions(place.dir.join("rootfs/filled"), std::os::unix::fs::PermissionsExt::from_mode(0o1711)).unwrap();
    fs::write(place.dir.join("beside"), "beside the config\n").unwrap();
    std::os::unix::fs::symlink("/target", place.dir.join("rootfs/link")).unwrap();
    place.check(&[
        Row("relative source", |c| mount(c, "/file", "none", "beside", &["bind"]), "cat /file", "beside the config"),
        Row(
            "missing directories",
            |c| mount(c, "/a/b/c", "tmpfs", "tmpfs", &[]),
            "stat -c %a /a /a/b; stat -fc %T /a/b/c",
            "755\n755\ntmpfs",
        ),
        Row("through a link inside", |c| mount(c, "/link/x", "tmpfs", "tmpfs", &[]), "stat -fc %T /target/x", "tmpfs"),
        Row(
            "tmpcopyup",
            |c| mount(c, "/filled", "tmpfs", "tmpfs", &["tmpcopyup"]),
            "cat /filled/file /filled/sub/deep; echo; echo after >/filled/file; stat -c %a /filled",
            "beforedeep\n1711",
        ),
        Row(
            "a tmpfs keeps the directory's mode",
            |c| mount(c, "/filled", "tmpfs", "tmpfs", &[]),
            "ls /filled; stat -c %a /filled",
            "1711",
        ),
        Row(
            "a read-only tmpfs",
            |c| mount(c, "/filled", "tmpfs", "tmpfs", &["ro", "tmpcopyup"]),
            "cat /filled/file; echo; echo x 2>/dev/null >/filled/x || echo no",
            "before\nno",
        ),
        Row(
            "order",
            |c| {
                mount(c, "/one", "tmpfs", "tmpfs", &[]);
                mount(c, "/one/two", "tmpfs", "tmpfs", &[]);
                mount(c, "/one", "tmpfs", "tmpfs", &["mode=700"]);
            },
            "ls /one; stat -c %a /one",
            "700",
        ),
        Row("no read-only root", |c| c["root"]["readonly"] = false.into(), "echo x >/written && cat /written", "x"),
        Row(
            "a read-only root",
            |c| c["root"]["readonly"] = true.into(),
            "echo x 2>/dev/null >/written || echo no; echo x >/dev/shm/x && cat /dev/shm/x",
            "no\nx",
        ),
        Row(
            "rootfsPropagation",
            |c| c["linux"]["rootfsPropagation"] = "shared".into(),
            "busybox awk '$5 == \"/\" { print $7 ~ /^shared/ }' /proc/self/mountinfo",
            "1",
        ),
        Row(
            "rootfsPropagation by default",
            |_| {},
            "busybox awk '$5 == \"/\" { print $7 ~ /^(shared|unbindable)/ }' /proc/self/mountinfo",
            "0",
        ),
        Row(
            "unbindable",
            |c| c["linux"]["rootfsPropagation"] = "unbindable".into(),
            "busybox awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo",
            "unbindable",
        ),
        Row(
            "nothing of the host is mounted",
            |_| {},
            "grep -c oldroot /proc/self/mountinfo; ls -d /.old* 2>/dev/null",
            "status exit status: 2: 0",
        ),
    ]);
    assert_eq!(fs::read(place.dir.join("rootfs/filled/file")).unwrap(), b"before");
}

#[test]
fn mounts_that_cannot_be() {
    let Some(place) = Place::new("cannot", &[]) else { return };
    fs::write(place.dir.join("rootfs/file"), "").unwrap();
    fs::create_dir(place.dir.join("rootfs/dir")).unwrap();
    let rows: [Broken; 6] = [
        ("no source", |c| mount(c, "/m", "none", "/nowhere/at/all", &["bind"]), "/nowhere/at/all"),
        ("a directory over a file", |c| mount(c, "/file", "none", "/etc", &["bind"]), "not a directory"),
        ("a file over a directory", |c| mount(c, "/dir", "none", "/etc/passwd", &["bind"]), "not a directory"),
        ("an unknown file system", |c| mount(c, "/m", "nosuchfs", "x", &[]), "nosuchfs"),
        ("an unknown parameter", |c| mount(c, "/m", "tmpfs", "tmpfs", &["nosuch=1"]), "nosuch"),
        ("below a file", |c| mount(c, "/file/m", "tmpfs", "tmpfs", &[]), "/file"),
    ];
    for (name, change, words) in rows {
        let printed = place.prints(change, "echo in");
        assert!(
            printed.starts_with("status exit status: 1") && printed.to_lowercase().contains(words),
            "{name}: {printed}"
        );
        place.assert_nothing_left();
    }
}

#[test]
fn ids_are_shifted() {
    let Some(place) = Place::new("idmap", &[]) else { return };
    let source = place.dir.join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("file"), "").unwrap();
    chown(source.join("file"), Some(5), Some(6)).unwrap();
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let shift = |options: &[&str]| {
        let printed = place.prints(
            |c| {
                mount(c, "/m", "none", source.to_str().unwrap(), options);
                let last = c["mounts"].as_array_mut().unwrap().last_mut().unwrap();
                (last["uidMappings"], last["gidMappings"]) = (map.clone(), map.clone());
            },
            "stat -c %u:%g /m/file",
        );
        if printed.contains("Invalid argument") { None } else { Some(printed) }
    };
    let Some(printed) = shift(&["bind", "idmap"]) else {
        println!("skipped: the file system below the temporary directory takes no id maps");
        return;
    };
    assert_eq!(printed, "1005:1006");
    assert_eq!(shift(&["rbind", "ridmap"]).unwrap(), "1005:1006");
    assert_eq!(shift(&["bind"]).unwrap(), "1005:1006");
}

#[test]
fn masked_and_read_only_paths() {
    let Some(place) = Place::new("masks", &[]) else { return };
    fs::create_dir_all(place.dir.join("rootfs/secrets")).unwrap();
    fs::create_dir_all(place.dir.join("rootfs/kept")).unwrap();
    fs::write(place.dir.join("rootfs/secrets/key"), "key").unwrap();
    fs::write(place.dir.join("rootfs/key"), "key").unwrap();
    place.edit(|c| {
        c["root"]["readonly"] = false.into();
        c["linux"]["maskedPaths"] = json!(["/secrets", "/key", "/missing/path", "/key"]);
        c["linux"]["readonlyPaths"] = json!(["/kept", "/proc/sys", "/missing/too"]);
    });
    place.check(&[
        Row("files", |_| {}, "cat /key; stat -c %t:%T /key", "1:3"),
        Row(
            "directories",
            |_| {},
            "ls -A /secrets; echo x 2>/dev/null >/secrets/x || echo no; stat -fc %T /secrets",
            "no\ntmpfs",
        ),
        Row(
            "read-only",
            |_| {},
            "echo x 2>/dev/null >/kept/x || echo no; echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward || echo no",
            "no\nno",
        ),
        Row("the rest is not", |_| {}, "echo x >/written && cat /written", "x"),
        Row("nothing is made for missing ones", |_| {}, "ls -d /missing 2>&1 | grep -c 'No such'", "1"),
        Row(
            "the flags of a read-only path stay",
            |_| {},
            "busybox awk '$5 == \"/proc/sys\" { print $6 }' /proc/self/mountinfo",
            "ro,relatime",
        ),
    ]);
    let relative = place.prints(
        |c| {
            c["linux"]["maskedPaths"] = json!(["secrets", "../key"]);
            c["linux"]["readonlyPaths"] = json!(["./kept"]);
        },
        "ls -A /secrets; cat /key; echo x 2>/dev/null >/kept/x || echo no",
    );
    assert!(relative.starts_with("no\n") && relative.contains("\"secrets\\\" is taken as /secrets"), "{relative}");
}

#[test]
fn device_nodes() {
    let Some(place) = Place::new("nodes", &[]) else { return };
    place.edit(|c| {
        c["linux"]["devices"] = json!([
            {"path": "/dev/one", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/dev/deep/two", "type": "c", "major": 10, "minor": 229},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
            {"path": "/dev/ptmx", "type": "c", "major": 1, "minor": 3},
        ]);
    });
    place.check(&[
        Row(
            "defaults",
            |_| {},
            "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty",
            "null character special file 1:3 666\nzero character special file 1:5 666\nfull character special file 1:7 666\n\
             random character special file 1:8 666\nurandom character special file 1:9 666\ntty character special file 5:0 666",
        ),
        Row("links", |_| {}, "cd /dev; readlink fd stdin stdout stderr ptmx", "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx"),
        Row(
            "the configuration's",
            |_| {},
            "cd /dev; stat -c '%n %F %t:%T %a %u:%g' one deep/two pipe",
            "one character special file 1:5 640 7:8\ndeep/two character special file a:e5 666 0:0\npipe fifo 0:0 600 0:0",
        ),
        Row("a rule is needed", |_| {}, "head -c1 /dev/zero >/dev/null && echo zero; (: </dev/deep/two) 2>&1 | grep -c permitted", "zero\n1"),
        Row(
            "a rule suffices",
            |c| c["linux"]["resources"]["devices"].as_array_mut().unwrap().push(json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"})),
            "(: </dev/deep/two) 2>&1 | grep -c permitted; (: >/dev/deep/two) 2>&1 | grep -c permitted",
            "0\n1",
        ),
    ]);
    let null = fs::metadata("/dev/null").unwrap();
    assert!(null.file_type().is_char_device() && null.uid() == 0 && null.mode() & 0o777 == 0o666);
}

/// In the foreground, with a terminal that script(1) makes.
#[test]
fn a_terminal_in_the_foreground() {
    let Some(place) = Place::new("tty", &[]) else { return };
    place.edit(|c| {
        c["process"]["terminal"] = true.into();
        c["process"]["user"] = json!({"uid": 5, "gid": 6});
        let script = "tty; stat -c '%t:%T %u' /dev/console | sed 's/:.*[ ]/ /'; test -t 0 && test -t 1 && test -t 2 && echo all; stty size; \
            cut -d' ' -f7 /proc/self/stat | grep -c '^0$'";
        c["process"]["args"] = json!(["/bin/sh", "-c", script]);
    });
    let terminal = Terminal::new(33, 101);
    let (status, printed) = terminal.shows(&mut terminal.start(place.command(&["run", &place.id])));
    // 88 is 136, the first of devpts; the terminal belongs to the user; it is the controlling one.
    assert_eq!(printed, "/dev/pts/0\n88 5\nall\n33 101\n0\n", "{status}");
    place.assert_nothing_left();
}

/// A user of the host may have mounted something at a name that is no text; mountinfo shows it as it is.
#[test]
fn a_mount_of_the_host_with_an_odd_name() {
    let Some(place) = Place::new("odd", &["/bin/echo", "in"]) else { return };
    let script = format!(
        "mount --make-rprivate / && mkdir $'odd\\xff\\n' && mount -t proc proc odd* && \
         {0} --root root run {1} && {0} --root root run --no-pivot {1}",
        place::program().display(),
        place.id
    );
    let output = Command::new("unshare").args(["-m", "bash", "-c", &script]).current_dir(&place.dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in\nin\n", "{output:?}");
    place.assert_nothing_left();
}
