//! How a whole system ended: by reboot, by power off, or as any program does.

use crate::create::New;
use crate::{Error, Result};
use offshoot_sys::fork::{self, Exit};
use offshoot_sys::libc::{SIGHUP, SIGINT};

/// The end of a container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `reboot` was called inside: to be started again.
    Reboot,
    /// The system was halted or powered off.
    PowerOff,
    /// It exited with this status, or 128 and the number of the signal that killed it.
    Exit(u8),
}

impl Ended {
    /// In a pid namespace reboot(2) kills the init by a signal that tells the commands apart. man 2 reboot
    pub fn of(exit: Exit, is_system: bool) -> Ended {
        match exit {
            Exit::Signal(SIGHUP) if is_system => Ended::Reboot,
            Exit::Signal(SIGINT) if is_system => Ended::PowerOff,
            exit => Ended::Exit(u8::try_from(exit.status()).unwrap_or(u8::MAX)),
        }
    }
}

impl New {
    /// Waits for the end of the first process, which has to be a child of the calling one.
    ///
    /// # Errors
    /// It is not, or was waited for already.
    pub fn wait(&self) -> Result<Ended> {
        let failed = |error: offshoot_sys::Error| Error::io("wait for the container's process", &error.into());
        fork::wait(&self.pidfd).map(|exit| Ended::of(exit, self.container.state.is_system)).map_err(failed)
    }

    /// How the first process ended; none as long as it runs.
    ///
    /// # Errors
    /// As [`New::wait`].
    pub fn ended(&self) -> Result<Option<Ended>> {
        let failed = |error: offshoot_sys::Error| Error::io("look at the container's process", &error.into());
        let exit = fork::try_wait(&self.pidfd).map_err(failed)?;
        Ok(exit.map(|exit| Ended::of(exit, self.container.state.is_system)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_system_reboots() {
        assert_eq!(Ended::of(Exit::Signal(SIGHUP), true), Ended::Reboot);
        assert_eq!(Ended::of(Exit::Signal(SIGINT), true), Ended::PowerOff);
        assert_eq!(Ended::of(Exit::Signal(SIGHUP), false), Ended::Exit(129));
        assert_eq!(Ended::of(Exit::Code(7), true), Ended::Exit(7));
    }
}
