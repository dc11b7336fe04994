//! uid_map and gid_map. man 7 user_namespaces

use crate::error::{Context, Error, Result};
use offshoot_plan::IdMap;
use offshoot_sys::fork::{self, CLONE_NEWUSER};
use offshoot_sys::{event, libc, path, pidfd};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the maps of the process `pid`, which is in a user namespace that has none.
///
/// # Errors
/// The kernel, or newuidmap(1), refuses.
pub(crate) fn write(pid: i32, map: &IdMap, unprivileged: bool) -> Result<()> {
    let own = (own_range(&map.uids), own_range(&map.gids));
    if !unprivileged {
        write_file(pid, "uid_map", &IdMap::text(&map.uids))?;
        return write_file(pid, "gid_map", &IdMap::text(&map.gids));
    }
    match (own.0, helper("newuidmap")) {
        (false, Some(program)) => run_helper(&program, pid, &map.uids)?,
        _ => write_file(pid, "uid_map", &IdMap::text(&map.uids))?,
    }
    match (own.1, helper("newgidmap")) {
        (false, Some(program)) => run_helper(&program, pid, &map.gids),
        _ => {
            // Without privilege over the group the kernel wants setgroups(2) gone first (Linux 3.19).
            write_file(pid, "setgroups", "deny")?;
            write_file(pid, "gid_map", &IdMap::text(&map.gids))
        }
    }
}

/// A single range of one id needs no privilege.
fn own_range(ranges: &[(u32, u32, u32)]) -> bool {
    matches!(ranges, [(_, _, 1)])
}

fn write_file(pid: i32, name: &str, text: &str) -> Result<()> {
    let file = format!("/proc/{pid}/{name}");
    let fd = path::open(&file, libc::O_WRONLY, 0).context(|| format!("open {name} of the container"))?;
    path::write(&fd, text.as_bytes()).map(drop).context(|| format!("write {name} of the container"))
}

/// Finds a setuid helper in the directories that only root can write, whatever `PATH` says.
fn helper(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
}

fn run_helper(program: &Path, pid: i32, ranges: &[(u32, u32, u32)]) -> Result<()> {
    let numbers = ranges.iter().flat_map(|(inside, outside, count)| [*inside, *outside, *count]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .context(|| format!("run {}", program.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(format!(
            "failed to write the id map with {}: {} (hint: the ranges must be the caller's in /etc/subuid and /etc/subgid)",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// A user namespace with `map`, for id-mapped mounts. It lives as long as its descriptor.
///
/// # Errors
/// The kernel refuses the map.
pub(crate) fn namespace(map: &IdMap) -> Result<OwnedFd> {
    let (wait, hold) = event::pipe()?;
    let child = fork::fork(CLONE_NEWUSER as u64, None, || {
        drop(hold);
        let mut byte = [0];
        let _ = path::read(&wait, &mut byte);
        0
    })?;
    let result = write(child.pid, map, false)
        .and_then(|()| path::open(format!("/proc/{}/ns/user", child.pid), libc::O_RDONLY, 0).map_err(Into::into));
    let _ = pidfd::send_signal(&child.pidfd, libc::SIGKILL);
    fork::wait(&child.pidfd)?;
    result
}
