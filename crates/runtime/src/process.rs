//! Whether a process that was recorded is still the one that runs under its number.

use std::fs::File;
use std::io::Read as _;

/// What `/proc/<pid>/stat` says about a process. man 5 proc_pid_stat
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z` and so on.
    pub state: u8,
    /// Its parent's number.
    pub parent: i32,
    /// When it started, in clock ticks since the machine did. With the number it names a process for good.
    pub start: u64,
}

/// Looks at a process; `None` when there is none.
pub fn stat(pid: i32) -> Option<Stat> {
    // A line is about 300 bytes. A process that ends while it is read gives ESRCH, which is as good as no file.
    let mut line = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut line)).ok()?;
    parse(&line[..length])
}

/// Whether the process that started at `start` lives; a zombie does not.
pub fn is_alive(pid: i32, start: u64) -> bool {
    pid > 0 && stat(pid).is_some_and(|stat| stat.start == start && !matches!(stat.state, b'Z' | b'X'))
}

/// Fields 3, 4 and 22. The second field is a name of the process's choice, with spaces and parentheses if it likes:
/// the last parenthesis ends it.
fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text[end + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let start = std::str::from_utf8(fields.nth(17)?).ok()?.parse().ok()?;
    Some(Stat { state, parent, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_fields() {
        let line = b"7 (a) Z 1 2) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0 18446744073709551615\n";
        assert_eq!(parse(line), Some(Stat { state: b'S', parent: 1, start: 4242 }));
        assert_eq!(parse(b"7 (a) S 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_process_lives_and_only_with_its_own_start() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let start = stat(pid).unwrap().start;
        assert!(is_alive(pid, start));
        assert!(!is_alive(pid, start + 1));
        assert!(!is_alive(0, start) && !is_alive(-1, start));
    }
}
