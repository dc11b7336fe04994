//! Values of options, read as Go's `strconv` and `time` do.

use crate::command::Kind;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// Text or a path.
    Text(OsString),
    /// A number.
    Number(i64),
    /// A duration; Go's negative ones count as none.
    Duration(Duration),
}

impl Value {
    /// Reads `text` as the value of the option that was typed as `name`.
    ///
    /// # Errors
    /// In Go's words.
    pub fn of(kind: Kind, name: &str, text: OsString) -> Result<Value, String> {
        let wrong = |text: &OsStr, cause: &str| {
            format!("invalid value {:?} for flag -{name}: {cause}", text.display().to_string())
        };
        if kind == Kind::Path {
            return Ok(Value::Text(text));
        }
        let Some(utf8) = text.to_str() else { return Err(wrong(&text, "not UTF-8")) };
        match kind {
            Kind::Switch => switch(name, &text).map(Value::Switch),
            Kind::Text | Kind::Path => Ok(Value::Text(text)),
            Kind::Number => number(utf8).map(Value::Number).ok_or_else(|| wrong(&text, "parse error")),
            Kind::Duration => duration(utf8).map(Value::Duration).ok_or_else(|| wrong(&text, "parse error")),
        }
    }
}

/// A truth value, as `strconv.ParseBool` takes them.
///
/// # Errors
/// In Go's words.
pub fn switch(name: &str, text: &OsStr) -> Result<bool, String> {
    match text.to_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        _ => Err(format!("invalid boolean value \"{}\" for -{name}: parse error", text.display())),
    }
}

/// A whole number with an optional sign, in the base that its prefix says (`strconv.ParseInt` with base 0).
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let digits = digits.replace('_', "");
    // from_str_radix would take a second sign.
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(&format!("{}{digits}", if negative { "-" } else { "" }), base).ok()
}

/// `time.ParseDuration`: decimal numbers, each with a unit, one after the other; or a bare `0`.
fn duration(text: &str) -> Option<Duration> {
    let (negative, mut text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !text.is_empty() {
        let end = text.find(|byte: char| !byte.is_ascii_digit() && byte != '.')?;
        let amount: f64 = text[..end].parse().ok()?;
        text = &text[end..];
        let end = text.find(|byte: char| byte.is_ascii_digit() || byte == '.').unwrap_or(text.len());
        nanos += amount
            * match &text[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        text = &text[end..];
    }
    let whole = Duration::try_from_secs_f64(nanos / 1e9).ok()?;
    Some(if negative { Duration::ZERO } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_go_prefixes() {
        for (text, value) in [
            ("0", Some(0)),
            ("42", Some(42)),
            ("-1", Some(-1)),
            ("+7", Some(7)),
            ("0x1F", Some(31)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b11", Some(3)),
            ("1_000", Some(1000)),
            ("", None),
            ("-", None),
            ("--1", None),
            ("1.5", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn durations_add_their_units() {
        for (text, millis) in [
            ("0", Some(0)),
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("1500us", Some(1)),
            ("-5s", Some(0)),
            ("5", None),
            ("s", None),
            ("", None),
            ("5x", None),
        ] {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), millis, "{text}");
        }
    }
}
