//! Device access: a list on v1, a program on v2.

pub(crate) mod program;

use crate::dir::Dir;
use crate::{Error, Result};
use offshoot_plan::cgroup::DeviceList;

/// Changes the v1 list to `target` without taking away, for even a moment, what stays allowed. The result is read
/// back, because this is what keeps the host's disks safe.
pub(crate) fn v1(dir: &Dir, target: &DeviceList) -> Result<()> {
    let failed = |e: Error| e.while_doing("failed to set device rules");
    let current = || dir.read("devices.list").and_then(|text| DeviceList::parse(&text).map_err(Error::new));
    let lines = current().map_err(failed)?.transition(target);
    // Each file is opened once: there may be dozens of rules.
    let mut files = [None, None];
    for line in lines {
        let name = if line.allow { "devices.allow" } else { "devices.deny" };
        let file = match &mut files[usize::from(line.allow)] {
            Some(file) => file,
            empty => empty.insert(dir.open(name, libc::O_WRONLY).map_err(failed)?),
        };
        dir.write_open(file, name, &line.text).map_err(failed)?;
    }
    let after = current().map_err(failed)?;
    // The exceptions of a list that starts from "all is allowed" cannot be read.
    if after.default_allow != target.default_allow {
        return Err(failed(Error::new("resulting devices cgroup doesn't match target mode")));
    }
    if !target.default_allow && !after.is_same(target) {
        return Err(failed(Error::new("resulting devices cgroup doesn't precisely match target")));
    }
    Ok(())
}
