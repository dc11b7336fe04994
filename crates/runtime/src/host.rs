//! The facts about the machine that a plan depends on. On the way of every `run`: a handful of small files.

use crate::{Error, Result, Runtime};
use offshoot_plan::Host;
use offshoot_plan::cgroup::{CgroupHost, Driver, Mode};
use offshoot_seccomp::{Arch, Kernel, flag};
use offshoot_spec::Spec;
use offshoot_sys::seccomp::flag_available;
use offshoot_sys::{libc, path};
use std::fs;
use std::path::Path;

/// The kernel's own system call interface.
#[cfg(target_arch = "x86_64")]
const NATIVE: Arch = Arch::X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: Arch = Arch::Aarch64;
#[cfg(target_arch = "riscv64")]
const NATIVE: Arch = Arch::Riscv64;
#[cfg(target_arch = "loongarch64")]
const NATIVE: Arch = Arch::Loongarch64;
#[cfg(target_arch = "s390x")]
const NATIVE: Arch = Arch::S390x;
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
const NATIVE: Arch = Arch::Ppc64le;

/// The last capability of Linux 5.15, the oldest kernel that is supported, and of all since: `CAP_CHECKPOINT_RESTORE`.
pub(crate) const LAST_CAP: u8 = 40;

/// Whether resctrl is mounted at its place.
pub(crate) fn has_resctrl() -> bool {
    Path::new("/sys/fs/resctrl/schemata").exists()
}

impl Runtime {
    /// What this machine is and can do.
    ///
    /// # Errors
    /// `/proc` cannot be read, or systemd does not answer although it is to make the cgroup.
    pub fn host(&self) -> Result<Host> {
        let mut host = self.host_for(&Spec::default())?;
        host.cgroup.huge_page_sizes = offshoot_cgroup::huge_page_sizes();
        Ok(host)
    }

    /// As [`Runtime::host`], without what only other configurations need.
    pub(crate) fn host_for(&self, spec: &Spec) -> Result<Host> {
        let mut host = match &self.common {
            Some(common) => common.host.clone(),
            None => {
                let user = || Driver::Systemd { user: self.is_rootless() };
                facts(self.cgroup_host(if self.systemd_cgroup { user() } else { Driver::Fs })?)
            }
        };
        let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        if resources.is_some_and(|resources| !resources.hugepage_limits.is_empty()) {
            host.cgroup.huge_page_sizes = offshoot_cgroup::huge_page_sizes();
        }
        Ok(host)
    }

    /// What a further process depends on: not the cgroups, which exist.
    pub(crate) fn exec_host(&self) -> Host {
        let none = CgroupHost {
            mode: Mode::V2,
            hierarchies: Vec::new(),
            unified: None,
            in_userns: false,
            huge_page_sizes: Vec::new(),
            systemd: None,
        };
        facts(none)
    }

    pub(crate) fn cgroup_host(&self, driver: Driver) -> Result<CgroupHost> {
        let failed = |error| Error::cgroup("failed to look at the host's cgroups", &error);
        let mut host = offshoot_cgroup::probe().map_err(failed)?;
        if let Driver::Systemd { user } = driver {
            host.systemd = Some(offshoot_cgroup::probe_systemd(user).map_err(failed)?);
        }
        Ok(host)
    }
}

fn facts(cgroup: CgroupHost) -> Host {
    Host {
        euid: nix::unistd::geteuid().as_raw(),
        in_user_namespace: cgroup.in_userns,
        cgroup,
        seccomp: seccomp(),
        apparmor: fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        last_cap: last_cap(),
        bounding: bounding(),
        resctrl: has_resctrl(),
    }
}

/// What the kernel's system call filters can do.
pub(crate) fn seccomp() -> Kernel {
    // The kernel takes the last only together with the one before it.
    let killable = flag::NEW_LISTENER | flag::WAIT_KILLABLE_RECV;
    let known = [flag::LOG, flag::SPEC_ALLOW, flag::NEW_LISTENER, killable];
    let flags = known.into_iter().filter(|flag| flag_available(*flag)).fold(0, |all, flag| all | flag);
    Kernel { native: NATIVE, flags }
}

/// Says what of a profile cannot be loaded here, in a sentence.
///
/// # Errors
/// That.
pub fn check_seccomp(profile: &offshoot_spec::Seccomp) -> std::result::Result<(), String> {
    let told = |all: Vec<offshoot_seccomp::Problem>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    offshoot_seccomp::compile(profile, &seccomp()).map(drop).map_err(told)
}

/// The kernel's highest capability number.
pub(crate) fn last_cap() -> u8 {
    number("/proc/sys/kernel/cap_last_cap").unwrap_or(LAST_CAP)
}

fn number(path: &str) -> Option<u8> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The caller's bounding set: what it can give away. Without `/proc` the kernel decides.
pub(crate) fn bounding() -> u64 {
    // Not by `std`, which starts with 32 bytes where a file does not tell its size.
    let status = path::open("/proc/self/status", libc::O_RDONLY, 0).and_then(|file| path::read_to_end(file, 1 << 16));
    status.ok().and_then(|status| bounding_of(&String::from_utf8_lossy(&status))).unwrap_or(u64::MAX)
}

fn bounding_of(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_read_in_hexadecimal() {
        assert_eq!(bounding_of("Name:\tx\nCapBnd:\t000001ffffffffff\nCapAmb:\t0\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(bounding_of(""), None);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let runtime = Runtime::new(Some(Path::new("/nowhere")), crate::Log::none()).unwrap();
        let host = runtime.host().unwrap();
        assert!(host.last_cap >= LAST_CAP);
        assert!(host.seccomp.flags & flag::LOG != 0);
    }
}
