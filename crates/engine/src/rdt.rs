//! Cache and memory bandwidth groups. kernel: Documentation/filesystems/resctrl.rst, spec: config-linux.md#intelrdt

use crate::error::{Context, Error, Result};
use offshoot_spec::IntelRdt;
use std::fs;
use std::path::{Path, PathBuf};

const RESCTRL: &str = "/sys/fs/resctrl";

/// The group of a container.
pub struct Group {
    dir: PathBuf,
    schemata: Vec<String>,
    /// Whether it was made for this container, and goes with it.
    made: bool,
    monitor: Option<PathBuf>,
}

impl Group {
    /// Puts `pid` into the group that `rdt` names, made if it has to be.
    ///
    /// # Errors
    /// The group is missing though no schemata are given, or the file system refuses.
    pub(crate) fn join(id: &str, rdt: &IntelRdt, pid: i32) -> Result<Group> {
        Self::join_below(Path::new(RESCTRL), id, rdt, pid)
    }

    fn join_below(root: &Path, id: &str, rdt: &IntelRdt, pid: i32) -> Result<Group> {
        let named = !rdt.clos_id.is_empty();
        let dir = match rdt.clos_id.as_str() {
            "" => root.join(id),
            "/" => root.to_owned(),
            name => root.join(name),
        };
        let lines = [&rdt.l3_cache_schema, &rdt.mem_bw_schema].into_iter().filter(|line| !line.is_empty());
        let schemata: Vec<String> = lines.chain(rdt.schemata.iter().flatten()).cloned().collect();
        let made = !dir.is_dir();
        if made && named && schemata.is_empty() && rdt.schemata.is_none() {
            return Err(Error::new(format!(
                "clos_id {:?} does not exist, and there are no schemata to make it with",
                rdt.clos_id
            )));
        }
        if made {
            fs::create_dir(&dir).context(|| format!("make the resctrl group {}", dir.display()))?;
        }
        let mut group = Group { dir, schemata, made: made && !named, monitor: None };
        let joined = group.enter(id, rdt, pid);
        if joined.is_err() {
            if made {
                let _ = fs::remove_dir(&group.dir);
            }
            group.made = false;
        }
        joined.map(|()| group)
    }

    fn enter(&mut self, id: &str, rdt: &IntelRdt, pid: i32) -> Result<()> {
        write(&self.dir.join("tasks"), &pid.to_string())?;
        if rdt.enable_monitoring {
            let monitor = self.dir.join("mon_groups").join(id);
            fs::create_dir(&monitor).context(|| format!("make the monitoring group {}", monitor.display()))?;
            write(&monitor.join("tasks"), &pid.to_string())?;
            self.monitor = Some(monitor);
        }
        Ok(())
    }

    /// Writes the schemata.
    ///
    /// # Errors
    /// The kernel refuses a line.
    pub(crate) fn apply(&self) -> Result<()> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        write(&self.dir.join("schemata"), &(self.schemata.join("\n") + "\n"))
    }

    /// The group's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it was made for this container, and goes with it.
    pub fn is_own(&self) -> bool {
        self.made
    }

    /// The monitoring group, which is always the container's own.
    pub fn monitor(&self) -> Option<&PathBuf> {
        self.monitor.as_ref()
    }

    /// What is to be removed with the container: the group if it is its own, else its monitoring group.
    fn paths(&self) -> Vec<PathBuf> {
        self.monitor.iter().chain(self.made.then_some(&self.dir)).cloned().collect()
    }

    /// Removes it.
    pub(crate) fn remove(self) {
        for path in self.paths() {
            let _ = fs::remove_dir(path);
        }
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).context(|| format!("write {text:?} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("offshoot-rdt-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("shared")).unwrap();
        root
    }

    #[test]
    fn a_named_group_stays() {
        let root = tree("named");
        let rdt = IntelRdt { clos_id: "shared".into(), l3_cache_schema: "L3:0=f".into(), ..Default::default() };
        let group = Group::join_below(&root, "a", &rdt, 7).unwrap();
        group.apply().unwrap();
        assert_eq!(fs::read_to_string(root.join("shared/tasks")).unwrap(), "7");
        assert_eq!(fs::read_to_string(root.join("shared/schemata")).unwrap(), "L3:0=f\n");
        assert_eq!(group.paths(), Vec::<PathBuf>::new());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_missing_group_needs_schemata() {
        let root = tree("missing");
        let rdt = IntelRdt { clos_id: "none".into(), ..Default::default() };
        assert!(Group::join_below(&root, "a", &rdt, 7).is_err());
        assert!(!root.join("none").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
