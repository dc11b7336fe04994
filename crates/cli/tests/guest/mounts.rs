//! Initial mounts: what the kernel lets the guest's root do to each. man 7 mount_namespaces

use crate::place::Place;
use crate::{mount, perl, system};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Tries everything on each mount, each in a mount namespace of its own, and prints `PLACE WHAT ERRNO`.
const SWEEP: &str = r#"
my %flag = (ro => 1, nosuid => 2, nodev => 4, noexec => 8);
my %seen;
mkdir '/away'; mkdir '/new';
for (reverse split /\n/, do { local (@ARGV, $/) = '/proc/self/mountinfo'; <> }) {
    my ($place, $options) = (split / /)[4, 5];
    next if $seen{$place}++ || $place eq '/';
    my $set = 0;
    $options =~ /\b$_\b/ and $set |= $flag{$_} for keys %flag;
    my $say = sub { print "$place $_[0] $_[1]\n" };
    $say->('umount', within(sub { call('umount2', $place, 0) }));
    $say->('detach', within(sub { call('umount2', $place, 2) }));
    $say->('move', within(sub { -d $place or return 22; call('mount', $place, '/away', 'none', 0x2000, 0) }));
    # As remount, of each that is in force, and by the newer call.
    for my $name (grep { $set & $flag{$_} } sort keys %flag) {
        $say->("clear-$name", within(sub { call('mount', 'none', $place, 'none', 0x1020 | $set & ~$flag{$name}, 0) }));
        $say->("setattr-$name", within(sub { call('mount_setattr', -100, $place, 0, pack('Q4', 0, $flag{$name}, 0, 0), 32) }));
        # A copy has the flags that the original has.
        $say->("copy-$name", within(sub {
            my $target = -d $place ? '/away' : '/file';
            call('mount', $place, $target, 'none', 0x5000, 0) and return 249;
            call('mount_setattr', -100, $target, 0, pack('Q4', 0, $flag{$name}, 0, 0), 32) }));
    }
    # Seen from another root, all of it is as it was.
    $say->('pivoted', within(sub {
        call('mount', 'none', '/', 'none', 0x44000, 0) and return 248;
        call('mount', 'tmpfs', '/new', 'tmpfs', 0, 0) and return 247;
        mkdir '/new/old';
        call('pivot_root', '/new', '/new/old') and return 246;
        call('umount2', "/old$place", 0) }));
    # What covers it can go again, and it is there as before.
    $say->('covered', within(sub {
        -d $place or return 0;
        my $before = join ' ', (stat $place)[0, 1];
        call('mount', 'tmpfs', $place, 'tmpfs', 0, 0) and return 245;
        call('umount2', $place, 0) and return 244;
        $before eq join(' ', (stat $place)[0, 1]) ? 0 : 243 }));
}
"#;

const EPERM: u32 = 1;
const EINVAL: u32 = 22;

/// What it prints: by place, what each attempt ended with.
fn swept(text: &str) -> BTreeMap<&str, BTreeMap<&str, u32>> {
    let mut places: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for line in text.lines() {
        let [place, what, errno] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?} in {text}") };
        places.entry(place).or_default().insert(what, errno.parse().unwrap());
    }
    places
}

/// File systems of the container's own namespaces: its root has mounted them, and may do with them what it likes.
const OWN: [&str; 8] = ["/proc", "/sys", "/sys/fs/cgroup", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/run/lock"];

/// Volumes of all kinds: one with a mount below, one that is a file, one in a directory of another one.
fn volumes(place: &Place) -> impl Fn(&mut Value) + use<> {
    let source = place.dir.join("volume");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("file"), "of the host").unwrap();
    fs::write(place.dir.join("rootfs/file"), "").unwrap();
    move |config| {
        mount(config, "/volume", &source, &["rbind", "ro", "nosuid", "nodev", "noexec"]);
        mount(config, "/volume/below", &source, &["bind", "ro"]);
        mount(config, "/plain", &source, &["bind", "nosuid"]);
        mount(config, "/named", &source.join("file"), &["bind", "ro"]);
        mount(config, "/run/in", &source, &["bind", "ro"]);
    }
}

fn assert_locked(text: &str) {
    let places = swept(text);
    for wanted in ["/volume", "/volume/below", "/plain", "/named", "/run/in", "/dev", "/usr"] {
        assert!(places.contains_key(wanted), "{wanted} is not mounted: {text}");
    }
    let mut wrong = Vec::new();
    // A volume in it makes /run the host's, as the volume is.
    for (place, attempts) in places.iter().filter(|(place, _)| !OWN.contains(place) || **place == "/run") {
        for (what, errno) in attempts {
            let expected = match *what {
                "umount" | "detach" | "move" | "pivoted" => EINVAL,
                "covered" => 0,
                _ => EPERM,
            };
            if *errno != expected {
                wrong.push(format!("{place}: {what} ends with {errno}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{text}", wrong.join("\n"));
    assert_eq!(places["/volume"].keys().filter(|what| what.starts_with("setattr-")).count(), 4, "{text}");
    // The sweep can tell: what is not locked goes.
    assert_eq!(places["/dev/shm"]["umount"], 0, "{text}");
    assert_eq!(places["/dev/shm"]["clear-nosuid"], 0, "{text}");
}

#[test]
fn no_initial_mount_can_be_undone() {
    let Some(place) = system("guest-mounts") else { return };
    let change = volumes(&place);
    assert_locked(&perl(&place, change, SWEEP));
    assert_eq!(fs::read_to_string(place.dir.join("volume/file")).unwrap(), "of the host");
    place.assert_nothing_left();
}

/// Mount points, types and options as the guest sees them.
const TABLE: &str = r#"
for (split /\n/, do { local (@ARGV, $/) = '/proc/self/mountinfo'; <> }) {
    my ($mount, $type) = split / - /;
    print join(' ', (split / /, $mount)[4, 5], (split / /, $type)[0]), "\n";
}
"#;

/// Hooks that work on the container's root while the host's is there.
fn hooks(place: &Place, kinds: &[&str]) -> impl Fn(&mut Value) + use<> {
    let log = place.dir.join("log");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let dir = place.dir.clone();
    let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    move |config| {
        for kind in &kinds {
            // What it finds: the host's files, the root in its place with all in it, the container's namespaces.
            let script = format!(
                "exec 2>&1 >>{log}; test -e {dir}/config.json && test -e {dir}/rootfs/volume/file && test -c {dir}/rootfs/dev/null && \
                 test -e volume/file && echo {kind} $(readlink /proc/self/ns/user /proc/self/ns/mnt); touch {dir}/rootfs/by-{kind}; cat >/dev/null",
                log = log.display(),
                dir = dir.display()
            );
            config["hooks"][kind] =
                json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]);
        }
    }
}

#[test]
fn hooks_that_see_the_host_s_root_leave_the_mounts_locked() {
    let Some(place) = system("guest-hooks") else { return };
    let change = volumes(&place);
    let plain = perl(&place, &change, TABLE);
    for kinds in [&["createContainer"][..], &["createRuntime"], &["prestart", "createContainer"]] {
        let hooked = hooks(&place, kinds);
        let both = |config: &mut Value| {
            change(config);
            hooked(config);
        };
        assert_locked(&perl(&place, both, SWEEP));
        // Nothing of the host's is left behind, and all is as without hooks.
        assert_eq!(perl(&place, both, TABLE), plain, "{kinds:?}");
        let log = fs::read_to_string(place.dir.join("log")).unwrap();
        let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        for kind in kinds.iter().filter(|kind| **kind == "createContainer") {
            let line = log.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("{kinds:?}: {log:?}"));
            assert!(line.contains("user:[") && !line.contains(&own("user")) && !line.contains(&own("mnt")), "{line}");
            assert!(place.dir.join("rootfs/by-createContainer").exists());
        }
    }
    place.assert_nothing_left();
}

/// The mounts below those of the guest, which are there for the kernel to see, show nothing of the host.
#[test]
fn what_its_proc_and_sys_cover_shows_nothing() {
    let Some(place) = system("guest-hollow") else { return };
    let program = r#"
        for my $place ('/proc', '/sys') {
            print "$place ", within(sub {
                call('umount2', $place, 2) and return 1;
                # The one below is as locked as the rest.
                call('umount2', $place, 0) == 22 or return 2;
                opendir my $dir, $place or return 3;
                (grep { /^\d+$/ } readdir $dir) and return 4;
                -e '/proc/1' && $place eq '/proc' and return 5;
                my @links = grep { !m{/lo$} } glob '/sys/class/net/*';
                $place eq '/sys' && @links and return 6;
                (open my $file, '>', '/proc/sysrq-trigger') && $place eq '/proc' and return 7;
                0 }), "\n";
        }
    "#;
    for hooks in [json!(null), json!({"createContainer": [{"path": "/bin/true"}]})] {
        assert_eq!(perl(&place, |config| config["hooks"] = hooks.clone(), program), "/proc 0\n/sys 0", "{hooks}");
    }
    place.assert_nothing_left();
}

/// The one way round: in a mount namespace that has left the root behind, the mount point can be removed, and the kernel
/// detaches what is on it. The guest loses a mount, and gains nothing.
#[test]
fn a_mount_point_that_is_removed_uncovers_nothing_of_the_host() {
    let Some(place) = system("guest-trap") else { return };
    let change = volumes(&place);
    let program = r#"
        my $result = within(sub {
            mkdir '/new';
            call('mount', 'tmpfs', '/new', 'tmpfs', 0, 0) and return 1;
            mkdir '/new/old';
            mkdir '/held';
            chdir '/held';
            call('pivot_root', '/new', '/new/old') and return 2;
            call('umount2', '/old', 2) and return 3;
            rmdir '../plain' or return 4;
            mkdir '../plain' or return 5;
            open my $file, '>', '../plain/written' or return 6;
            0 });
        print "$result ", (-e '/plain/file' ? 'source' : 'gone'), ' ', (-e '/plain/written' ? 'own' : 'no');
        open my $file, '>', '/volume/file' and print ' written';
    "#;
    for hook in [json!(null), json!({"createContainer": [{"path": "/bin/true"}]})] {
        let both = |config: &mut Value| {
            change(config);
            config["hooks"] = hook.clone();
        };
        assert_eq!(perl(&place, both, program), "0 gone own", "{hook}");
        let names: Vec<_> =
            fs::read_dir(place.dir.join("volume")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read_to_string(place.dir.join("volume/file")).unwrap(), "of the host");
        fs::remove_dir_all(place.dir.join("rootfs/plain")).unwrap();
    }
    place.assert_nothing_left();
}

/// Nothing that the guest mounts reaches the host, whatever it does to the propagation of its mounts.
#[test]
fn what_it_mounts_stays_inside() {
    let Some(place) = system("guest-propagation") else { return };
    let change = volumes(&place);
    let program = r#"
        call('mount', 'none', '/', 'none', 0x104000, 0) and print 'shared no ';
        call('mount', 'tmpfs', '/plain', 'tmpfs', 0, 0) and print 'mounted no ';
        call('mount', '/volume', '/plain', 'none', 0x5000, 0) and print 'bound no ';
        print 'done';
        open my $file, '>', '/root-of-guest'; sleep 1;
    "#;
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = |table: &str| table.lines().filter(|line| line.contains(&place.id)).count();
    for hook in [json!(null), json!({"createContainer": [{"path": "/bin/true"}]})] {
        fs::write(place.dir.join("rootfs/program"), crate::prelude() + program).unwrap();
        let path = place.dir.join("config.json");
        let before = fs::read(&path).unwrap();
        place.edit(|config| {
            change(config);
            config["hooks"] = hook.clone();
            config["process"]["args"] = json!(["perl", "/program"]);
        });
        let mut running = place.start_in_background(&["run", &place.id]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let marker = place.dir.join("rootfs/root-of-guest");
        while !marker.exists() {
            assert!(std::time::Instant::now() < end, "the guest has not done its part");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(here(&table()), 0, "{}", table());
        running.wait().unwrap();
        fs::write(&path, before).unwrap();
        fs::remove_file(marker).unwrap();
        assert!(Path::new(&place.dir.join("volume/file")).exists());
    }
    place.assert_nothing_left();
}

/// With `rootfsPropagation`, which engines set for volumes that are to show what the host mounts in them later.
#[test]
fn mounts_are_locked_with_any_propagation() {
    let Some(place) = system("guest-rslave") else { return };
    let change = volumes(&place);
    for hooks in [json!(null), json!({"createContainer": [{"path": "/bin/true"}]})] {
        for propagation in ["rslave", "shared", "private", "unbindable"] {
            let both = |config: &mut Value| {
                change(config);
                config["hooks"] = hooks.clone();
                config["linux"]["rootfsPropagation"] = propagation.into();
            };
            assert_locked(&perl(&place, both, SWEEP));
        }
    }
    place.assert_nothing_left();
}

#[test]
fn what_the_host_mounts_later_shows_in_a_slave_with_its_flags_locked() {
    let Some(place) = system("guest-later") else { return };
    let source = place.dir.join("volume");
    fs::create_dir_all(source.join("below")).unwrap();
    place.edit(|config| {
        mount(config, "/volume", &source, &["rbind", "rslave"]);
        config["linux"]["rootfsPropagation"] = "rslave".into();
        config["process"]["args"] = json!(["/bin/sleep", "100"]);
    });
    // In a mount namespace of its own, in which the volume is shared.
    let script = r#"mount --bind volume volume && mount --make-shared volume && "$@" run --detach "$0" >/dev/null &&
        mount -t tmpfs -o nosuid later volume/below && touch volume/below/file &&
        "$@" exec "$0" sh -c 'ls /volume/below; mount -o remount,bind,suid /volume/below 2>/dev/null || echo locked'
        umount volume/below; "$@" exec "$0" ls -A /volume/below; "$@" delete --force "$0""#;
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, &place.id]).arg(crate::place::program());
    command.arg("--root").arg(place.dir.join("root")).current_dir(&place.dir).stdin(std::process::Stdio::null());
    let output = command.stderr(fs::File::create(place.dir.join("errors")).unwrap()).output().unwrap();
    let errors = fs::read_to_string(place.dir.join("errors")).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "file\nlocked\n", "{errors}");
    place.assert_nothing_left();
}

/// The host's root mounts what is locked: with a root that is shared, as systemd's is, none of it may reach the host.
#[test]
fn nothing_that_is_mounted_for_it_shows_on_the_host() {
    let Some(place) = system("guest-shared") else { return };
    let source = place.dir.join("volume");
    fs::create_dir_all(source.join("below")).unwrap();
    let script = r#"mount --make-rshared / && mount --bind . . && mount --make-shared . && cd "$PWD" && mount --bind volume volume && before=$(grep -c . /proc/self/mountinfo) &&
        "$@" run --detach "$0" >/dev/null && "$@" exec "$0" sh -c 'grep -c " /volume" /proc/self/mountinfo' &&
        echo $(($(grep -c . /proc/self/mountinfo) - before)); "$@" delete --force "$0""#;
    let hooks = json!({"createContainer": [{"path": "/bin/true"}]});
    let kinds = ["", "rshared", "shared", "rslave", "slave", "rprivate", "private", "unbindable"];
    let is_system = [("true", json!(null)), ("true", hooks.clone()), ("false", hooks)];
    for ((system, hooks), propagation) in is_system.iter().flat_map(|one| kinds.map(|kind| (one, kind))) {
        // Of an ordinary one it is what the caller asks for, as with runc: its volume is the host's peer.
        if *system == "false" && ["shared", "rshared", "slave", "private"].contains(&propagation) {
            continue;
        }
        place.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/volume"));
            mount(config, "/volume", &source, &["rbind", "ro"]);
            mount(config, "/volume/below", &source, &["bind", "ro"]);
            config["annotations"]["org.offshoot.system"] = (*system).into();
            config["hooks"] = hooks.clone();
            config["linux"]["rootfsPropagation"] = propagation.into();
            config["process"]["args"] = json!(["/bin/sleep", "100"]);
        });
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, &place.id]).arg(crate::place::program());
        command.arg("--root").arg(place.dir.join("root")).current_dir(&place.dir).stdin(std::process::Stdio::null());
        let output = command.stderr(fs::File::create(place.dir.join("errors")).unwrap()).output().unwrap();
        let errors = fs::read_to_string(place.dir.join("errors")).unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(printed, "2\n0\n", "system {system}, {propagation:?}, {hooks}: {errors}");
    }
    place.assert_nothing_left();
}
