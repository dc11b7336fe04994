//! A cgroup of the keeper's own, out of that of the service or the session that started it.
//!
//! Systemd ends what is in a session's, and calls what is left in a service's, when it starts that again, a left-over. The
//! keeper is meant to be there; so are the children of its that start machines.

use offshoot_sys::process;
use std::fs;
use std::path::{Path, PathBuf};

/// Where systemd keeps its services, it looks here for that: man 3 sd_booted.
const BOOTED: &str = "/run/systemd/system";

/// The directories that this process has moved to, one in each hierarchy that systemd manages.
#[derive(Debug, Default)]
pub struct Apart(Vec<PathBuf>);

impl Apart {
    /// Moves this process, where there is a systemd. Where it cannot, it stays.
    pub fn enter() -> Apart {
        match Path::new(BOOTED).exists() {
            true => Apart::enter_in(&hierarchies(), &format!(".keeper-{}", process::getpid())),
            false => Apart::default(),
        }
    }

    fn enter_in(hierarchies: &[PathBuf], name: &str) -> Apart {
        let enter = |mount_point: &PathBuf| {
            // Beside the machines', which systemd leaves alone; no machine has such a name.
            let dir = mount_point.join("offshoot").join(name);
            fs::create_dir_all(&dir).and_then(|()| move_to(&dir)).ok().map(|()| dir)
        };
        Apart(hierarchies.iter().filter_map(enter).collect())
    }

    /// Leaves the directories, and removes them, for a process that ends now.
    pub fn leave(self) {
        for dir in self.0 {
            let parent = dir.parent().unwrap_or(&dir);
            // What stays is empty, and in nobody's way.
            let _ = parent.parent().map_or(Ok(()), move_to).and_then(|()| fs::remove_dir(&dir));
            // As long as there are machines, it is theirs.
            let _ = fs::remove_dir(parent);
        }
    }
}

fn move_to(dir: &Path) -> std::io::Result<()> {
    // In any hierarchy 0 is the process that writes it.
    fs::write(dir.join("cgroup.procs"), "0")
}

/// The mount points of cgroup2 and of systemd's own v1 hierarchy.
fn hierarchies() -> Vec<PathBuf> {
    let Ok(host) = offshoot_cgroup::probe() else { return Vec::new() };
    let is_systemd = |controllers: &[String]| controllers.iter().any(|name| name == "name=systemd");
    let named = host.hierarchies.into_iter().filter(|hierarchy| is_systemd(&hierarchy.controllers));
    host.unified.into_iter().chain(named).map(|hierarchy| hierarchy.mount_point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn directories_that_cannot_be_entered_are_left_out() {
        let scratch = Scratch::new("apart");
        // No cgroup: a file is written all the same.
        let apart = Apart::enter_in(&[scratch.path().to_owned(), "/proc/nowhere".into()], ".keeper-1");
        let dir = scratch.path().join("offshoot/.keeper-1");
        assert_eq!(
            (&apart.0, fs::read_to_string(dir.join("cgroup.procs")).unwrap().as_str()),
            (&vec![dir.clone()], "0")
        );
        fs::remove_file(dir.join("cgroup.procs")).unwrap();
        apart.leave();
        assert!(!scratch.path().join("offshoot").exists() && scratch.path().join("cgroup.procs").exists());
    }
}
