//! The lines of CRIU's log that say what went wrong, as runc quotes them.

use crate::error::cause;
use crate::log::Log;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Lines kept from before the one with the error.
const BEFORE: usize = 5;
/// CRIU writes short lines; a file that does not is not its log.
const MAX_LINE: usize = 4096;

/// Warns with each line of the log that has `Error` in it, and the five before.
pub(super) fn quote(path: &Path, log: &Log) {
    match File::open(path) {
        Ok(file) => excerpt(BufReader::new(file)).iter().enumerate().for_each(|(at, line)| {
            if at == 0 {
                log.warn(format_args!("--- Quoting {:?}", path.display().to_string()));
            }
            log.warn(line);
        }),
        Err(error) => log.warn(format_args!("open {}: {}", path.display(), cause(&error))),
    }
}

/// `N:line` for what is quoted, `...` for a gap, `---` for the end; nothing when there is no error.
fn excerpt(mut reader: impl BufRead) -> Vec<String> {
    let (mut quoted, mut number, mut last_quoted) = (Vec::new(), 0, 0);
    let mut recent: VecDeque<(usize, String)> = VecDeque::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        number += 1;
        line.truncate(MAX_LINE);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let is_error = text.contains("Error");
        recent.push_back((number, text));
        if recent.len() > BEFORE + 1 {
            recent.pop_front();
        }
        if !is_error {
            continue;
        }
        if last_quoted != 0 && recent.front().is_some_and(|(first, _)| *first > last_quoted + 1) {
            quoted.push("...".into());
        }
        quoted.extend(recent.drain(..).map(|(number, text)| format!("{number}:{text}")));
        last_quoted = number;
    }
    if !quoted.is_empty() {
        quoted.push("---".into());
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        excerpt(text.as_bytes())
    }

    #[test]
    fn nothing_to_quote() {
        assert!(of("a\nb\n").is_empty());
        assert!(of("").is_empty());
    }

    #[test]
    fn errors_with_what_led_to_them() {
        let log = "1\n2\n3\n4\n5\n6\n7 Error (x)\n8\n9 Error\n10\n11\n12\n13\n14\n15\n16\n17 Error";
        let expected =
            "2:2 3:3 4:4 5:5 6:6 7:7 Error (x) 8:8 9:9 Error ... 12:12 13:13 14:14 15:15 16:16 17:17 Error ---";
        assert_eq!(of(log).join(" "), expected);
    }

    #[test]
    fn an_error_at_once() {
        assert_eq!(of("Error"), ["1:Error", "---"]);
    }
}
