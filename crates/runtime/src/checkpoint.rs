//! `checkpoint`

use crate::rootfs::ANNOTATION;
use crate::status::Verb;
use crate::system::not_by_criu;
use crate::{Container, Error, Kind, Result, Runtime, bundle, cause};
use offshoot_engine::criu::{Dump, Flags, dump};
use offshoot_plan::cgroup::Driver;
use offshoot_plan::{Plan, Request};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How a container is dumped.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The directory for the images; empty for `checkpoint` in the working directory.
    pub images: PathBuf,
    /// The directory for CRIU's log.
    pub work: Option<PathBuf>,
    /// The directory of an earlier dump, relative to that of the images.
    pub parent: Option<PathBuf>,
    /// Choices.
    pub flags: Flags,
    /// Dump memory only, and let the container go on.
    pub pre_dump: bool,
    /// Send memory to a page server.
    pub page_server: Option<(String, u16)>,
    /// Gets a NUL when pages can be asked for.
    pub status: Option<OwnedFd>,
}

/// Where images are when nothing else is said, as runc has it.
pub(crate) fn images(given: &Path) -> Result<PathBuf> {
    let wanted = if given.as_os_str().is_empty() { Path::new("checkpoint") } else { given };
    std::path::absolute(wanted).map_err(|error| Error::io("find the directory of the images", &error))
}

impl Runtime {
    /// Dumps a container's processes into files. Unless it is left running, the container is gone then.
    ///
    /// # Errors
    /// The container is not running, or CRIU cannot dump it; then it goes on.
    pub fn checkpoint(&self, id: &str, wanted: Checkpoint) -> Result<()> {
        if self.is_rootless() {
            self.log.warn("checkpoint is untested with rootless containers");
        }
        let container = self.lock(id)?;
        if container.state.is_system {
            return Err(not_by_criu(id));
        }
        container.allow(Verb::Checkpoint)?;
        let goes = !wanted.pre_dump && !wanted.flags.leave_running;
        if goes && container.state.clone.as_ref().is_some_and(|clone| !clone.keep) {
            let hint = format!("say keep=true in the annotation {ANNOTATION}, or leave the container running");
            let message = format!("container {id} is on a clone that goes with it: its images could not be restored");
            return Err(Error::new(Kind::Request, message).with_hint(Some(hint)));
        }
        let images = images(&wanted.images)?;
        let plan = self.plan_of(&container)?;
        let request = Dump {
            plan: &plan,
            pid: container.state.init_process_pid,
            descriptors: &container.state.external_descriptors,
            images: &images,
            work: wanted.work.as_deref(),
            parent: wanted.parent.as_deref(),
            flags: &wanted.flags,
            pre_dump: wanted.pre_dump,
            page_server: wanted.page_server.as_ref(),
            status: wanted.status,
        };
        dump(request, &self.log).map_err(|error| Error::new(Kind::System, error.to_string()))?;
        if goes {
            // The dump is done and good; what is left behind is for `delete`.
            if let Err(error) = self.delete_locked(container, true) {
                self.log.warn(error);
            }
        }
        Ok(())
    }

    /// The plan that a container was made by, from the copy of its configuration.
    fn plan_of(&self, container: &Container) -> Result<Plan> {
        let state = &container.state;
        let file = container.config();
        let text = fs::read(&file).map_err(|error| Error::io(format_args!("read {}", file.display()), &error))?;
        let spec = bundle::parse(&text).map_err(|cause| bundle::cause_of(&file, &cause))?;
        let driver = state.cgroup.as_ref().map(|cgroup| cgroup.driver);
        let systemd_cgroup = matches!(driver, Some(Driver::Systemd { .. }));
        let notify = container.dir.join("notify");
        let request = Request {
            id: state.id.clone(),
            bundle: state.bundle.clone(),
            systemd_cgroup,
            rootless: state.rootless,
            notify_dir: notify.is_dir().then_some(notify),
            root_mount: state.clone.is_some().then(|| state.config.rootfs.clone()),
            ..Request::default()
        };
        let host = self.clone().systemd_cgroup(systemd_cgroup).host()?;
        let mut plan = offshoot_plan::build(&spec, &request, &host).map_err(|problems| Error::problems(&problems))?;
        // Where they are now: the plan would put them beside the cgroup of this process.
        if let Some(cgroup) = &state.cgroup {
            plan.cgroup.hierarchies.clone_from(&cgroup.hierarchies);
        }
        Ok(plan)
    }
}

/// A descriptor of the caller's by its number, to write to.
///
/// # Errors
/// In runc's words.
pub fn status_fd(number: i64) -> Result<OwnedFd> {
    let wrong = |cause: &str| Error::new(Kind::Request, format!("invalid --status-fd argument {number}: {cause}"));
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).map_err(|_| wrong("bad file descriptor"))?;
    if !is_writable(&info) {
        return Err(wrong("not writable"));
    }
    let file = fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"));
    file.map(OwnedFd::from).map_err(|error| wrong(&cause(&error)))
}

/// man 5 proc_pid_fdinfo: the flags are octal, and the last two bits say how the file was opened.
fn is_writable(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).is_some_and(|flags| flags & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_in_the_working_directory() {
        assert_eq!(images(Path::new("/x")).unwrap(), Path::new("/x"));
        assert_eq!(images(Path::new("")).unwrap(), std::env::current_dir().unwrap().join("checkpoint"));
    }

    #[test]
    fn a_status_descriptor_is_open_for_writing() {
        assert!(is_writable("pos:\t0\nflags:\t0100001\n") && is_writable("flags:\t02\n"));
        assert!(!is_writable("flags:\t0100000\n") && !is_writable(""));
        let text = status_fd(100_000).unwrap_err().to_string();
        assert_eq!(text, "invalid --status-fd argument 100000: bad file descriptor");
    }
}
