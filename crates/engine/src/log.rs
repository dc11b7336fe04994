//! Where messages go: one line each, written with one `write`, so that the parent and the stages of the child can
//! share one file.
//!
//! A library has no log of its own. Its caller hands one in; the `offshoot` command makes it from `--log`,
//! `--log-format` and `--debug`.

use offshoot_spec::time::rfc3339;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

/// How grave a message is, in logrus's words, which callers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What made the command fail.
    Error,
    /// What the user should know of a command that goes on.
    Warning,
    /// What happened.
    Info,
    /// How it happened; kept back unless asked for.
    Debug,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`, as logrus writes to what is not a terminal.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`; containerd and conmon read the last such line of level `error`.
    Json,
    /// `error: …`, for people.
    Plain,
}

/// A sink for messages.
#[derive(Clone, Debug, Default)]
pub struct Log {
    sink: Sink,
    format: Format,
    debug: bool,
}

#[derive(Clone, Debug, Default)]
enum Sink {
    #[default]
    None,
    Stderr,
    File(Arc<File>),
}

impl Log {
    /// Drops every message.
    pub const fn none() -> Log {
        Log { sink: Sink::None, format: Format::Text, debug: false }
    }

    /// Writes to the process's standard error.
    pub const fn stderr(format: Format, debug: bool) -> Log {
        Log { sink: Sink::Stderr, format, debug }
    }

    /// Writes to `file`, which should be opened for appending.
    pub fn file(file: File, format: Format, debug: bool) -> Log {
        Log { sink: Sink::File(Arc::new(file)), format, debug }
    }

    /// Whether debug messages are written, for callers that would go to some length to make one.
    pub fn is_debug(&self) -> bool {
        self.debug && !matches!(self.sink, Sink::None)
    }

    /// The file, for a child process that closes every descriptor it was not told to keep.
    pub fn as_file(&self) -> Option<&File> {
        match &self.sink {
            Sink::File(file) => Some(file),
            Sink::None | Sink::Stderr => None,
        }
    }

    /// The one message of a command that fails.
    pub fn error(&self, message: impl fmt::Display) {
        self.write(Level::Error, &message);
    }

    /// A message about something odd that does not stop the command.
    pub fn warn(&self, message: impl fmt::Display) {
        self.write(Level::Warning, &message);
    }

    /// A message about what happened.
    pub fn info(&self, message: impl fmt::Display) {
        self.write(Level::Info, &message);
    }

    /// A message about how something happened, formatted only if it is wanted.
    pub fn debug(&self, message: impl fmt::Display) {
        if self.is_debug() {
            self.write(Level::Debug, &message);
        }
    }

    fn write(&self, level: Level, message: &dyn fmt::Display) {
        let line = || line(self.format, level, &message.to_string(), &rfc3339(SystemTime::now()));
        // A log that cannot be written has nowhere to say so.
        let _ = match &self.sink {
            Sink::None => Ok(()),
            Sink::Stderr => std::io::stderr().write_all(line().as_bytes()),
            Sink::File(file) => file.as_ref().write_all(line().as_bytes()),
        };
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

fn line(format: Format, level: Level, message: &str, time: &str) -> String {
    let level = level.name();
    match format {
        Format::Text if is_plain(message) => format!("time=\"{time}\" level={level} msg={message}\n"),
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", quoted(message)),
        Format::Plain => format!("{level}: {}\n", escaped(message, false)),
        Format::Json => format!("{{\"level\":\"{level}\",\"msg\":{},\"time\":\"{time}\"}}\n", quoted(message)),
    }
}

/// Words that logrus leaves without quotes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte))
}

/// A JSON string, which Go's `%q` equals for all that messages hold.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text, true))
}

/// Control characters never reach the file: what a container put into a message can neither forge a line nor steer a terminal.
/// In quotes, these and backslashes are escaped, too.
fn escaped(text: &str, in_quotes: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        match character {
            '"' if in_quotes => out.push_str("\\\""),
            '\\' if in_quotes => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05Z";

    #[test]
    fn text_is_logrus() {
        let plain = line(Format::Text, Level::Debug, "plain/word.x", TIME);
        assert_eq!(plain, format!("time=\"{TIME}\" level=debug msg=plain/word.x\n"));
        let odd = line(Format::Text, Level::Error, "no \"such\"\nthing", TIME);
        assert_eq!(odd, format!("time=\"{TIME}\" level=error msg=\"no \\\"such\\\"\\nthing\"\n"));
    }

    #[test]
    fn plain_is_a_line_that_nothing_can_forge() {
        let odd = line(Format::Plain, Level::Warning, "no \"such\" \\ \nerror: thing\u{1b}[31m", TIME);
        assert_eq!(odd, "warning: no \"such\" \\ \\nerror: thing\\u001b[31m\n");
    }

    #[test]
    fn json_has_the_three_keys_in_order() {
        let odd = line(Format::Json, Level::Warning, "a\u{1b}[31m\\", TIME);
        assert_eq!(odd, format!("{{\"level\":\"warning\",\"msg\":\"a\\u001b[31m\\\\\",\"time\":\"{TIME}\"}}\n"));
    }
}
