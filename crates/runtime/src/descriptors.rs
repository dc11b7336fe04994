//! Descriptors that the caller hands to the container's process: those of socket activation, and `--preserve-fds`.

use crate::{Error, Kind, Result};
use std::fs;

/// The first descriptor after standard input, output and error.
const FIRST: u32 = 3;

/// `open(2)`, as `/proc/<pid>/fdinfo` shows it.
const O_CLOEXEC: u32 = 0o2_000_000;

/// What is passed on, from descriptor 3 upwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// How many are those of `$LISTEN_FDS`; they come first.
    pub listen: u32,
    /// Their names, `$LISTEN_FDNAMES`.
    pub names: Option<String>,
    /// All of them, those of `$LISTEN_FDS` included.
    pub total: u32,
}

impl Descriptors {
    /// What this process was given by socket activation (man 3 sd_listen_fds) and `preserve` further descriptors.
    ///
    /// # Errors
    /// One of the further descriptors does not exist.
    pub fn inherited(preserve: u32) -> Result<Descriptors> {
        let variable = |name: &str| std::env::var(name).ok();
        let meant_for_us = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
        let listen = variable("LISTEN_FDS").filter(|_| meant_for_us).and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = variable("LISTEN_FDNAMES").filter(|_| listen > 0);
        Self::check(listen, names, preserve)
    }

    /// Those of `preserve` further descriptors only, as `exec` passes them.
    ///
    /// # Errors
    /// One of them does not exist.
    pub fn preserved(preserve: u32) -> Result<Descriptors> {
        Self::check(0, None, preserve)
    }

    fn check(listen: u32, names: Option<String>, preserve: u32) -> Result<Descriptors> {
        for index in 0..preserve {
            if !is_inherited(FIRST + listen + index) {
                let message = format!("unable to stat preserved-fd {index} (of {preserve}): no such file or directory");
                return Err(Error::new(Kind::Request, message));
            }
        }
        Ok(Descriptors { listen, names, total: listen + preserve })
    }
}

/// Whether a descriptor came from the caller. Those that this program opened are closed on exec; inherited ones
/// cannot be, having come through one.
fn is_inherited(number: u32) -> bool {
    fs::read_to_string(format!("/proc/self/fdinfo/{number}")).is_ok_and(|info| is_kept_on_exec(&info))
}

fn is_kept_on_exec(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).is_some_and(|flags| flags & O_CLOEXEC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn own_descriptors_are_not_passed_on() {
        let own = File::open("/dev/null").unwrap();
        assert!(!is_inherited(u32::try_from(own.as_raw_fd()).unwrap()));
        assert!(is_inherited(0) && !is_inherited(9999));
    }

    #[test]
    fn flags_of_fdinfo_are_octal() {
        assert!(is_kept_on_exec("pos:\t0\nflags:\t0100002\nmnt_id:\t1\n"));
        assert!(!is_kept_on_exec("pos:\t0\nflags:\t02100000\n"));
        assert!(!is_kept_on_exec(""));
    }

    #[test]
    fn a_missing_descriptor_is_named() {
        let error = Descriptors::check(10_000, None, 2).unwrap_err();
        assert_eq!(error.to_string(), "unable to stat preserved-fd 0 (of 2): no such file or directory");
        assert_eq!(Descriptors::preserved(0).unwrap(), Descriptors::default());
    }
}
