//! One call of a command: its options and arguments, and what every command needs.

use crate::command::{Command, Count};
use crate::failure::Failure;
use crate::parse::Arguments;
use crate::value::Value;
use offshoot_runtime::{Log, Runtime};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// A call of one command.
pub struct Call {
    /// The command.
    pub command: &'static Command,
    /// Where messages go.
    pub log: Log,
    program: String,
    global: Arguments,
    options: Vec<(&'static str, Value)>,
    arguments: Vec<String>,
}

impl Call {
    /// A call of `command` with what was parsed before and after its name.
    ///
    /// # Errors
    /// An argument is not UTF-8; ids, signals and the words of `process.args` all have to be.
    pub fn new(
        command: &'static Command,
        program: &str,
        global: Arguments,
        own: Arguments,
        log: Log,
    ) -> Result<Call, Failure> {
        let utf8 = |word: OsString| {
            word.into_string().map_err(|word| Failure::new(format!("argument {word:?} is not valid UTF-8")))
        };
        let arguments = own.rest.into_iter().map(utf8).collect::<Result<_, _>>()?;
        let program = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Call { command, log, program, global, options: own.options, arguments })
    }

    /// Whether the number of arguments is right.
    ///
    /// # Errors
    /// In runc's words, with the program as it was called.
    pub fn check_count(&self, program: &str) -> Result<(), Failure> {
        let given = self.arguments.len();
        let wrong = match self.command.count {
            Count::Exactly(wanted) if given != wanted => ("exactly", wanted),
            Count::AtLeast(least) | Count::Between(least, _) if given < least => ("a minimum of", least),
            Count::Between(_, most) if given > most => ("a maximum of", most),
            _ => return Ok(()),
        };
        let (how, wanted) = wrong;
        Err(Failure::new(format!("{program}: {:?} requires {how} {wanted} argument(s)", self.command.name)))
    }

    /// The state root, the cgroup driver and the log: what the library needs to know of the caller.
    ///
    /// # Errors
    /// The root directory cannot be used, or the command makes a container and `--rootless` is no answer.
    pub fn runtime(&self) -> Result<Runtime, Failure> {
        let global = Options(&self.global.options);
        // runc reads the option where it makes a container, and not elsewhere; the words are Go's.
        let makes = matches!(self.command.name, "create" | "run" | "restore");
        let rootless = match global.text("rootless") {
            Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Some(true),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Some(false),
            Some(other) if makes && !other.eq_ignore_ascii_case("auto") => {
                return Err(Failure::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")));
            }
            _ => None,
        };
        Ok(Runtime::new(global.raw("root").map(Path::new), self.log.clone())?
            .program(&self.program)
            .systemd_cgroup(global.on("systemd-cgroup"))
            .rootless(rootless))
    }

    /// The container id, which is the first argument of most commands.
    ///
    /// # Errors
    /// It is empty.
    pub fn id(&self) -> Result<&str, Failure> {
        match self.arguments.first() {
            Some(id) if !id.is_empty() => Ok(id),
            _ => Err(Failure::new("container id cannot be empty")),
        }
    }

    /// For commands that are not runc's, of which callers send empty options for absent ones.
    ///
    /// # Errors
    /// An option was given an empty text.
    pub fn check_empty(&self) -> Result<(), Failure> {
        match self.options.iter().find(|(_, value)| matches!(value, Value::Text(text) if text.is_empty())) {
            Some((name, _)) => Err(Failure::new(format!("invalid value for {name}: it is empty"))),
            None => Ok(()),
        }
    }

    /// All arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.of(name).on(name)
    }

    /// Whether an option was given at all.
    pub fn given(&self, name: &str) -> bool {
        self.of(name).get(name).is_some()
    }

    /// The text of an option or its default; `None` when neither is there or the text is empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.of(name).text(name).or_else(|| self.default(name))
    }

    /// The texts of an option that may be given many times.
    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.of(name).all(name).filter_map(OsStr::to_str)
    }

    /// The path of an option; `None` when it was not given or is empty.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.of(name).raw(name).filter(|path| !path.is_empty()).map(Path::new)
    }

    /// The number of an option, if it was given.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.of(name).get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The numbers of an option that may be given many times.
    pub fn numbers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = i64> + 'a {
        let values = self.of(name).0.iter().filter(move |(option, _)| *option == name);
        values.filter_map(|(_, value)| if let Value::Number(number) = value { Some(*number) } else { None })
    }

    /// The duration of an option, if it was given.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.of(name).get(name) {
            Some(Value::Duration(duration)) => Some(*duration),
            _ => None,
        }
    }

    fn of(&self, name: &str) -> Options<'_> {
        // A misspelt name would be an option that is never given.
        debug_assert!(self.command.flags.iter().any(|flag| flag.name == name), "no option --{name}");
        Options(&self.options)
    }

    fn default(&self, name: &str) -> Option<&'static str> {
        let flag = self.command.flags.iter().find(|flag| flag.name == name)?;
        (!flag.default.is_empty()).then_some(flag.default)
    }
}

/// Options of one level of the command line. Of an option that was given twice the last counts.
pub struct Options<'a>(pub &'a [(&'static str, Value)]);

impl<'a> Options<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.iter().rev().find(|(option, _)| *option == name).map(|(_, value)| value)
    }

    fn all(self, name: &'a str) -> impl Iterator<Item = &'a OsStr> {
        let values = self.0.iter().filter(move |(option, _)| *option == name);
        values.filter_map(|(_, value)| if let Value::Text(text) = value { Some(text.as_os_str()) } else { None })
    }

    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Switch(true)))
    }

    /// What was given, in whatever bytes.
    pub fn raw(&self, name: &str) -> Option<&'a OsStr> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Text that is not empty.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.raw(name).and_then(OsStr::to_str).filter(|text| !text.is_empty())
    }
}
