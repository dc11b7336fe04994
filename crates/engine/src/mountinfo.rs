//! `/proc/self/mountinfo`, man 5 proc_pid_mountinfo.

use crate::error::{Context, Result};
use std::path::PathBuf;

/// Mount points of file systems of the given types, the last mounted first; only whole file systems.
pub(crate) fn points(kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
    Ok(text.lines().rev().filter_map(|line| point(line, kinds)).collect())
}

fn point(line: &str, kinds: &[&str]) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (root == "/" && kinds.contains(&file_system.split(' ').next()?)).then(|| PathBuf::from(unescape(point)))
}

/// Space, tab, line break and backslash are octal escapes.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = &rest[at + if code.is_some() { 4 } else { 1 }..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_file_systems_of_a_type() {
        let proc = "22 28 0:20 / /pr\\040oc rw,nosuid shared:5 - proc proc rw";
        let bind = "22 28 0:20 /sys /x rw - proc proc rw";
        assert_eq!(point(proc, &["proc"]), Some(PathBuf::from("/pr oc")));
        assert_eq!(point(proc, &["sysfs"]), None);
        assert_eq!(point(bind, &["proc"]), None);
    }
}
