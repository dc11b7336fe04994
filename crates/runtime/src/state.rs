//! What is kept on disk about a container: `<root>/<id>/state.json`.
//!
//! The first keys are those of runc's private file that other programs read (cAdvisor, network plugins). The others
//! are ours; a file of a later version than [`VERSION`] is refused rather than half understood.

use crate::rootfs::CloneView;
use crate::{Error, Kind, Result};
use offshoot_cgroup::CgroupState;
use offshoot_spec::{Hook, Resources};
use offshoot_system::Init;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The version of the file that this program writes.
pub const VERSION: u32 = 1;

const NAME: &str = "state.json";

/// A container's record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The container's name.
    pub id: String,
    /// The container's first process, in the caller's pid namespace; 0 until there is one.
    pub init_process_pid: i32,
    /// When that process started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub init_process_start: u64,
    /// When the container was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The part of runc's configuration that others read.
    pub config: ConfigView,
    /// Whether the container was made without root's rights.
    pub rootless: bool,
    /// Absolute cgroup directories by controller; under cgroup v2 one with an empty name.
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// `/proc/<pid>/ns/<name>` by clone flag without `CLONE_`: `NEWNET`.
    pub namespace_paths: BTreeMap<String, PathBuf>,
    /// What descriptors 0, 1 and 2 of the first process were: `/dev/null`, `pipe:[42]`.
    pub external_descriptors: Vec<String>,
    /// Directory of the resctrl group.
    pub intel_rdt_path: PathBuf,
    /// Directory of the resctrl monitoring group, which is always the container's own.
    pub intel_rdt_mon_path: PathBuf,

    /// [`VERSION`] of the program that wrote the file.
    pub version: u32,
    /// The version of the specification that the bundle was written for.
    pub oci_version: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Labels of the container.
    pub annotations: BTreeMap<String, String>,
    /// Whether the pid namespace is the container's own, so that its init takes all others along.
    pub own_pid_namespace: bool,
    /// The cgroup, as it is to be or as it is.
    pub cgroup: Option<CgroupState>,
    /// Whether the cgroup was found unused and made ready. Before that, processes in it may be anybody's.
    pub cgroup_made: bool,
    /// Id of the root filesystem's mount, where the container has no mount namespace and it was mounted on the host.
    pub root_mount: Option<u64>,
    /// The limits in force: those of `config.json` as changed by `update`.
    pub resources: Resources,
    /// Whether there is a program to start.
    pub has_process: bool,
    /// Hooks to run in `start`.
    pub poststart: Vec<Hook>,
    /// Hooks to run after `delete`.
    pub poststop: Vec<Hook>,
    /// Whether the resctrl group was made for this container and goes with it.
    pub owns_intel_rdt: bool,
    /// The clone that is its root filesystem; written down before the clone is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneView>,
    /// The first id of a system container's own range.
    pub first_id: Option<u32>,
    /// The init of a system container.
    pub init: Option<Init>,
    /// Whether it is a system container.
    pub is_system: bool,
}

/// What others read of runc's `config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigView {
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// Labels as runc keeps them: `key=value`, and `bundle=…`.
    pub labels: Vec<String>,
}

impl State {
    /// Reads the record in the state directory `dir`.
    ///
    /// # Errors
    /// The container does not exist, or its record cannot be read.
    pub fn load(dir: &Path) -> Result<State> {
        let path = dir.join(NAME);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::NotFound, "container does not exist"),
            _ => Error::io(format_args!("read {}", path.display()), &error),
        })?;
        let state: State = serde_json::from_slice(&text)
            .map_err(|error| Error::new(Kind::System, format!("failed to read {}: {error}", path.display())))?;
        if state.version > VERSION {
            let message = format!("failed to read {}: written by a later version of offshoot", path.display());
            return Err(Error::new(Kind::System, message));
        }
        Ok(state)
    }

    /// Whether the container's processes have nothing in common by which they could be found.
    pub fn is_scattered(&self) -> bool {
        let cgroups = self.cgroup.as_ref().is_some_and(|cgroup| !cgroup.hierarchies.is_empty());
        self.rootless && !self.own_pid_namespace && !cgroups
    }

    /// Writes the record into the state directory `dir`: as a whole or not at all, since the runtime may be killed
    /// at any moment. The directory is on a tmpfs, so nothing is flushed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let failed = |error: &std::io::Error| Error::io(format_args!("write {}", dir.join(NAME).display()), error);
        let text = serde_json::to_vec(self).map_err(|error| failed(&error.into()))?;
        let temporary = dir.join(".state.json");
        let mut options = OpenOptions::new();
        let written = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = written.and_then(|mut file| file.write_all(&text));
        written.and_then(|()| fs::rename(&temporary, dir.join(NAME))).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_record_survives_the_disk() {
        let scratch = Scratch::new("state");
        let state = State {
            id: "x".into(),
            init_process_pid: 42,
            version: VERSION,
            config: ConfigView { rootfs: "/b/rootfs".into(), labels: vec!["bundle=/b".into()] },
            cgroup_paths: [("memory".to_owned(), PathBuf::from("/sys/fs/cgroup/memory/x"))].into(),
            ..State::default()
        };
        state.save(scratch.path()).unwrap();
        state.save(scratch.path()).unwrap();
        assert_eq!(State::load(scratch.path()).unwrap(), state);
        let text = fs::read_to_string(scratch.path().join(NAME)).unwrap();
        for key in ["\"init_process_pid\":42", "\"cgroup_paths\":{\"memory\"", "\"config\":{\"rootfs\":\"/b/rootfs\""] {
            assert!(text.contains(key), "{key} in {text}");
        }
    }

    #[test]
    fn no_record_is_no_container() {
        let scratch = Scratch::new("no-state");
        assert_eq!(State::load(scratch.path()).unwrap_err().to_string(), "container does not exist");
    }

    #[test]
    fn a_later_version_is_refused() {
        let scratch = Scratch::new("later");
        State { version: VERSION + 1, ..State::default() }.save(scratch.path()).unwrap();
        assert!(State::load(scratch.path()).unwrap_err().to_string().contains("later version"));
    }
}
