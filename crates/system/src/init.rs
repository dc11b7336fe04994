//! Inits: how they are known, and how each of them is told to stop.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// An init that can be pid 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Init {
    Systemd,
    Sysvinit,
    OpenRc,
    Runit,
    S6,
    Busybox,
}

/// What makes an init shut the system down in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal, by its number on Linux (glibc's `SIGRTMIN` is 34).
    Signal(i32),
    /// A command in the container.
    Command(&'static [&'static str]),
    /// SIGTERM to a child of the init with this name; the command if there is none.
    Child(&'static str, &'static [&'static str]),
}

const SIGUSR2: i32 = 12;
const SIGTERM: i32 = 15;
/// `SIGRTMIN+3`, man 1 systemd.
const SYSTEMD_HALT: i32 = 37;

impl Init {
    /// By the name that is called and the file that it leads to in the root filesystem, symlinks resolved; `inittab`
    /// is whether there is an `/etc/inittab`, which sysvinit needs and which nothing else called `init` has.
    pub fn detect(program: &Path, file: &Path, inittab: bool) -> Option<Init> {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (called, file) = (name(program), name(file));
        match file.as_str() {
            "systemd" => Some(Init::Systemd),
            "openrc-init" => Some(Init::OpenRc),
            "runit" | "runit-init" => Some(Init::Runit),
            "s6-svscan" | "s6-linux-init" | "s6-overlay-suexec" => Some(Init::S6),
            // Every applet is a link to it: only the ones that can be an init count.
            "busybox" | "busybox.static" => matches!(called.as_str(), "init" | "linuxrc").then_some(Init::Busybox),
            "init" if inittab => Some(Init::Sysvinit),
            _ => None,
        }
    }

    /// How it is told to stop: what ends with power off, so that it can be told from a reboot.
    pub fn stop(self) -> Stop {
        match self {
            Init::Systemd => Stop::Signal(SYSTEMD_HALT),
            // SIGINT would reboot, SIGTERM does nothing.
            Init::Sysvinit => Stop::Command(&["/sbin/init", "0"]),
            // A signal before the default runlevel is reached would leave it hanging.
            Init::OpenRc => Stop::Command(&["/sbin/openrc-shutdown", "-p", "now"]),
            // What `init 0` has runit do to its stage 2. Runit itself then sleeps for a second, as it looks at once whether
            // that has ended (runit.c); told by the end of stage 2, it goes on to stage 3, which stops the services. In
            // stage 1 it does not listen, and is asked until it does.
            Init::Runit => Stop::Child("runsvdir", &["/bin/sh", "-c", "while :; do /sbin/init 0; sleep 1; done"]),
            Init::S6 => Stop::Signal(SIGTERM),
            // SIGTERM would reboot.
            Init::Busybox => Stop::Signal(SIGUSR2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inits_are_known_by_where_their_names_lead() {
        let detect = |program: &str, file: &str| Init::detect(program.as_ref(), file.as_ref(), true);
        assert_eq!(detect("/sbin/init", "/usr/lib/systemd/systemd"), Some(Init::Systemd));
        assert_eq!(detect("/sbin/init", "/usr/sbin/openrc-init"), Some(Init::OpenRc));
        assert_eq!(detect("/sbin/init", "/usr/lib/runit/runit-init"), Some(Init::Runit));
        assert_eq!(detect("s6-svscan", "/usr/bin/s6-svscan"), Some(Init::S6));
        assert_eq!(detect("/sbin/init", "/bin/busybox"), Some(Init::Busybox));
        assert_eq!(detect("/sbin/init", "/usr/sbin/init"), Some(Init::Sysvinit));
    }

    #[test]
    fn what_is_no_init_is_none() {
        let detect = |program: &str, file: &str| Init::detect(program.as_ref(), file.as_ref(), false);
        assert_eq!(detect("sh", "/bin/busybox"), None);
        assert_eq!(detect("/init", "/init"), None);
        assert_eq!(detect("", ""), None);
    }
}
