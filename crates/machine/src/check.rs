//! What stands between this host and many machines: its limits, with the setting that lifts each; and what it lacks.
//!
//! The sums are pure; [`Facts::read`] is the one place that looks at the host.

use crate::network::Server;
use std::fs;
use std::path::{Path, PathBuf};

/// What a machine uses at most of the time, measured on systemd 252 and 257 at rest, with room to work (docs/machines.md).
mod each {
    /// inotify instances of one guest: its own user's, as each has ids of its own.
    pub const INOTIFY_INSTANCES: u64 = 64;
    /// inotify watches of one guest.
    pub const INOTIFY_WATCHES: u64 = 8192;
    /// Keys of one guest's root.
    pub const KEYS: u64 = 50;
    /// Pseudo-terminals: the console and one shell.
    pub const PTYS: u64 = 2;
    /// Processes and threads.
    pub const TASKS: u64 = 32;
    /// Open files.
    pub const FILES: u64 = 256;
    /// Neighbours: the machine's of the gateway, and the gateway's of the machine. The kernel counts those of all
    /// network namespaces together.
    pub const NEIGHBOURS: u64 = 2;
    /// Descriptors that the supervisor holds: the process and both ends of the console.
    pub const DESCRIPTORS: u64 = 3;
}

/// What the host needs for itself.
const HOST_TASKS: u64 = 4096;
const HOST_FILES: u64 = 65_536;
const HOST_NEIGHBOURS: u64 = 512;
const HOST_DESCRIPTORS: u64 = 64;

/// The host, as far as the sums need it. A limit that this kernel does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Settings by their name for sysctl(8).
    sysctls: Vec<(&'static str, u64)>,
    /// The most descriptors a process may have.
    descriptors: Option<u64>,
    /// Ranges of ids that can be given away.
    ranges: Option<u64>,
    /// Memory that can be used without swapping, in KiB.
    available: Option<u64>,
    /// Linux's version.
    kernel: (u32, u32),
    /// What the kernel and the host have, by what needs it.
    features: Vec<Feature>,
}

/// Something that is there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// Whether machines do without.
    pub optional: bool,
    /// What helps.
    pub advice: &'static str,
}

/// How a limit compares with the need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name: that of a sysctl, or of the thing.
    pub name: String,
    /// What the host has.
    pub have: u64,
    /// What so many machines need.
    pub need: u64,
    /// Whether machines will certainly fail to start without.
    pub hard: bool,
    /// What to do about it, where it is too low.
    pub advice: String,
}

impl Finding {
    /// Whether there is enough.
    pub fn is_enough(&self) -> bool {
        self.have >= self.need
    }
}

/// Settings that machines need more of: name, of each machine, of the host, whether each machine counts for itself,
/// whether a start fails without.
const SETTINGS: &[(&str, u64, u64, bool, bool)] = &[
    ("fs.inotify.max_user_instances", each::INOTIFY_INSTANCES, 0, true, false),
    ("fs.inotify.max_user_watches", each::INOTIFY_WATCHES, 0, true, false),
    ("kernel.keys.maxkeys", each::KEYS, 0, true, false),
    ("kernel.pid_max", each::TASKS, HOST_TASKS, false, true),
    ("kernel.threads-max", each::TASKS, HOST_TASKS, false, true),
    ("fs.file-max", each::FILES, HOST_FILES, false, false),
    ("net.ipv4.neigh.default.gc_thresh3", each::NEIGHBOURS, HOST_NEIGHBOURS, false, false),
    ("user.max_user_namespaces", 1, 16, false, true),
    ("user.max_net_namespaces", 1, 16, false, true),
    ("user.max_mnt_namespaces", 2, 16, false, true),
    ("user.max_pid_namespaces", 1, 16, false, true),
    ("user.max_cgroup_namespaces", 1, 16, false, true),
];
/// The most pseudo-terminals, and how many of them are kept for the host.
const PTY_MAX: &str = "kernel.pty.max";
const PTY_RESERVE: &str = "kernel.pty.reserve";

impl Facts {
    /// Looks at this host; changes nothing.
    pub fn read() -> Facts {
        let names = SETTINGS.iter().map(|(name, ..)| *name).chain([PTY_MAX, PTY_RESERVE]);
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let descriptors = offshoot_sys::process::getrlimit(own, offshoot_sys::libc::RLIMIT_NOFILE);
        Facts {
            sysctls: names.filter_map(|name| Some((name, sysctl(name)?))).collect(),
            descriptors: descriptors.ok().map(|(_, hard)| hard),
            ranges: Some(offshoot_runtime::ranges::Pool::of_host().capacity()),
            available: fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .ok()
                .and_then(|text| version(&text))
                .unwrap_or((0, 0)),
            features: features(),
        }
    }

    fn sysctl(&self, name: &str) -> Option<u64> {
        self.sysctls.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    /// What `machines` running at once need, beside what the host has. `memory` is what one of them takes at rest, in KiB.
    pub fn limits(&self, machines: u64, memory: u64) -> Vec<Finding> {
        let mut all = Vec::new();
        for (name, each, host, own, hard) in SETTINGS {
            let Some(have) = self.sysctl(name) else { continue };
            let need = host + each * if *own { machines.min(1) } else { machines };
            all.push(setting(name, have, need, *hard));
        }
        if let Some(max) = self.sysctl(PTY_MAX) {
            let reserve = self.sysctl(PTY_RESERVE).unwrap_or(0);
            all.push(setting(PTY_MAX, max, machines * each::PTYS + reserve, true));
        }
        if let Some(have) = self.descriptors {
            let need = machines * each::DESCRIPTORS + HOST_DESCRIPTORS;
            let advice = format!("ulimit -n {} before the supervisor starts, or LimitNOFILE= of its unit", round(need));
            all.push(Finding { name: "open files of the supervisor".into(), have, need, hard: true, advice });
        }
        if let Some(have) = self.ranges {
            let advice = format!(
                "a line offshoot:FIRST:{} for ids that nobody has, in /etc/subuid and in /etc/subgid",
                machines * u64::from(u16::MAX) + machines
            );
            all.push(Finding { name: "ranges of 65536 ids".into(), have, need: machines, hard: true, advice });
        }
        if let Some(have) = self.available {
            let need = machines * memory;
            let advice = "fewer machines, --lean, or more memory".to_owned();
            all.push(Finding { name: "available memory in KiB".into(), have, need, hard: false, advice });
        }
        all
    }

    /// What machines need of the kernel and the host.
    pub fn features(&self) -> Vec<Feature> {
        let (major, minor) = self.kernel;
        let kernel = Feature {
            name: "Linux 5.19 or later (id-mapped overlay)",
            present: (major, minor) >= (5, 19),
            optional: true,
            advice: "without it, clones need another driver than overlay",
        };
        std::iter::once(kernel).chain(self.features.iter().cloned()).collect()
    }
}

fn setting(name: &str, have: u64, need: u64, hard: bool) -> Finding {
    Finding { name: name.to_owned(), have, need, hard, advice: format!("sysctl -w {name}={}", round(need)) }
}

/// The next power of two: a limit that is raised is best not raised again soon.
fn round(need: u64) -> u64 {
    need.checked_next_power_of_two().unwrap_or(need)
}

/// Settings to be written to `/etc/sysctl.d/`: those of `findings` that are too low.
pub fn sysctl_file(findings: &[Finding]) -> String {
    let lines =
        findings.iter().filter(|found| !found.is_enough()).filter_map(|found| found.advice.strip_prefix("sysctl -w "));
    lines.map(|line| line.replacen('=', " = ", 1) + "\n").collect()
}

fn sysctl(name: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn features() -> Vec<Feature> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has_filesystem = |name: &str| filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroup2 = mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let is_there = |path: &str| Path::new(path).exists();
    let need = |name, present, advice| Feature { name, present, optional: false, advice };
    let want = |name, present, advice| Feature { name, present, optional: true, advice };
    vec![
        need("user namespaces", is_there("/proc/self/ns/user"), "a kernel with CONFIG_USER_NS"),
        need("cgroup namespaces", is_there("/proc/self/ns/cgroup"), "a kernel with CONFIG_CGROUPS"),
        need(
            "a cgroup2 file system",
            cgroup2,
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified, for guests with systemd",
        ),
        want("overlay", has_filesystem("overlay"), "modprobe overlay"),
        want("fuse", is_there("/dev/fuse"), "modprobe fuse, for file systems that guests bring along"),
        want("tun", is_there("/dev/net/tun"), "modprobe tun, for VPNs in guests"),
        want("nft", tool("nft").is_some(), "install nftables, for networks with translation"),
        want("dnsmasq", Server::is_installed(), "install dnsmasq-base, for names and DHCP in networks"),
    ]
}

fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir: PathBuf| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Facts {
        Facts {
            sysctls: vec![
                ("fs.inotify.max_user_instances", 128),
                ("kernel.keys.maxkeys", 200),
                ("kernel.pid_max", 32768),
                ("net.ipv4.neigh.default.gc_thresh3", 1024),
                (PTY_MAX, 4096),
                (PTY_RESERVE, 1024),
            ],
            descriptors: Some(1024),
            ranges: Some(4094),
            available: Some(8 << 20),
            ..Facts::default()
        }
    }

    fn low(machines: u64) -> Vec<String> {
        debian()
            .limits(machines, 6 << 10)
            .into_iter()
            .filter(|found| !found.is_enough())
            .map(|found| found.name)
            .collect()
    }

    #[test]
    fn limits_are_hit_one_after_the_other() {
        assert_eq!(low(1), [""; 0]);
        assert_eq!(low(300), ["net.ipv4.neigh.default.gc_thresh3"]);
        assert_eq!(low(512), ["net.ipv4.neigh.default.gc_thresh3", "open files of the supervisor"]);
        assert_eq!(low(1600).len(), 5, "{:?}", low(1600));
        // One machine more would not be one more of its own user's.
        assert!(!low(1600).contains(&"fs.inotify.max_user_instances".to_owned()));
    }

    #[test]
    fn advice_is_a_line_to_type() {
        let findings = debian().limits(1000, 1);
        let pids = findings.iter().find(|found| found.name == "kernel.pid_max").unwrap();
        assert_eq!((pids.need, pids.advice.as_str()), (36096, "sysctl -w kernel.pid_max=65536"));
        assert!(sysctl_file(&findings).contains("kernel.pid_max = 65536\n"));
        assert!(!sysctl_file(&findings).contains("keys"));
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(available("MemTotal: 5 kB\nMemAvailable:   123 kB\n"), Some(123));
        let here = Facts::read();
        assert!(here.kernel > (4, 0) && here.sysctl("kernel.pid_max").is_some());
    }
}
