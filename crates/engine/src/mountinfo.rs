//! `/proc/self/mountinfo`, man 5 proc_pid_mountinfo.

use crate::error::{Context, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Mount points of file systems of the given types, the last mounted first; only whole file systems.
pub(crate) fn points(kinds: &[&str]) -> Result<Vec<PathBuf>> {
    // Any user may have mounted something at a name that is no text.
    let lines = std::fs::read("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
    Ok(lines.split(|byte| *byte == b'\n').rev().filter_map(|line| point(line, kinds)).collect())
}

fn point(line: &[u8], kinds: &[&str]) -> Option<PathBuf> {
    let middle = line.windows(3).position(|part| part == b" - ")?;
    let mut fields = line[..middle].split(|byte| *byte == b' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let kind = line[middle + 3..].split(|byte| *byte == b' ').next()?;
    (root == b"/" && kinds.iter().any(|wanted| wanted.as_bytes() == kind)).then(|| unescape(point).into())
}

/// Space, tab, line break and backslash are octal escapes.
fn unescape(text: &[u8]) -> OsString {
    let digit = |byte: &u8| byte.wrapping_sub(b'0');
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, others @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            out.push(digit(a) << 6 | digit(b) << 3 | digit(c));
            rest = after;
        } else {
            out.push(*first);
            rest = others;
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_file_systems_of_a_type() {
        let proc = b"22 28 0:20 / /pr\\040oc rw,nosuid shared:5 - proc proc rw";
        let bind = b"22 28 0:20 /sys /x rw - proc proc rw";
        assert_eq!(point(proc, &["proc"]), Some(PathBuf::from("/pr oc")));
        assert_eq!(point(proc, &["sysfs"]), None);
        assert_eq!(point(bind, &["proc"]), None);
        let odd = b"22 28 0:20 / /\xff\\134\\ rw - proc proc rw";
        assert_eq!(point(odd, &["proc"]), Some(OsString::from_vec(b"/\xff\\\\".to_vec()).into()));
        for broken in [&b""[..], b" - ", b"1 2 3 / - proc", b"\\1", b"1 2 3 / \\04 - proc proc"] {
            point(broken, &["proc"]);
        }
    }
}
