//! `pause` and `resume`

use crate::call::Call;
use crate::command::{Command, Count};
use crate::failure::Failure;
use offshoot_runtime::{Error, Kind, Log};

/// `offshoot pause`
pub static PAUSE: Command = Command::new("pause", "stop all processes of the container for a while", pause)
    .takes("<container-id>", Count::Exactly(1))
    .details("The processes stay where they are, frozen, until the container is resumed.");

/// `offshoot resume`
pub static RESUME: Command = Command::new("resume", "let the processes of a paused container go on", resume)
    .takes("<container-id>", Count::Exactly(1));

fn pause(call: &Call) -> Result<u8, Failure> {
    let paused = call.runtime()?.pause(call.id()?);
    paused.map(|()| 0).map_err(|error| hinted(&call.log, "pause", error))
}

fn resume(call: &Call) -> Result<u8, Failure> {
    let resumed = call.runtime()?.resume(call.id()?);
    resumed.map(|()| 0).map_err(|error| hinted(&call.log, "resume", error))
}

/// Without root's rights, the usual reason is that nobody delegated the cgroup.
pub fn hinted(log: &Log, command: &str, error: Error) -> Failure {
    if error.kind() == Kind::Permission {
        log.warn(format_args!("{command} failure might be caused by lack of full access to cgroups"));
    }
    error.into()
}
