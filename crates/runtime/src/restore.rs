//! `restore`

use crate::bundle::Bundle;
use crate::checkpoint::images;
use crate::connect::{Console, receive_master};
use crate::container::CONFIG;
use crate::create::{Decision, note, record};
use crate::foreground::{Foreground, Subject};
use crate::launch::Launch;
use crate::system::not_by_criu;
use crate::{Container, Error, Kind, Result, Runtime, cause, notify};
use offshoot_engine::criu::{Flags, Restore, restore};
use offshoot_engine::{Created, Progress};
use offshoot_plan::Plan;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Where a container comes from, and how.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The directory of the images; empty for `checkpoint` in the working directory.
    pub images: PathBuf,
    /// The directory for CRIU's log.
    pub work: Option<PathBuf>,
    /// Choices.
    pub flags: Flags,
    /// Another LSM profile than the one at the dump, `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// Another SELinux context for mounts.
    pub lsm_mount_context: Option<String>,
}

impl Runtime {
    /// Makes a container from the images of a checkpoint and the bundle it was made from. In the foreground, waits for
    /// its process, removes the container and returns the exit status; detached, returns 0 at once.
    ///
    /// # Errors
    /// What is wrong with the bundle, all at once, or what CRIU could not do. Nothing is left on the host then.
    pub fn restore(&self, launch: &Launch, source: &Source) -> Result<u8> {
        if self.is_rootless() {
            self.log.warn("restore is untested with rootless containers");
        }
        let bundle = Bundle::open(&launch.bundle)?;
        if self.asks_for_system(&bundle, self.look(launch, false))?.is_some() {
            return Err(not_by_criu(&launch.id));
        }
        let Decision { plan, mut rootfs } = self.decide(launch, &bundle, None)?;
        let terminal = plan.process.terminal;
        let foreground = match launch.detached {
            true => None,
            false => Some(Foreground::new(terminal, launch.subreaper, self.log.clone())?),
        };
        let socket = launch.connections.console_socket.as_deref();
        let (theirs, ours) = Console::open(terminal, launch.detached, socket)?.split();
        let mut container = self.reserve(record(&plan, &bundle, rootfs.as_ref(), None))?;
        let root = self.mount_clone(rootfs.as_mut(), &plan);
        let revived = root.and_then(|root| self.revive(&mut container, &bundle, &plan, root, theirs, source));
        let made = revived.and_then(|created| {
            let pidfd = created.pidfd.as_fd();
            launch.connections.announce(created.pid, pidfd, "standard")?;
            Ok((ours.map(receive_master).transpose()?, created))
        });
        let (master, created) = match made {
            Ok(made) => made,
            Err(error) => {
                self.abandon(&mut container);
                self.take_back(rootfs);
                return Err(error);
            }
        };
        // Others may look at the container, signal it and exec into it meanwhile.
        drop(container);
        let Some(foreground) = foreground else { return Ok(0) };
        let subject = Subject { pid: created.pid, pidfd: created.pidfd.as_fd() };
        let exit = foreground.wait(subject, master, None, &|signal| subject.signal(signal));
        match self.delete(&launch.id, true) {
            Err(error) if error.kind() != Kind::NotFound => self.log.warn(error),
            _ => {}
        }
        exit.map(|exit| u8::try_from(exit.status()).unwrap_or(u8::MAX))
    }

    fn revive(
        &self,
        container: &mut Container,
        bundle: &Bundle,
        plan: &Plan,
        rootfs: Option<OwnedFd>,
        console: Option<OwnedFd>,
        source: &Source,
    ) -> Result<Created> {
        fs::write(container.dir.join(CONFIG), &bundle.text).map_err(|error| Error::io("keep config.json", &error))?;
        if plan.has_notify_socket() {
            notify::make_directory(&container.dir)?;
        }
        let root = container.dir.join("criu-root");
        fs::create_dir(&root).map_err(|error| Error::io(format_args!("make {}", root.display()), &error))?;
        let request = Restore {
            plan,
            images: &images(&source.images)?,
            work: source.work.as_deref(),
            flags: &source.flags,
            lsm_profile: source.lsm_profile.as_deref(),
            lsm_mount_context: source.lsm_mount_context.as_deref(),
            mount_point: &root,
            root: rootfs.as_ref().map(AsFd::as_fd),
            console: console.as_ref().map(AsFd::as_fd),
        };
        let created = restore(&request, &self.log, &mut |progress| {
            if let Progress::Process(created) = &progress {
                let namespaces = fs::read(container.config()).map(|text| with_time(&text, created.pid));
                namespaces.and_then(|text| text.map_or(Ok(()), |text| fs::write(container.config(), text))).map_err(
                    |error| offshoot_engine::Error::new(format!("failed to keep config.json: {}", cause(&error))),
                )?;
            }
            note(container, progress);
            container.save().map_err(|error| offshoot_engine::Error::new(error.to_string()))
        });
        // What was mounted on it was so for CRIU only.
        let _ = fs::remove_dir(&root);
        created.map_err(|error| Error::new(Kind::System, error.to_string()))
    }
}

/// CRIU restores into a time namespace, so that clocks go on where they stopped. The kept configuration is to name it:
/// what `exec` starts has to be in it, too, or CRIU could not dump the container again.
fn with_time(text: &[u8], pid: i32) -> Option<Vec<u8>> {
    let id = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    if id(&pid.to_string()) == id("self") { None } else { name_time(text) }
}

fn name_time(text: &[u8]) -> Option<Vec<u8>> {
    let mut config: serde_json::Value = serde_json::from_slice(text).ok()?;
    let list = config.pointer_mut("/linux/namespaces")?.as_array_mut()?;
    if list.iter().any(|entry| entry["type"] == "time") {
        return None;
    }
    list.push(serde_json::json!({"type": "time"}));
    serde_json::to_vec(&config).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_namespace_is_named_once() {
        let text = name_time(br#"{"hostname":"h","linux":{"namespaces":[{"type":"pid"}]}}"#).unwrap();
        let spec = crate::bundle::parse(&text).unwrap();
        let kinds: Vec<_> = spec.linux.unwrap().namespaces.into_iter().map(|entry| entry.kind).collect();
        assert_eq!((kinds, spec.hostname.as_str()), (vec!["pid".to_owned(), "time".to_owned()], "h"));
        assert!(name_time(&text).is_none() && name_time(b"{}").is_none());
    }

    #[test]
    fn our_own_time_namespace_is_not_named() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(with_time(br#"{"linux":{"namespaces":[]}}"#, own).is_none());
    }
}
