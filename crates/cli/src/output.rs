//! Standard output. A closed pipe is an error like any other, not a panic.

use crate::failure::Failure;
use offshoot_runtime::cause;
use std::io::{IsTerminal as _, Write as _};

/// Writes `text` as it is.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_ref()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new(format!("failed to write the output: {}", cause(&error))))
}

/// Writes what a guest has printed. On a terminal it may set colours, but not do what else terminals can be told: answer as if
/// somebody typed, name windows, set the clipboard (CVE-2003-0063 and many since).
///
/// # Errors
/// As [`print`].
pub fn print_foreign(text: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().is_terminal() {
        true => print(harmless(text)),
        false => print(text),
    }
}

fn harmless(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(letter) = rest.chars().next() {
        let length = colour(rest).unwrap_or(letter.len_utf8());
        match letter {
            '\n' | '\r' | '\t' => shown.push(letter),
            '\x1b' if length > 1 => shown.push_str(&rest[..length]),
            // As terminals show keys.
            '\0'..' ' => shown.extend(['^', char::from(letter as u8 + 0x40)]),
            '\x7f' => shown.push_str("^?"),
            // The same controls once more, with eight bits.
            '\u{80}'..='\u{9f}' => shown.push(char::REPLACEMENT_CHARACTER),
            _ => shown.push(letter),
        }
        rest = &rest[length..];
    }
    shown
}

/// The length of a sequence that sets colours and the like at the beginning of `text` (ECMA-48, SGR).
fn colour(text: &str) -> Option<usize> {
    let after = text.strip_prefix("\x1b[")?;
    let end = after.find(|letter: char| !letter.is_ascii_digit() && letter != ';' && letter != ':')?;
    after[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_set_colours_and_nothing_else() {
        for same in ["plain", "täglich\r\n", "a\tb", "\x1b[1;31mred\x1b[0m", "\x1b[m", "\x1b[38:2:1:2:3mrgb"] {
            assert_eq!(harmless(same.as_bytes()), same);
        }
        for (printed, shown) in [
            ("\x1b]0;title\x07", "^[]0;title^G"),
            ("\x1b[6n", "^[[6n"),
            ("\x1b[c\x1b[5i", "^[[c^[[5i"),
            ("\x1bP+q6e\x1b\\", "^[P+q6e^[\\"),
            ("\x1b[1", "^[[1"),
            ("\x1b", "^["),
            ("a\x08\x7f\0", "a^H^?^@"),
            ("\u{9b}6n", "\u{fffd}6n"),
        ] {
            assert_eq!(harmless(printed.as_bytes()), shown);
        }
        assert_eq!(harmless(b"\x9b6n\xff"), "\u{fffd}6n\u{fffd}");
    }
}
