//! What a container is doing, and which verbs that allows: two pure tables.

use crate::{Error, Kind, Result};
use std::fmt;

/// spec: runtime.md#state; `paused` is runc's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `create` has not returned, or was killed before it could.
    Creating,
    /// The process waits for `start`.
    Created,
    /// The process runs.
    Running,
    /// All processes are frozen.
    Paused,
    /// The process is gone.
    Stopped,
}

/// What can be seen of a container from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether a process was ever recorded.
    pub has_init: bool,
    /// Whether that very process exists and is not a zombie.
    pub alive: bool,
    /// Whether the FIFO that `start` opens is there.
    pub waits: bool,
    /// Whether the cgroup is frozen.
    pub frozen: bool,
}

/// The status that `observed` amounts to.
pub fn status(observed: Observed) -> Status {
    match observed {
        Observed { has_init: false, .. } => Status::Creating,
        Observed { alive: false, .. } => Status::Stopped,
        Observed { frozen: true, .. } => Status::Paused,
        Observed { waits: true, .. } => Status::Created,
        Observed { .. } => Status::Running,
    }
}

/// What a caller wants to do with a container that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Let the process go.
    Start,
    /// Send a signal.
    Kill,
    /// Remove what is left.
    Delete,
    /// Remove it, whatever it does.
    ForceDelete,
    /// Run a further process.
    Exec,
    /// Run a further process, frozen or not.
    ExecIgnorePaused,
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Follow what happens in it.
    Events,
    /// Save it to files.
    Checkpoint,
    /// Change its limits.
    Update,
}

/// Whether a container of this status allows the verb.
///
/// # Errors
/// In runc's words, which containerd, CRI-O and Podman look for.
pub fn allowed(id: &str, status: Status, verb: Verb) -> Result<()> {
    use Status::{Created, Creating, Paused, Running, Stopped};
    let refused = match (verb, status) {
        (Verb::ForceDelete, _)
        | (Verb::Start | Verb::Delete, Created)
        | (Verb::Delete, Creating | Stopped)
        | (Verb::Kill | Verb::Events | Verb::Update, Created | Running | Paused)
        | (Verb::Exec, Created | Running)
        | (Verb::ExecIgnorePaused, Created | Running | Paused)
        | (Verb::Pause, Created | Running)
        | (Verb::Resume, Paused)
        | (Verb::Checkpoint, Running | Paused) => return Ok(()),
        (Verb::Start, Running) => "cannot start an already running container".to_owned(),
        (Verb::Start, Stopped) => "cannot start a container that has stopped".to_owned(),
        (Verb::Start, Creating | Paused) => format!("cannot start a container in the {status} state"),
        (Verb::Delete, Running | Paused) => format!("cannot delete container {id} that is not stopped: {status}"),
        (Verb::Exec | Verb::ExecIgnorePaused, Creating | Stopped) => "cannot exec in a stopped container".to_owned(),
        (Verb::Exec, Paused) => "cannot exec in a paused container (use --ignore-paused to override)".to_owned(),
        (Verb::Resume, _) => "container not paused".to_owned(),
        (Verb::Events, Creating | Stopped) => format!("container with id {id} is not running"),
        (Verb::Checkpoint, _) => format!("Container cannot be checkpointed in {status} state"),
        (Verb::Kill | Verb::Update, Creating | Stopped) | (Verb::Pause, Creating | Paused | Stopped) => {
            "container not running".to_owned()
        }
    };
    Err(Error::new(Kind::Status, refused))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_observation_has_its_status() {
        for bits in 0..16u8 {
            let observed =
                Observed { has_init: bits & 1 != 0, alive: bits & 2 != 0, waits: bits & 4 != 0, frozen: bits & 8 != 0 };
            let expected = match bits {
                0b1111 | 0b1011 => Status::Paused,
                0b0111 => Status::Created,
                0b0011 => Status::Running,
                _ if bits & 1 != 0 => Status::Stopped,
                _ => Status::Creating,
            };
            assert_eq!(status(observed), expected, "{observed:?}");
        }
    }

    #[test]
    fn every_verb_in_every_status() {
        use Status::{Created, Creating, Paused, Running, Stopped};
        const ALL: [Status; 5] = [Creating, Created, Running, Paused, Stopped];
        for (verb, good) in [
            (Verb::Start, &[Created][..]),
            (Verb::Kill, &[Created, Running, Paused]),
            (Verb::Delete, &[Creating, Created, Stopped]),
            (Verb::ForceDelete, &ALL),
            (Verb::Exec, &[Created, Running]),
            (Verb::ExecIgnorePaused, &[Created, Running, Paused]),
            (Verb::Pause, &[Created, Running]),
            (Verb::Resume, &[Paused]),
            (Verb::Events, &[Created, Running, Paused]),
            (Verb::Checkpoint, &[Running, Paused]),
            (Verb::Update, &[Created, Running, Paused]),
        ] {
            for status in ALL {
                assert_eq!(allowed("x", status, verb).is_ok(), good.contains(&status), "{verb:?} {status}");
            }
        }
    }

    #[test]
    fn refusals_are_runc_s() {
        let text = |status, verb| allowed("x", status, verb).unwrap_err().to_string();
        assert_eq!(text(Status::Running, Verb::Delete), "cannot delete container x that is not stopped: running");
        assert_eq!(text(Status::Paused, Verb::Start), "cannot start a container in the paused state");
        assert_eq!(text(Status::Stopped, Verb::Kill), "container not running");
        assert_eq!(text(Status::Stopped, Verb::Events), "container with id x is not running");
    }
}
