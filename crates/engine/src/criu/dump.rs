//! `checkpoint`: a container's processes become files.

use super::message::{Flags, Kind, Options, request};
use super::swrk::{Notification, Start, Worker};
use super::{DESCRIPTORS, config_file, external, quote};
use crate::error::Context;
use crate::log::Log;
use crate::{Error, Result};
use offshoot_plan::Plan;
use offshoot_plan::cgroup::Hierarchy;
use offshoot_sys::{self as sys, libc, path};
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const LOG_FILE: &str = "dump.log";

/// What is dumped, and how.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The container's plan, as of its creation.
    pub plan: &'a Plan,
    /// Its init, on the host.
    pub pid: i32,
    /// What the descriptors 0, 1 and 2 of init were when it started.
    pub descriptors: &'a [String],
    /// The directory for the images, made if it is missing.
    pub images: &'a Path,
    /// The directory for CRIU's log and other files; the images' where there is none.
    pub work: Option<&'a Path>,
    /// The directory of an earlier dump, relative to `images`: what has not changed since is not dumped again.
    pub parent: Option<&'a Path>,
    /// Choices.
    pub flags: &'a Flags,
    /// Dump memory only, and let the container go on.
    pub pre_dump: bool,
    /// Send memory there.
    pub page_server: Option<&'a (String, u16)>,
    /// Gets a NUL when pages can be asked for.
    pub status: Option<OwnedFd>,
}

/// Dumps a container. Unless it is to be left running, its processes have ended then.
///
/// # Errors
/// CRIU's, with the lines of its log as warnings.
pub fn dump(mut dump: Dump<'_>, log: &Log) -> Result<()> {
    if let Some(parent) = dump.parent {
        check_parent(dump.images, parent)?;
    }
    let images = open_directory(dump.images)?;
    let work = dump.work.map(open_directory).transpose()?;
    let worker = Worker::start(&Start { stdio: false, inherit: &[], namespaces: 0 }, || Ok(Vec::new()))?;
    worker.session.check_version()?;
    check_features(&dump, &worker)?;

    let root = path::open(format!("/proc/{}/root", dump.pid), libc::O_PATH | libc::O_DIRECTORY, 0)
        .context(|| "open the container's root".into())?;
    // A pre-dump looks at memory only.
    let mounts = if dump.pre_dump { Vec::new() } else { external::dump_mounts(dump.plan, root.as_fd()) };
    if !dump.pre_dump {
        let list = serde_json::json!(dump.descriptors).to_string();
        fs::write(dump.images.join(DESCRIPTORS), list).context(|| format!("write {DESCRIPTORS}"))?;
    }
    let freezer = freezer(dump.plan);
    let options = Options {
        images: images.as_fd(),
        work: work.as_ref().map(AsFd::as_fd),
        log_file: LOG_FILE,
        root: &dump.plan.rootfs,
        flags: dump.flags,
        pid: Some(dump.pid),
        evasive_devices: false,
        rst_sibling: false,
        page_server: dump.page_server,
        parent: dump.parent,
        config_file: config_file(&dump.plan.annotations),
        freeze_cgroup: freezer.as_deref(),
        external_mounts: &mounts,
        external: &namespaces(dump.plan)?,
        inherit: &[],
        join_namespaces: &[],
        cgroup_roots: &[],
        lsm_profile: None,
        lsm_mount_context: None,
    };
    let kind = if dump.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut status = dump.status.take();
    let result = worker.session.run(&request(kind, &options), &mut |step| pages_ready(&step, &mut status));
    if result.is_err() {
        quote::quote(&dump.work.unwrap_or(dump.images).join(LOG_FILE), log);
    }
    // Its answer says how it went; only without one does its exit status matter.
    let finished = worker.finish(dump.pre_dump || result.is_err());
    result.map(drop).and(finished)
}

fn pages_ready(step: &Notification, status: &mut Option<OwnedFd>) -> Result<()> {
    if step.script == "status-ready"
        && let Some(status) = status.take()
    {
        path::write_all(&status, &[0]).context(|| "tell --status-fd".into())?;
    }
    Ok(())
}

/// A parent is named in the images by a link, so it must be relative, and there.
fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::new("--parent-path must be relative"));
    }
    let place = images.join(parent);
    let cause = match path::fstatat(None, &place, 0) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => return Ok(()),
        Ok(_) => sys::errno_text(sys::Errno::ENOTDIR),
        Err(error) => sys::errno_text(error.errno()),
    };
    Err(Error::new(format!("invalid --parent-path: stat {}: {cause}", place.display())))
}

/// The images hold all of a container's memory: nobody else may read them.
fn open_directory(dir: &Path) -> Result<OwnedFd> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.context(|| format!("make directory {}", dir.display()))?;
    path::open(dir, libc::O_RDONLY | libc::O_DIRECTORY, 0).context(|| "open the directory for images".into())
}

fn check_features(dump: &Dump<'_>, worker: &Worker) -> Result<()> {
    if !dump.pre_dump && !dump.flags.lazy_pages {
        return Ok(());
    }
    let (mem_track, lazy_pages) = worker.session.features()?;
    let missing: Vec<_> =
        [(dump.pre_dump && !mem_track, "MemTrack"), (dump.flags.lazy_pages && !lazy_pages, "LazyPages")]
            .into_iter()
            .filter_map(|(missing, name)| missing.then_some(name))
            .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::new(format!("criu is missing features: [{}]", missing.join(" "))))
    }
}

/// The cgroup that CRIU freezes, to stop all processes at once.
fn freezer(plan: &Plan) -> Option<PathBuf> {
    let all = &plan.cgroup.hierarchies;
    // Beside v1 hierarchies the unified one has no controllers, and CRIU looks for the v1 freezer.
    let v2 = all.iter().all(Hierarchy::is_unified);
    let found = all.iter().find(|hierarchy| v2 || hierarchy.controllers.iter().any(|name| name == "freezer"));
    found.map(|hierarchy| hierarchy.mount_point.join(&hierarchy.path)).filter(|dir| dir.is_dir())
}

/// `net[INODE]:KEY` for each joined namespace that is not the container's to dump.
fn namespaces(plan: &Plan) -> Result<Vec<String>> {
    let outside = plan.namespaces.joined.iter().filter(|(kind, _)| external::stays_outside(*kind));
    outside
        .map(|(kind, file)| {
            let inode = fs::metadata(file).context(|| format!("find namespace {}", file.display()))?.ino();
            Ok(format!("{}[{inode}]:{}", kind.file(), external::namespace_key(*kind)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        let images = Path::new("/");
        assert!(check_parent(images, Path::new("proc")).is_ok());
        let text = |parent: &str| check_parent(images, Path::new(parent)).unwrap_err().to_string();
        assert_eq!(text("/proc"), "--parent-path must be relative");
        assert_eq!(text("nowhere"), "invalid --parent-path: stat /nowhere: no such file or directory");
        assert_eq!(text("proc/version"), "invalid --parent-path: stat /proc/version: not a directory");
    }
}
