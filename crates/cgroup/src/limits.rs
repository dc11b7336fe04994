//! Writing limits.

use crate::{Cgroup, Error, Result};
use offshoot_plan::cgroup::{MemoryCheck, Write};
use offshoot_sys::Errno;

impl Cgroup {
    /// Writes values in order. One that the kernel refuses only because of another is written again after that one.
    pub(crate) fn write_all(&self, writes: &[Write]) -> Result<()> {
        let mut waiting: Vec<(&Write, Error)> = Vec::new();
        let mut group = ("", "");
        for write in writes {
            let this = (write.controller.as_str(), write.file.split('.').next().unwrap_or_default());
            if this != group {
                self.write_again(&mut waiting)?;
                group = this;
            }
            match self.write(write) {
                Err(e) if write.retry && e.errno() == Some(Errno::EINVAL) => waiting.push((write, e)),
                done => done?,
            }
        }
        self.write_again(&mut waiting)
    }

    fn write_again(&self, waiting: &mut Vec<(&Write, Error)>) -> Result<()> {
        waiting.drain(..).try_for_each(|(write, _)| self.write(write))
    }

    fn write(&self, write: &Write) -> Result<()> {
        let Some(joined) = self.hierarchy(&write.controller) else {
            let controller = if write.controller.is_empty() { &write.file } else { &write.controller };
            return Err(Error::new(format!(
                "cannot set {controller} limit: container could not join or create cgroup"
            )));
        };
        let dir = &joined.dir;
        let absent = |e: &Error| e.errno() == Some(Errno::ENOENT);
        let done = match (dir.write(&write.file, &write.value), &write.instead) {
            (Err(e), Some((file, value))) if absent(&e) => dir.write(file, value),
            (done, _) => done,
        };
        match done {
            Err(e) if absent(&e) && write.absent_ok => Ok(()),
            Err(e) if write.unified => Err(self.unified_error(write, e)),
            Err(e) if e.errno() == Some(Errno::EBUSY) && write.file == "memory.limit_in_bytes" => {
                let usage = |file| dir.read(file).map(|text| text.trim().to_string());
                Err(match (usage("memory.usage_in_bytes"), usage("memory.max_usage_in_bytes")) {
                    (Ok(now), Ok(peak)) => Error::new(format!(
                        "unable to set memory limit to {} (current usage: {now}, peak usage: {peak})",
                        write.value
                    )),
                    _ => e,
                })
            }
            done => done,
        }
    }

    /// The caller chose the file: say why it is not there.
    fn unified_error(&self, write: &Write, e: Error) -> Error {
        let controller = write.file.split('.').next().unwrap_or_default();
        let missing = self.hierarchy("").and_then(|joined| joined.dir.read("cgroup.controllers").ok());
        let missing = missing.is_some_and(|list| !list.split_whitespace().any(|c| c == controller));
        if (e.is_absent() || e.is_permission()) && missing && controller != "cgroup" {
            let file = &write.file;
            return Error::new(format!(
                "unified resource {file:?} can't be set: controller {controller:?} not available"
            ));
        }
        e.while_doing(format_args!("unable to set unified resource {:?}", write.file))
    }

    /// Refuses limits that would make the kernel kill at once. Where the use cannot be told, it is not known to be
    /// too high.
    pub(crate) fn check_memory(&self, check: Option<&MemoryCheck>) -> Result<()> {
        let Some(check) = check else { return Ok(()) };
        let Some(joined) = self.hierarchy("") else { return Ok(()) };
        let Some(usage) = joined.dir.read("memory.current").ok().and_then(|text| text.trim().parse::<u64>().ok())
        else {
            return Ok(());
        };
        for (name, limit) in [("memory+swap", check.swap), ("memory", check.limit)] {
            if let Some(limit) = limit.filter(|limit| *limit <= usage) {
                return Err(Error::new(format!("rejecting {name} limit {limit} <= usage {usage}")));
            }
        }
        Ok(())
    }
}
