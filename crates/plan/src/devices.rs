//! `linux.devices` and the devices that every container has. spec: config-linux.md#devices, #default-devices

use crate::problem::Report;
use offshoot_spec::Device as SpecDevice;
use std::path::PathBuf;

/// A device node, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Owner and group, as who makes it sees them: in the container, or on the host where the launcher does.
    pub owner: (u32, u32),
}

/// File types, man 7 inode.
const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

/// Names and minor numbers of the defaults below major 1, and `tty`.
const DEFAULTS: [(&str, (u32, u32)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

/// All nodes to make: the configuration's, then the defaults it does not name.
pub fn plan(devices: &[SpecDevice], report: &mut Report) -> Vec<Device> {
    let mut list: Vec<Device> = Vec::new();
    for (i, device) in devices.iter().enumerate() {
        let path = format!("linux.devices[{i}]");
        let kind = match device.kind.as_str() {
            "c" | "u" => S_IFCHR,
            "b" => S_IFBLK,
            "p" => S_IFIFO,
            other => {
                report.problem(format!("{path}.type"), format!("invalid device type {other:?}"));
                continue;
            }
        };
        if !device.path.starts_with('/') || device.path.contains('\0') {
            report.problem(format!("{path}.path"), format!("{:?} is not an absolute path", device.path));
            continue;
        }
        let number = (u32::try_from(device.major), u32::try_from(device.minor));
        let (Ok(major), Ok(minor)) = number else {
            report.problem(path, format!("device number {}:{} is out of range", device.major, device.minor));
            continue;
        };
        let node = Device {
            path: PathBuf::from(&device.path),
            kind,
            number: (major, minor),
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        };
        // /dev/ptmx is a link to the container's own devpts, whatever the configuration says.
        if device.path != "/dev/ptmx" && !list.iter().any(|other| other.path == node.path) {
            list.push(node);
        }
    }
    for (name, number) in DEFAULTS {
        let path = PathBuf::from(format!("/dev/{name}"));
        if !list.iter().any(|other| other.path == path) {
            list.push(Device { path, kind: S_IFCHR, number, mode: 0o666, owner: (0, 0) });
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_added_once_and_ptmx_never() {
        let named =
            |path: &str| SpecDevice { kind: "c".into(), path: path.into(), major: 1, minor: 3, ..Default::default() };
        let mut report = Report::default();
        let list = plan(&[named("/dev/null"), named("/dev/ptmx"), named("/dev/tty")], &mut report);
        let paths: Vec<_> = list.iter().map(|d| d.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/dev/null", "/dev/tty", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]);
    }

    #[test]
    fn nonsense_is_named() {
        let bad = SpecDevice { kind: "x".into(), path: "/a".into(), ..Default::default() };
        let relative = SpecDevice { kind: "c".into(), path: "a".into(), ..Default::default() };
        let negative = SpecDevice { kind: "c".into(), path: "/a".into(), major: -1, ..Default::default() };
        let mut report = Report::default();
        plan(&[bad, relative, negative], &mut report);
        assert_eq!(report.problems.len(), 3);
    }
}
