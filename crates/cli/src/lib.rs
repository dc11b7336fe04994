//! The `offshoot` command: arguments and output, nothing else.
//!
//! A library for the sake of the command table, from which the manual pages and completions are made
//! (`examples/docs.rs`).

#![forbid(unsafe_code)]

pub mod call;
mod columns;
pub mod command;
pub mod failure;
mod help;
mod output;
mod parse;
pub mod table;
mod value;
mod verbs;
mod version;

use call::{Call, Options};
use command::{Action, Commands, Order};
use failure::Failure;
use offshoot_runtime::{Format, Log, cause};
use output::print;
use parse::{Arguments, parse};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use table::{COMMANDS, GLOBAL};

/// `open(2)`: each line is on disk before the next step, since the caller may be killed with its child.
const O_SYNC: i32 = 0o4_010_000;

/// Does what the command line says.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_else(|| "offshoot".into()).to_string_lossy().into_owned();
    let mut log = Destination { log: Log::stderr(Format::Text, false), is_file: false };
    match run(&program, words, &mut log) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            log.log.error(&failure);
            // containerd reads the log; a person and conmon read stderr.
            if log.is_file {
                eprintln!("{failure}");
            }
            if let Some(hint) = failure.advice() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.code())
        }
    }
}

/// The log, and whether it is another file than stderr.
struct Destination {
    log: Log,
    is_file: bool,
}

/// Runs the command that `words` ask for.
fn run(program: &str, words: impl Iterator<Item = OsString>, log: &mut Destination) -> Result<u8, Failure> {
    let name = Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy());
    let mut global = match parse(GLOBAL, Order::First, words) {
        Ok(global) => global,
        Err(message) => {
            print(format!("Incorrect Usage. {message}\n\n{}", help::program(&name)))?;
            return Err(Failure::new(message));
        }
    };
    if global.version {
        return print(version::text()).map(|()| 0);
    }
    if global.help || global.rest.is_empty() {
        return print(help::program(&name)).map(|()| 0);
    }
    let words = std::mem::take(&mut global.rest);
    let command = words.first().and_then(|word| command::find(COMMANDS, &word.to_string_lossy()));
    let usual = match command {
        Some(command) if command.for_people => Format::Plain,
        _ => Format::Text,
    };
    configure(log, &Options(&global.options), usual)?;
    dispatch(COMMANDS, &name, words, Context { program, global, log: log.log.clone() })
}

/// `usual` is the form of messages on stderr that nobody has chosen.
fn configure(destination: &mut Destination, global: &Options, usual: Format) -> Result<(), Failure> {
    let file = global.raw("log").filter(|path| !path.is_empty());
    let format = match global.text("log-format") {
        None if file.is_none() => usual,
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(Failure::new(format!("invalid log-format: {other}"))),
    };
    let debug = global.on("debug");
    match file {
        None => destination.log = Log::stderr(format, debug),
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(O_SYNC).open(path);
            let file = file.map_err(|error| Failure::new(format!("open {}: {}", path.display(), cause(&error))))?;
            (destination.log, destination.is_file) = (Log::file(file, format, debug), true);
        }
    }
    Ok(())
}

/// What a command needs beside its own words.
struct Context<'a> {
    program: &'a str,
    global: Arguments,
    log: Log,
}

/// Finds the command that the first word names among `commands`, and calls it. `path` is what came before the word.
fn dispatch(commands: Commands, path: &str, words: Vec<OsString>, context: Context<'_>) -> Result<u8, Failure> {
    let mut words = words.into_iter();
    let word = words.next().unwrap_or_default().to_string_lossy().into_owned();
    if matches!(&*word, "help" | "h") {
        return explain(commands, path, words).map(|()| 0);
    }
    let command = command::find(commands, &word).ok_or_else(|| unknown(&word))?;
    let path = format!("{path} {word}");
    let found = match parse(command.flags, command.order, words) {
        Ok(found) => found,
        Err(message) => {
            print(format!("Incorrect Usage: {message}\n\n{}", help::command(&path, command)))?;
            return Err(Failure::new(message));
        }
    };
    match command.action {
        Action::Group(inner) if !found.help && !found.rest.is_empty() && found.rest != ["help"] => {
            dispatch(inner, &path, found.rest, context)
        }
        Action::Run(run) if !found.help => {
            let call = Call::new(command, context.program, context.global, found, context.log)?;
            if let Err(failure) = call.check_count(context.program) {
                print(format!("Incorrect Usage.\n\n{}", help::command(&path, command)))?;
                return Err(failure);
            }
            if command.enters {
                offshoot_runtime::protect_program(&call.log)?;
            }
            run(&call)
        }
        _ => print(help::command(&path, command)).map(|()| 0),
    }
}

/// `help`, `help create`, `image help`, `help image list`.
fn explain(commands: Commands, path: &str, mut words: std::vec::IntoIter<OsString>) -> Result<(), Failure> {
    let Some(word) = words.next() else { return print(help::program(path)) };
    let word = word.to_string_lossy();
    let command = command::find(commands, &word).ok_or_else(|| unknown(&word))?;
    let path = format!("{path} {word}");
    match command.action {
        Action::Group(inner) if words.len() > 0 => explain(inner, &path, words),
        _ => print(help::command(&path, command)),
    }
}

fn unknown(word: &str) -> Failure {
    Failure::new(format!("No help topic for '{word}'")).status(3)
}
