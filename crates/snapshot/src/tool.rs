//! Running the tools of others: found in the usual places only, in the C locale, their complaint in the error.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result};

/// Where tools are looked for, whatever the caller's PATH says: they run as root.
const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A tool of the host, and the package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

impl Tool {
    /// Where it is.
    pub(crate) fn find(self) -> Result<PathBuf> {
        let paths = PLACES.iter().map(|place| PathBuf::from(place).join(self.name));
        paths.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("there is no {} on this machine", self.name))
                .with_hint(format!("install the package {}", self.package))
        })
    }

    /// A command to add to.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(self.find()?);
        command.env("LC_ALL", "C").env("PATH", PLACES.join(":")).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it to its end; returns what it printed.
    pub(crate) fn run(self, args: &[&str]) -> Result<String> {
        let mut command = self.command()?;
        let output =
            command.args(args).output().map_err(|error| Error::io(format!("execve({:?})", self.name), &error))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(self.failed(args, &output.stderr)),
        }
    }

    /// The error of a tool that failed: what it calls an error first, else its last words.
    pub(crate) fn failed(self, args: &[&str], stderr: &[u8]) -> Error {
        let text = String::from_utf8_lossy(stderr);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said = match lines.iter().find(|line| line.starts_with("E: ")) {
            Some(error) => error[3..].to_owned(),
            None => lines[lines.len().saturating_sub(3)..].join("; "),
        };
        let command: Vec<_> = [self.name].iter().chain(args).copied().collect();
        Error::new(Kind::System, format!("{}: {said}", command.join(" ")))
    }
}
