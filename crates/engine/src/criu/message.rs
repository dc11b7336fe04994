//! What is said to CRIU, and what it answers. source: criu/images/rpc.proto

use super::proto::{Value, Writer, read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `criu_req_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// What CRIU does with cgroups. `criu_cg_mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Leave processes in the cgroups they are put into.
    Ignore = 0,
    /// Restore what is missing.
    Soft = 3,
    /// Restore all.
    Full = 4,
    /// Refuse when there is something.
    Strict = 5,
    /// What CRIU takes for best.
    #[default]
    Default = 6,
}

impl CgroupsMode {
    /// `--manage-cgroups-mode`
    ///
    /// # Errors
    /// runc's message, when there is no such mode.
    pub fn parse(text: &str) -> Result<CgroupsMode, &'static str> {
        match text {
            "" => Ok(CgroupsMode::Default),
            "ignore" => Ok(CgroupsMode::Ignore),
            "soft" => Ok(CgroupsMode::Soft),
            "full" => Ok(CgroupsMode::Full),
            "strict" => Ok(CgroupsMode::Strict),
            _ => Err("invalid manage-cgroups-mode value"),
        }
    }
}

/// What a caller may choose; off is CRIU's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Let the processes go on after the dump.
    pub leave_running: bool,
    /// Sessions and terminals from outside the container.
    pub shell_job: bool,
    /// Connected TCP sockets.
    pub tcp_established: bool,
    /// TCP connections that are not yet accepted are left out.
    pub tcp_skip_in_flight: bool,
    /// Give unlinked files a name for as long as it takes.
    pub link_remap: bool,
    /// Unix sockets whose peer is outside.
    pub ext_unix_sk: bool,
    /// File locks.
    pub file_locks: bool,
    /// Drop pages of parent images that a later one replaces.
    pub auto_dedup: bool,
    /// Leave memory with the page server until it is touched.
    pub lazy_pages: bool,
    /// What is done with cgroups.
    pub cgroups: CgroupsMode,
}

/// A mount whose source CRIU cannot find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMount {
    /// Dump: the mount point in the container. Restore: the same.
    pub key: PathBuf,
    /// Dump: a name for it. Restore: the source on the host.
    pub value: PathBuf,
}

/// `criu_opts`, as far as it is used.
#[derive(Debug)]
pub(super) struct Options<'a> {
    pub(super) images: BorrowedFd<'a>,
    pub(super) work: Option<BorrowedFd<'a>>,
    pub(super) log_file: &'a str,
    pub(super) root: &'a Path,
    pub(super) flags: &'a Flags,
    pub(super) pid: Option<i32>,
    pub(super) evasive_devices: bool,
    pub(super) rst_sibling: bool,
    pub(super) page_server: Option<&'a (String, u16)>,
    pub(super) parent: Option<&'a Path>,
    pub(super) config_file: Option<&'a str>,
    pub(super) freeze_cgroup: Option<&'a Path>,
    pub(super) external_mounts: &'a [ExternalMount],
    pub(super) external: &'a [String],
    pub(super) inherit: &'a [(String, i32)],
    pub(super) join_namespaces: &'a [(String, PathBuf)],
    pub(super) cgroup_roots: &'a [(String, PathBuf)],
    pub(super) lsm_profile: Option<&'a str>,
    pub(super) lsm_mount_context: Option<&'a str>,
}

/// Enough for CRIU to say what went wrong: `LOG_DEBUG`.
const LOG_LEVEL: i32 = 4;
/// The kernel's `CLONE_NEWNET`. Interfaces are the business of the engine's caller, not of CRIU.
const EMPTY_NAMESPACES: u32 = 0x4000_0000;

impl Options<'_> {
    fn write(&self, out: &mut Writer) {
        let path = |out: &mut Writer, field, path: &Path| out.bytes(field, path.as_os_str().as_bytes());
        out.i32(1, self.images.as_raw_fd());
        if let Some(pid) = self.pid {
            out.i32(2, pid);
        }
        out.flag(3, self.flags.leave_running);
        out.flag(4, self.flags.ext_unix_sk);
        out.flag(5, self.flags.tcp_established);
        out.flag(6, self.evasive_devices);
        out.flag(7, self.flags.shell_job);
        out.flag(8, self.flags.file_locks);
        out.i32(9, LOG_LEVEL);
        out.bytes(10, self.log_file.as_bytes());
        if let Some((address, port)) = self.page_server {
            out.message(11, |server| {
                server.bytes(1, address.as_bytes());
                server.i32(2, (*port).into());
            });
        }
        out.bool(12, true);
        path(out, 13, self.root);
        if let Some(parent) = self.parent {
            path(out, 14, parent);
            out.bool(15, true);
        }
        out.flag(16, self.flags.auto_dedup);
        if let Some(work) = self.work {
            out.i32(17, work.as_raw_fd());
        }
        out.flag(18, self.flags.link_remap);
        for mount in self.external_mounts {
            out.message(23, |map| {
                path(map, 1, &mount.key);
                path(map, 2, &mount.value);
            });
        }
        out.bool(24, true);
        for (controllers, directory) in self.cgroup_roots {
            out.message(25, |root| {
                root.bytes(1, controllers.as_bytes());
                path(root, 2, directory);
            });
        }
        out.flag(26, self.rst_sibling);
        for (key, fd) in self.inherit {
            out.message(27, |inherit| {
                inherit.bytes(1, key.as_bytes());
                inherit.i32(2, *fd);
            });
        }
        out.i32(34, self.flags.cgroups as i32);
        self.external.iter().for_each(|external| out.bytes(37, external.as_bytes()));
        out.u32(38, EMPTY_NAMESPACES);
        for (kind, file) in self.join_namespaces {
            out.message(39, |join| {
                join.bytes(1, kind.as_bytes());
                path(join, 2, file);
            });
        }
        if let Some(cgroup) = self.freeze_cgroup {
            path(out, 44, cgroup);
        }
        out.flag(46, self.flags.tcp_skip_in_flight);
        out.flag(48, self.flags.lazy_pages);
        out.bool(50, true);
        for (field, text) in [(51, self.config_file), (53, self.lsm_profile), (63, self.lsm_mount_context)] {
            text.inspect(|text| out.bytes(field, text.as_bytes()));
        }
    }
}

/// A request that is followed by others on the same connection.
pub(super) fn version_request() -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(1, Kind::Version as u32);
    out.bool(4, true);
    out.into_bytes()
}

/// Asks whether the kernel lets CRIU track memory changes and serve pages on demand.
pub(super) fn feature_request() -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(1, Kind::FeatureCheck as u32);
    out.bool(4, true);
    out.message(5, |features| {
        features.bool(1, true);
        features.bool(2, true);
    });
    out.into_bytes()
}

pub(super) fn request(kind: Kind, options: &Options<'_>) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(1, kind as u32);
    out.message(2, |inner| options.write(inner));
    out.into_bytes()
}

/// The answer to a notification.
pub(super) fn acknowledgement(success: bool) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(1, Kind::Notify as u32);
    out.bool(3, success);
    out.into_bytes()
}

/// `criu_resp`
#[derive(Debug, Default, PartialEq)]
pub(super) struct Response {
    pub(super) kind: u64,
    pub(super) success: bool,
    pub(super) script: Option<String>,
    pub(super) pid: i32,
    pub(super) errno: i32,
    pub(super) message: String,
    pub(super) mem_track: bool,
    pub(super) lazy_pages: bool,
    /// 40101 is 4.1.1.
    pub(super) version: Option<u32>,
}

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> Option<Response> {
        let mut response = Response::default();
        read(bytes, |field, value| {
            match field {
                1 => response.kind = value.number()?,
                2 => response.success = value.bool()?,
                4 => read(value.bytes()?, |field, value| {
                    if field == 1 {
                        response.pid = value.i32()?;
                    }
                    Some(())
                })?,
                5 => read(value.bytes()?, |field, value| {
                    match field {
                        1 => response.script = Some(value.text()?),
                        2 => response.pid = value.i32()?,
                        _ => {}
                    }
                    Some(())
                })?,
                7 => response.errno = value.i32()?,
                8 => read(value.bytes()?, |field, value| {
                    match field {
                        1 => response.mem_track = value.bool()?,
                        2 => response.lazy_pages = value.bool()?,
                        _ => {}
                    }
                    Some(())
                })?,
                9 => response.message = value.text()?,
                10 => response.version = Some(version(value)?),
                _ => {}
            }
            Some(())
        })?;
        Some(response)
    }
}

/// One number, as CRIU's own libraries make it: a build between releases counts as the next minor one.
fn version(value: Value<'_>) -> Option<u32> {
    let (mut major, mut minor, mut sublevel, mut from_git) = (0u32, 0u32, 0u32, false);
    read(value.bytes()?, |field, value| {
        let number = || value.i32().and_then(|n| u32::try_from(n).ok()).filter(|n| *n < 1000);
        match field {
            1 => major = number()?,
            2 => minor = number()?,
            3 => from_git = true,
            4 => sublevel = number()?,
            _ => {}
        }
        Some(())
    })?;
    let release = major * 10_000 + minor * 100;
    Some(if from_git { release + 100 } else { release + sublevel })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn notify(script: &str, pid: i32) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(1, Kind::Notify as u32);
        out.bool(2, true);
        out.message(5, |n| {
            n.bytes(1, script.as_bytes());
            n.i32(2, pid);
        });
        out.into_bytes()
    }

    #[test]
    fn responses() {
        let response = Response::parse(&notify("post-restore", 42)).unwrap();
        assert_eq!((response.kind, response.success, response.pid), (6, true, 42));
        assert_eq!(response.script.as_deref(), Some("post-restore"));

        let mut out = Writer::default();
        out.u32(1, Kind::Version as u32);
        out.bool(2, true);
        out.message(10, |v| {
            v.i32(1, 4);
            v.i32(2, 1);
            v.i32(4, 1);
            v.bytes(6, b"name");
        });
        assert_eq!(Response::parse(&out.into_bytes()).unwrap().version, Some(40101));

        let mut out = Writer::default();
        out.u32(1, Kind::Dump as u32);
        out.bool(2, false);
        out.i32(7, 3);
        out.bytes(9, b"why");
        let response = Response::parse(&out.into_bytes()).unwrap();
        assert_eq!((response.success, response.errno, response.message.as_str()), (false, 3, "why"));
    }

    #[test]
    fn no_response_panics() {
        let good = notify("setup-namespaces", -1);
        for at in 0..good.len() {
            let _ = Response::parse(&good[..at]);
            for byte in 0..=255 {
                let mut broken = good.clone();
                broken[at] = byte;
                let _ = Response::parse(&broken);
            }
        }
    }

    #[test]
    fn options_by_field_number() {
        let file = std::fs::File::open("/").unwrap();
        let options = Options {
            images: file.as_fd(),
            work: None,
            log_file: "dump.log",
            root: Path::new("/r"),
            flags: &Flags { shell_job: true, cgroups: CgroupsMode::Soft, ..Flags::default() },
            pid: Some(7),
            evasive_devices: false,
            rst_sibling: false,
            page_server: Some(&("::1".into(), 27)),
            parent: Some(Path::new("../p")),
            config_file: Some("/etc/criu/runc.conf"),
            freeze_cgroup: None,
            external_mounts: &[ExternalMount { key: "/a".into(), value: "/b".into() }],
            external: &["net[1]:extRootNetNS".into()],
            inherit: &[("pipe:[3]".into(), 1)],
            join_namespaces: &[("ipc".into(), "/proc/1/ns/ipc".into())],
            cgroup_roots: &[(String::new(), "/c".into())],
            lsm_profile: None,
            lsm_mount_context: None,
        };
        let bytes = request(Kind::Dump, &options);
        let mut seen = Vec::new();
        read(&bytes, |field, value| {
            if field == 2 {
                read(value.bytes()?, |field, _| {
                    seen.push(field);
                    Some(())
                })?;
            }
            Some(())
        })
        .unwrap();
        assert_eq!(seen, [1, 2, 7, 9, 10, 11, 12, 13, 14, 15, 23, 24, 25, 27, 34, 37, 38, 39, 50, 51]);
    }

    #[test]
    fn modes() {
        assert_eq!(CgroupsMode::parse("soft"), Ok(CgroupsMode::Soft));
        assert_eq!(CgroupsMode::parse(""), Ok(CgroupsMode::Default));
        assert!(CgroupsMode::parse("loose").is_err());
    }
}
