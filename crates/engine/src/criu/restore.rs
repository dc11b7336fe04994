//! `restore`: files become a container's processes.

use super::message::{Flags, Kind, Options, request};
use super::swrk::{Notification, Start, Worker};
use super::{DESCRIPTORS, config_file, external, quote};
use crate::error::Context;
use crate::log::Log;
use crate::{Created, Error, Progress, Result, hooks};
use offshoot_cgroup::Cgroup;
use offshoot_plan::{HookKind, Kind as Namespace, Plan};
use offshoot_sys::fork::{self, Child};
use offshoot_sys::mount::{AT_RECURSIVE, OPEN_TREE_CLONE, mount_legacy, move_mount_to, open_tree, umount};
use offshoot_sys::{libc, path, pidfd, socket};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const LOG_FILE: &str = "restore.log";

type Save<'a> = dyn FnMut(Progress<'_>) -> Result<()> + 'a;

/// What is restored, and how.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The plan of the container to be.
    pub plan: &'a Plan,
    /// The directory of the images.
    pub images: &'a Path,
    /// The directory for CRIU's log and other files; the images' where there is none.
    pub work: Option<&'a Path>,
    /// Choices.
    pub flags: &'a Flags,
    /// Another LSM profile than the one at the dump, `TYPE:NAME`.
    pub lsm_profile: Option<&'a str>,
    /// Another SELinux context for mounts.
    pub lsm_mount_context: Option<&'a str>,
    /// The root filesystem as a detached mount, in place of the configuration's path.
    pub root: Option<BorrowedFd<'a>>,
    /// An empty directory that only we change, to mount the root filesystem on.
    pub mount_point: &'a Path,
    /// Where the terminal is sent, if there is one.
    pub console: Option<BorrowedFd<'a>>,
}

/// Restores a container. Its init is a child of this process. `save` writes down what exists, before its processes go on.
///
/// # Errors
/// What failed; of CRIU, with the lines of its log as warnings. Nothing is left on the host: no process, cgroup or mount.
pub fn restore(restore: &Restore<'_>, log: &Log, save: &mut Save<'_>) -> Result<Created> {
    let mut made = Made { restore, log, cgroup: None, resctrl: None, init: None };
    match made.all(save) {
        Ok(()) => made.created(),
        Err(error) => {
            made.undo();
            Err(error)
        }
    }
}

/// What exists so far of a container that is being restored.
struct Made<'a> {
    restore: &'a Restore<'a>,
    log: &'a Log,
    cgroup: Option<Cgroup>,
    resctrl: Option<crate::rdt::Group>,
    init: Option<Child>,
}

impl Made<'_> {
    fn all(&mut self, save: &mut Save<'_>) -> Result<()> {
        let restore = self.restore;
        let pipes = pipes(restore.images)?;
        let cgroup = Cgroup::prepare(&restore.plan.cgroup).map_err(|error| Error::new(error.to_string()))?;
        save(Progress::Cgroup(self.cgroup.insert(cgroup)))?;
        let joined = namespaces(restore.plan)?;
        let inherit: Vec<BorrowedFd<'_>> = joined.0.iter().map(|(_, fd)| fd.as_fd()).collect();
        let start = Start { stdio: true, inherit: &inherit, namespaces: Namespace::Mount.flag() };
        // In a mount namespace of CRIU's own, so that nothing of this is left behind whatever happens.
        let worker = Worker::start(&start, || prepare(restore))?;
        let result = self.converse(&worker, &joined, pipes, save);
        if result.is_err() {
            quote::quote(&restore.work.unwrap_or(restore.images).join(LOG_FILE), self.log);
        }
        let finished = worker.finish(result.is_err());
        result.and(finished)
    }

    fn converse(
        &mut self,
        worker: &Worker,
        (namespaces, joined): &Joined,
        pipes: Vec<(String, i32)>,
        save: &mut Save<'_>,
    ) -> Result<()> {
        let restore = self.restore;
        let plan = restore.plan;
        worker.session.check_version()?;
        let mut opened = worker.opened.iter().map(AsFd::as_fd);
        let images = opened.next().ok_or_else(|| Error::new("the images were not opened"))?;
        self.enter(worker.child.pid)?;
        let root = match restore.root {
            Some(mount) => path::openat2(Some(mount), ".", libc::O_PATH | libc::O_DIRECTORY, 0, 0),
            None => path::open(&plan.rootfs, libc::O_PATH | libc::O_DIRECTORY, 0),
        };
        let root = root.context(|| "open the root".into())?;
        let mut inherit: Vec<_> = namespaces.iter().map(|(key, fd)| (key.clone(), fd.as_raw_fd())).collect();
        inherit.extend(pipes);
        let options = Options {
            images,
            work: opened.next(),
            log_file: LOG_FILE,
            root: restore.mount_point,
            flags: restore.flags,
            pid: None,
            evasive_devices: true,
            rst_sibling: true,
            page_server: None,
            parent: None,
            config_file: config_file(&plan.annotations),
            freeze_cgroup: None,
            external_mounts: &external::restore_mounts(plan, root.as_fd()),
            external: &[],
            inherit: &inherit,
            join_namespaces: joined,
            cgroup_roots: &cgroups(worker.child.pid)?,
            lsm_profile: restore.lsm_profile,
            lsm_mount_context: restore.lsm_mount_context,
        };
        worker.session.run(&request(Kind::Restore, &options), &mut |step| self.follow(step, save)).map(drop)
    }

    /// Puts CRIU where the container belongs: what it restores is in the same cgroups.
    fn enter(&mut self, pid: i32) -> Result<()> {
        let plan = self.restore.plan;
        if let Some(rdt) = &plan.intel_rdt {
            self.resctrl = Some(crate::rdt::Group::join(&plan.id, rdt, pid)?);
        }
        let Some(cgroup) = &mut self.cgroup else { return Ok(()) };
        let entered = cgroup.attach(pid).and_then(|()| cgroup.apply());
        let delegated = entered.and_then(|()| plan.delegate_to.map_or(Ok(()), |uid| cgroup.delegate(uid)));
        delegated.map_err(|error| Error::new(error.to_string()))?;
        self.resctrl.iter().try_for_each(crate::rdt::Group::apply)
    }

    /// What belongs to each step that CRIU reports.
    fn follow(&mut self, step: Notification, save: &mut Save<'_>) -> Result<()> {
        match step.script.as_str() {
            "setup-namespaces" => {
                let plan = self.restore.plan;
                let state = hooks::state(&plan.id, "created", step.pid, &plan.bundle, &plan.annotations);
                [HookKind::Prestart, HookKind::CreateRuntime]
                    .into_iter()
                    .try_for_each(|kind| hooks::run_all(kind, plan.hooks_of(kind), &state, None))
            }
            "post-restore" => self.restored(step.pid, save),
            "orphan-pts-master" => {
                let (Some(console), Some(master)) = (self.restore.console, step.fds.first()) else {
                    return Err(Error::new(
                        "the container has a terminal, and there is no console socket to send it to",
                    ));
                };
                let sent = socket::send(console, b"orphan-pts-master", &[master.as_fd()]);
                sent.map(drop).context(|| "send the terminal".into())
            }
            _ => Ok(()),
        }
    }

    fn restored(&mut self, pid: i32, save: &mut Save<'_>) -> Result<()> {
        self.init = Some(Child { pid, pidfd: pidfd::open(pid).context(|| "hold the restored process".into())? });
        let created = self.created()?;
        let saved = save(Progress::Process(&created));
        let Created { pid, pidfd, cgroup, resctrl } = created;
        (self.init, self.cgroup, self.resctrl) = (Some(Child { pid, pidfd }), Some(cgroup), resctrl);
        saved
    }

    fn created(&mut self) -> Result<Created> {
        let missing = || Error::new("criu failed: it names no restored process");
        let Child { pid, pidfd } = self.init.take().ok_or_else(missing)?;
        Ok(Created { pid, pidfd, cgroup: self.cgroup.take().unwrap_or_default(), resctrl: self.resctrl.take() })
    }

    fn undo(&mut self) {
        if let Some(init) = self.init.take() {
            // CRIU kills what it restored when it fails; then there is nothing left to kill, or to wait for.
            let _ = pidfd::send_signal(&init.pidfd, libc::SIGKILL);
            let _ = fork::wait(&init.pidfd);
        }
        if let Some(group) = self.resctrl.take() {
            group.remove();
        }
        if let Some(Err(error)) = self.cgroup.take().map(|mut cgroup| cgroup.undo()) {
            self.log.warn(error);
        }
    }
}

/// Gives CRIU a root that is a mount of its own, with a mount point for everything that will be mounted. Opens the
/// directories for images and for work, where there is one.
fn prepare(restore: &Restore<'_>) -> Result<Vec<OwnedFd>> {
    // Nothing that is mounted here may reach the host, and what the host unmounts goes here, too.
    mount_legacy(None, "/", None, libc::MS_REC | libc::MS_SLAVE, None)?;
    if let Some(root) = restore.root {
        move_mount_to(root, None, &restore.plan.rootfs)?;
    }
    let attach = || -> Result<OwnedFd> {
        let tree = open_tree(None, &restore.plan.rootfs, OPEN_TREE_CLONE | AT_RECURSIVE)?;
        move_mount_to(&tree, None, restore.mount_point)?;
        Ok(tree)
    };
    // The first time to make the mount points, which takes mounts that CRIU must not find.
    let tree = attach()?;
    external::make_mount_points(restore.plan, tree.as_fd())?;
    drop(tree);
    umount(restore.mount_point, libc::MNT_DETACH)?;
    attach()?;
    let images =
        path::open(restore.images, libc::O_RDONLY | libc::O_DIRECTORY, 0).context(|| "open the images".into())?;
    Ok([images].into_iter().chain(restore.work.map(open_work).transpose()?).collect())
}

fn open_work(dir: &Path) -> Result<OwnedFd> {
    fs::create_dir_all(dir).context(|| format!("make directory {}", dir.display()))?;
    path::open(dir, libc::O_RDONLY | libc::O_DIRECTORY, 0).context(|| "open the work directory".into())
}

/// Joined namespaces by the two ways that CRIU has: descriptors by key, and files that it opens itself.
type Joined = (Vec<(String, OwnedFd)>, Vec<(String, PathBuf)>);

fn namespaces(plan: &Plan) -> Result<Joined> {
    let (mut descriptors, mut files) = (Vec::new(), Vec::new());
    for (kind, file) in &plan.namespaces.joined {
        if external::stays_outside(*kind) {
            let open = path::open(file, libc::O_RDONLY, 0);
            let fd =
                open.map_err(|_| Error::new(format!("Requested network namespace {} does not exist", file.display())))?;
            descriptors.push((external::namespace_key(*kind), fd));
        } else if *kind == Namespace::Cgroup {
            return Err(Error::new("CRIU cannot restore into a given cgroup namespace"));
        } else {
            files.push((kind.file().to_owned(), file.clone()));
        }
    }
    Ok((descriptors, files))
}

/// The pipes at descriptors 0, 1 and 2 of the dumped init, which ours take the places of.
fn pipes(images: &Path) -> Result<Vec<(String, i32)>> {
    let file = images.join(DESCRIPTORS);
    let text = fs::read(&file).context(|| format!("read {}", file.display()))?;
    let list: Option<Vec<String>> = serde_json::from_slice(&text).context(|| format!("read {}", file.display()))?;
    let numbered = (0..3).zip(list.unwrap_or_default());
    Ok(numbered.filter(|(_, name)| name.contains("pipe:")).map(|(number, name)| (name, number)).collect())
}

/// The cgroups in which a process is, by controller, for CRIU to restore into.
fn cgroups(pid: i32) -> Result<Vec<(String, PathBuf)>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).context(|| "read the cgroups of criu".into())?;
    Ok(cgroup_roots(&text))
}

/// man 7 cgroups: `ID:CONTROLLERS:PATH`
fn cgroup_roots(text: &str) -> Vec<(String, PathBuf)> {
    let lines = text.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    lines
        .flat_map(|[controllers, path]: [&str; 2]| controllers.split(',').map(move |c| (c.to_owned(), path.into())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_files() {
        let text = "4:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c:d\nnonsense\n";
        let list = cgroup_roots(text);
        let list: Vec<_> = list.iter().map(|(c, p)| format!("{c} {}", p.display())).collect();
        assert_eq!(list, ["cpu /a", "cpuacct /a", "name=systemd /b", " /c:d"]);
    }
}
