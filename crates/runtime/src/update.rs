//! `update`

use crate::status::Verb;
use crate::{Container, Error, Kind, Result, Runtime};
use offshoot_plan::cgroup;
use offshoot_spec::Resources;
use std::fs;

/// What `update` changes beside `linux.resources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schemata {
    /// The L3 line of the resctrl group; empty leaves it.
    pub l3: String,
    /// The MB line; empty leaves it.
    pub memory_bandwidth: String,
}

impl Runtime {
    /// Changes a container's limits. What `changes` leaves out stays as it is; devices stay in any case.
    ///
    /// # Errors
    /// The container is not running, or a limit cannot be set; then all are as before.
    pub fn update(&self, id: &str, changes: &Resources, schemata: &Schemata) -> Result<()> {
        let mut container = self.lock(id)?;
        container.allow(Verb::Update)?;
        check_schemata(&container, schemata)?;
        let merged = cgroup::merge(&container.state.resources, changes);
        self.apply(&container, &merged)?;
        set_schemata(&container, schemata)?;
        container.state.resources = merged;
        container.save()
    }

    fn apply(&self, container: &Container, wanted: &Resources) -> Result<()> {
        let Some(state) = &container.state.cgroup else {
            return Err(Error::new(Kind::System, "the container has no cgroup"));
        };
        let mut host = self.cgroup_host(state.driver)?;
        host.huge_page_sizes = offshoot_cgroup::huge_page_sizes();
        let limits = |resources: &Resources| {
            cgroup::update(resources, state.driver, &host).map_err(|problems| Error::problems(&problems))
        };
        let (wanted, warnings) = limits(wanted)?;
        for warning in warnings {
            self.log.warn(warning);
        }
        let cgroup = container.cgroup()?;
        cgroup.update(&wanted).map_err(|error| {
            // Some of the limits may be set already.
            if let Err(second) = limits(&container.state.resources).and_then(|(before, _)| {
                cgroup.update(&before).map_err(|error| Error::cgroup("unable to restore the limits", &error))
            }) {
                self.log.warn(format_args!("{second}: the limits may differ from the recorded ones"));
            }
            Error::cgroup("unable to set the limits", &error)
        })
    }
}

/// Before any limit is changed: whether there is a group to write to. The words are runc's.
fn check_schemata(container: &Container, schemata: &Schemata) -> Result<()> {
    let lines = [&schemata.l3, &schemata.memory_bandwidth];
    let problem = if lines.iter().all(|line| line.is_empty()) {
        return Ok(());
    } else if lines.iter().any(|line| line.contains('\n')) {
        "a schema must not contain a line break"
    } else if !crate::host::has_resctrl() && !schemata.l3.is_empty() {
        "Intel RDT/CAT: l3 cache schema is not enabled"
    } else if !crate::host::has_resctrl() {
        "Intel RDT/MBA: memory bandwidth schema is not enabled"
    } else if container.state.intel_rdt_path.as_os_str().is_empty() {
        "updating a non-existent Intel RDT configuration is not supported"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Request, problem))
}

fn set_schemata(container: &Container, schemata: &Schemata) -> Result<()> {
    let file = container.state.intel_rdt_path.join("schemata");
    for line in [&schemata.l3, &schemata.memory_bandwidth].into_iter().filter(|line| !line.is_empty()) {
        fs::write(&file, format!("{line}\n"))
            .map_err(|error| Error::io(format_args!("write {line:?} to {}", file.display()), &error))?;
    }
    Ok(())
}
