//! Usage of one container, in runc's names and units.

mod v1;
mod v2;

use crate::dir::Dir;
use crate::{Cgroup, Error, Result};
use offshoot_spec::events::{HugetlbStats, Stats};
use std::collections::BTreeMap;

impl Cgroup {
    /// What the container uses. What no controller accounts is zero.
    ///
    /// # Errors
    /// When the cgroup is gone, or a file is not what the kernel documents.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        let read = if self.joined.iter().all(|joined| joined.hierarchy.is_unified()) {
            self.hierarchy("").map_or(Ok(()), |joined| v2::read(&joined.dir, &mut stats))
        } else {
            v1::read(&|controller| self.hierarchy(controller).map(|joined| &joined.dir), &mut stats)
        };
        match read {
            Err(e) if self.rootless && e.is_absent() => Ok(stats),
            read => read.map(|()| stats).map_err(|e| e.while_doing("failed to read the cgroup's statistics")),
        }
    }
}

/// The text of a file that some kernels and some cgroups do not have.
fn optional(dir: &Dir, file: &str) -> Result<Option<String>> {
    match dir.read(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.errno() == Some(offshoot_sys::Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn optional_number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    optional(dir, file)?.map(|text| number(dir, file, text.trim())).transpose()
}

/// `max` is the greatest number. Some counters of memory have gone negative in the past: that is 0.
fn number(dir: &Dir, file: &str, text: &str) -> Result<u64> {
    if text == "max" {
        return Ok(u64::MAX);
    }
    if text.parse::<i64>().is_ok_and(|n| n < 0) {
        return Ok(0);
    }
    text.parse().map_err(|_| malformed(dir, file, text))
}

fn malformed(dir: &Dir, file: &str, line: &str) -> Error {
    Error::new(format!("unable to parse {}: {line:?}", dir.path().join(file).display()))
}

/// Lines of `key value`.
fn pairs(dir: &Dir, file: &str, text: &str) -> Result<BTreeMap<String, u64>> {
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once(' ').ok_or_else(|| malformed(dir, file, line))?;
            Ok((key.to_string(), number(dir, file, value)?))
        })
        .collect()
}

/// Huge pages of every size that the cgroup has files for. Where reservations are accounted, they count: they are
/// what a limit is checked against.
fn huge_pages(
    dir: &Dir,
    usage_file: &str,
    rest: impl Fn(&str, &mut HugetlbStats) -> Result<()>,
) -> Result<BTreeMap<String, HugetlbStats>> {
    let mut all = BTreeMap::new();
    for size in crate::probe::huge_page_sizes() {
        for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            if let Some(usage) = optional_number(dir, &format!("{prefix}.{usage_file}"))? {
                let mut stats = HugetlbStats { usage, ..HugetlbStats::default() };
                rest(&prefix, &mut stats)?;
                all.insert(size.clone(), stats);
                break;
            }
        }
    }
    Ok(all)
}
