//! `restore`: files become a container's processes.

use super::message::{Flags, Kind, Options, request};
use super::swrk::{Notification, Start, Worker};
use super::{DESCRIPTORS, config_file, external, quote};
use crate::error::Context;
use crate::log::Log;
use crate::{Error, Result};
use offshoot_plan::{Kind as Namespace, Plan};
use offshoot_sys::fork::Child;
use offshoot_sys::mount::{AT_RECURSIVE, OPEN_TREE_CLONE, mount_legacy, move_mount_to, open_tree, umount};
use offshoot_sys::{libc, path, pidfd, socket};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const LOG_FILE: &str = "restore.log";

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
    /// An empty directory that only we change, to mount the root filesystem on.
    pub mount_point: &'a Path,
    /// Where the terminal is sent, if there is one.
    pub console: Option<BorrowedFd<'a>>,
}

/// Where a restore waits for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// CRIU is there and has done nothing: what it restores will be in the cgroups in which this process is.
    Started(i32),
    /// The namespaces are there, with this process in them.
    Namespaces(i32),
    /// The processes are there and have not gone on yet; this is init.
    Restored(i32),
}

/// Restores a container. Its init is a child of this process. `reached` may do what belongs to each moment; its error
/// ends the restore, and what was restored so far.
///
/// # Errors
/// CRIU's, with the lines of its log as warnings, and `reached`'s.
pub fn restore(restore: &Restore<'_>, log: &Log, reached: &mut dyn FnMut(Moment) -> Result<()>) -> Result<Child> {
    let images =
        path::open(restore.images, libc::O_RDONLY | libc::O_DIRECTORY, 0).context(|| "open the images".into())?;
    let work = restore.work.map(open_work).transpose()?;
    let joined = namespaces(restore.plan)?;
    let inherit: Vec<BorrowedFd<'_>> = joined.0.iter().map(|(_, fd)| fd.as_fd()).collect();
    let flags = Namespace::Mount.flag();
    let start = Start { stdio: true, inherit: &inherit, namespaces: flags };
    // In a mount namespace of CRIU's own, so that nothing of this is left behind whatever happens.
    let worker = Worker::start(&start, || prepare(restore).map_err(|error| error.to_string()))?;
    let result = converse(restore, &worker, (&images, work.as_ref()), &joined, reached);
    if result.is_err() {
        quote::quote(&restore.work.unwrap_or(restore.images).join(LOG_FILE), log);
    }
    let finished = worker.finish(result.is_err());
    let pid = result?;
    let child = Child { pid, pidfd: pidfd::open(pid).context(|| "hold the restored process".into())? };
    finished.map(|()| child)
}

fn converse(
    restore: &Restore<'_>,
    worker: &Worker,
    (images, work): (&OwnedFd, Option<&OwnedFd>),
    (namespaces, joined): &Joined,
    reached: &mut dyn FnMut(Moment) -> Result<()>,
) -> Result<i32> {
    worker.session.check_version()?;
    reached(Moment::Started(worker.child.pid))?;
    let root =
        path::open(&restore.plan.rootfs, libc::O_PATH | libc::O_DIRECTORY, 0).context(|| "open the root".into())?;
    let mut inherit: Vec<_> = namespaces.iter().map(|(key, fd)| (key.clone(), fd.as_raw_fd())).collect();
    inherit.extend(pipes(restore.images)?);
    let options = Options {
        images: images.as_fd(),
        work: work.map(AsFd::as_fd),
        log_file: LOG_FILE,
        root: restore.mount_point,
        flags: restore.flags,
        pid: None,
        evasive_devices: true,
        rst_sibling: true,
        page_server: None,
        parent: None,
        config_file: config_file(&restore.plan.annotations),
        freeze_cgroup: None,
        external_mounts: &external::restore_mounts(restore.plan, root.as_fd()),
        external: &[],
        inherit: &inherit,
        join_namespaces: joined,
        cgroup_roots: &cgroups(worker.child.pid)?,
        lsm_profile: restore.lsm_profile,
        lsm_mount_context: restore.lsm_mount_context,
    };
    let response = worker.session.run(&request(Kind::Restore, &options), &mut |step| follow(restore, step, reached))?;
    if response.pid > 0 { Ok(response.pid) } else { Err(Error::new("criu failed: it names no restored process")) }
}

fn follow(restore: &Restore<'_>, step: Notification, reached: &mut dyn FnMut(Moment) -> Result<()>) -> Result<()> {
    match step.script.as_str() {
        "setup-namespaces" => reached(Moment::Namespaces(step.pid)),
        "post-restore" => reached(Moment::Restored(step.pid)),
        "orphan-pts-master" => {
            let (Some(console), Some(master)) = (restore.console, step.fds.first()) else {
                return Err(Error::new("the container has a terminal, and there is no --console-socket to send it to"));
            };
            socket::send(console, b"orphan-pts-master", &[master.as_fd()])
                .context(|| "send the terminal".into())
                .map(drop)
        }
        _ => Ok(()),
    }
}

/// Gives CRIU a root that is a mount of its own, with a mount point for everything that will be mounted.
fn prepare(restore: &Restore<'_>) -> Result<()> {
    // Nothing that is mounted here may reach the host, and what the host unmounts goes here, too.
    mount_legacy(None, "/", None, libc::MS_REC | libc::MS_SLAVE, None)?;
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
    attach().map(drop)
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
