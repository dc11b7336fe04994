//! Id mappings. man 7 user_namespaces

use crate::problem::Report;
use offshoot_spec::IdMapping;

/// User and group ranges, in the form of `/proc/PID/uid_map`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct IdMap {
    /// (inside, outside, count)
    pub uids: Vec<(u32, u32, u32)>,
    /// (inside, outside, count)
    pub gids: Vec<(u32, u32, u32)>,
}

/// The kernel takes at most this many lines since Linux 4.15.
const MAX_LINES: usize = 340;

impl IdMap {
    /// The text to write, one range a line.
    pub fn text(ranges: &[(u32, u32, u32)]) -> String {
        ranges.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
    }

    /// What `id` inside is outside.
    pub fn outside(ranges: &[(u32, u32, u32)], id: u32) -> Option<u32> {
        ranges.iter().find_map(|(inside, outside, count)| {
            let offset = id.checked_sub(*inside)?;
            (offset < *count).then(|| outside.wrapping_add(offset))
        })
    }
}

/// Reads and checks both lists.
pub fn read(uids: &[IdMapping], gids: &[IdMapping], path: &str, report: &mut Report) -> IdMap {
    let mut list = |name: &str, mappings: &[IdMapping]| {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if mappings.len() > MAX_LINES {
            report.problem(&path, format!("has {} ranges; the kernel takes {MAX_LINES}", mappings.len()));
        }
        let ranges: Vec<_> = mappings.iter().map(|m| (m.container_id, m.host_id, m.size)).collect();
        for (i, range) in ranges.iter().enumerate() {
            let clash = |a: u32, b: u32, n: u32, m: u32| {
                u64::from(a) < u64::from(b) + u64::from(m) && u64::from(b) < u64::from(a) + u64::from(n)
            };
            if range.2 == 0 {
                report.problem(format!("{path}[{i}].size"), "must not be 0");
            } else if let Some(j) = ranges[..i].iter().position(|other| {
                clash(range.0, other.0, range.2, other.2) || clash(range.1, other.1, range.2, other.2)
            }) {
                report.problem(format!("{path}[{i}]"), format!("overlaps with {path}[{j}]"));
            }
        }
        ranges
    };
    IdMap { uids: list("uidMappings", uids), gids: list("gidMappings", gids) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn overlaps_are_refused_on_either_side() {
        let mut report = Report::default();
        read(
            &[mapping(0, 1000, 10), mapping(9, 5000, 1)],
            &[mapping(0, 1000, 10), mapping(20, 1009, 5)],
            "linux",
            &mut report,
        );
        let paths: Vec<_> = report.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["linux.uidMappings[1]", "linux.gidMappings[1]"]);
    }

    #[test]
    fn the_whole_range_is_legal() {
        let mut report = Report::default();
        read(&[mapping(0, 0, u32::MAX)], &[mapping(0, 0, u32::MAX)], "linux", &mut report);
        assert!(report.problems.is_empty());
    }

    #[test]
    fn an_id_is_found_outside() {
        assert_eq!(IdMap::outside(&[(0, 1000, 1), (1, 100_000, 65535)], 5), Some(100_004));
        assert_eq!(IdMap::outside(&[(0, 1000, 1)], 1), None);
    }
}
