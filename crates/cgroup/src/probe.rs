//! What the host has.

use crate::systemd::Bus;
use crate::{Error, Result};
use offshoot_plan::cgroup::{CgroupHost, HostHierarchy, Mode, SystemdHost};
use offshoot_sys::path;
use std::path::{Path, PathBuf};

/// Reads how cgroups are mounted and where the caller is in them. `/proc/self/mountinfo` and `/proc/self/cgroup` are
/// read once each.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn probe() -> Result<CgroupHost> {
    let mountinfo = read("/proc/self/mountinfo")?;
    let cgroups = read("/proc/self/cgroup")?;
    let mut host = mounted(&mountinfo, &cgroups);
    if let (Mode::V2, Some(unified)) = (host.mode, &mut host.unified) {
        let offered = read(unified.mount_point.join("cgroup.controllers"))?;
        unified.controllers = offered.split_whitespace().map(Into::into).collect();
    }
    host.in_userns = !is_first_userns(&read("/proc/self/uid_map").unwrap_or_default());
    Ok(host)
}

/// The sizes of huge pages that the host has, as their limits name them. Apart from [`probe`], because few
/// configurations limit them.
#[must_use]
pub fn huge_page_sizes() -> Vec<String> {
    let names = path::open("/sys/kernel/mm/hugepages", libc::O_RDONLY | libc::O_DIRECTORY, 0).and_then(path::read_dir);
    let mut sizes: Vec<String> =
        names.unwrap_or_default().iter().filter_map(|name| huge_page_size(name.to_str()?)).collect();
    sizes.sort_unstable();
    sizes
}

/// Asks the systemd that is to manage the unit. `user`: the caller's own, not the system's.
///
/// # Errors
/// When there is none to ask.
pub fn probe_systemd(user: bool) -> Result<SystemdHost> {
    let mut bus = Bus::connect(user)?;
    let version = bus.version()?;
    // The system's manages the whole tree that is mounted.
    let control_group = if user { bus.manager_control_group()?.into() } else { PathBuf::from("/") };
    Ok(SystemdHost { version, control_group })
}

pub(crate) fn read(file: impl AsRef<Path>) -> Result<String> {
    let file = file.as_ref();
    let bytes = path::open(file, libc::O_RDONLY, 0)
        .and_then(|fd| path::read_to_end(fd, 64 << 20))
        .map_err(|e| Error::system(format_args!("failed to read {}", file.display()), e.errno()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

/// `31 23 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu`. man 5 `proc_pid_mountinfo`
fn mount(line: &str) -> Option<Mount<'_>> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let mut tail = tail.split(' ');
    let (root, point) = (unescape(head.next()?), unescape(head.next()?));
    let (kind, _, options) = (tail.next()?, tail.next()?, tail.next()?);
    Some(Mount { root, point, kind, options })
}

/// `\040` is a space.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                plain.push(byte.into());
                plain.push_str(&part[3..]);
            }
            None => plain.push_str(part),
        }
    }
    plain.into()
}

fn mounted(mountinfo: &str, cgroups: &str) -> CgroupHost {
    let mut host = CgroupHost {
        mode: Mode::V1,
        hierarchies: Vec::new(),
        unified: None,
        in_userns: false,
        huge_page_sizes: Vec::new(),
        systemd: None,
    };
    // `4:cpu,cpuacct:/path`, `1:name=systemd:/path`, `0::/path`
    let own: Vec<(Vec<&str>, &str)> = cgroups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?.split(',').filter(|c| !c.is_empty()).collect(), fields.next()?))
        })
        .collect();
    for mount in mountinfo.lines().filter_map(mount) {
        match mount.kind {
            "cgroup2" if host.unified.as_ref().is_none_or(|_| mount.point == Path::new("/sys/fs/cgroup")) => {
                let path = own.iter().find(|(controllers, _)| controllers.is_empty()).map(|(_, path)| *path);
                host.unified = Some(hierarchy(Vec::new(), &mount, path));
            }
            "cgroup" => {
                let options: Vec<&str> = mount.options.split(',').collect();
                let found =
                    own.iter().find(|(controllers, _)| controllers.first().is_some_and(|c| options.contains(c)));
                let Some((controllers, path)) = found else { continue };
                let controllers: Vec<String> = controllers.iter().map(ToString::to_string).collect();
                // The same hierarchy may be mounted again: in a container's root file system, say.
                if !host.hierarchies.iter().any(|h| h.controllers == controllers) {
                    host.hierarchies.push(hierarchy(controllers, &mount, Some(path)));
                }
            }
            _ => {}
        }
    }
    host.mode = match (&host.unified, host.hierarchies.is_empty()) {
        (Some(_), true) => Mode::V2,
        (Some(_), false) => Mode::Hybrid,
        (None, _) => Mode::V1,
    };
    host
}

fn hierarchy(controllers: Vec<String>, mount: &Mount, own: Option<&str>) -> HostHierarchy {
    // Without a cgroup namespace, a container sees the host's paths, and its own cgroup's directory mounted.
    let own = own.map(Path::new).filter(|own| !own.components().any(|c| c == std::path::Component::ParentDir));
    let own_path = own.and_then(|own| own.strip_prefix(&mount.root).ok()).map(Path::to_path_buf);
    HostHierarchy { controllers, mount_point: mount.point.clone(), own_path }
}

/// The first user namespace maps all ids to themselves.
fn is_first_userns(uid_map: &str) -> bool {
    uid_map.is_empty() || uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// `hugepages-2048kB` is `2MB`. kernel: `hugetlb_cgroup.c`, `mem_fmt`
fn huge_page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        1_048_576.. => format!("{}GB", kilobytes >> 20),
        1024.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 31 0:32 / /var/lib/x/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn hybrid() {
        let host = mounted(HYBRID, "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/c\n");
        assert_eq!(host.mode, Mode::Hybrid);
        assert_eq!(host.hierarchies.len(), 3);
        assert_eq!(host.hierarchies[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(host.hierarchies[1].own_path.as_deref(), Some(Path::new("a/b")));
        assert_eq!(host.unified.unwrap().own_path.as_deref(), Some(Path::new("c")));
    }

    #[test]
    fn unified() {
        let line = "25 23 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let host = mounted(line, "0::/user.slice/a\n");
        assert_eq!(host.mode, Mode::V2);
        assert_eq!(host.unified.unwrap().mount_point, Path::new("/sys/fs/cgroup"));
        assert_eq!(mounted("", "").mode, Mode::V1);
    }

    #[test]
    fn a_directory_mounted_alone_and_names_with_spaces() {
        let line = "25 23 0:22 /docker/x\\040y /sys/fs/cg\\134roup rw - cgroup2 cgroup2 rw\n";
        let unified = mounted(line, "0::/docker/x y/z\n").unified.unwrap();
        assert_eq!(unified.own_path.as_deref(), Some(Path::new("z")));
        assert_eq!(unified.mount_point, Path::new("/sys/fs/cg\\roup"));
        assert_eq!(mounted(line, "0::/other\n").unified.unwrap().own_path, None);
        assert_eq!(mounted(line, "0::/../up\n").unified.unwrap().own_path, None);
    }

    #[test]
    fn sizes_of_huge_pages() {
        let sizes = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "x"].map(huge_page_size);
        assert_eq!(sizes, [Some("64KB".into()), Some("2MB".into()), Some("1GB".into()), None]);
    }

    #[test]
    fn this_host() {
        let host = probe().unwrap();
        println!("{:?}, {} hierarchies", host.mode, host.hierarchies.len());
    }
}
