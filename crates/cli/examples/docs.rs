//! Writes the manual pages and the shell completions from the command table:
//! `cargo run -p offshoot-cli --example docs -- DIRECTORY`.
//!
//! The program parses its command line itself (see `parse.rs`); clap's generators do not need its parser, and the
//! program does not carry them.

#![forbid(unsafe_code)]

use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use offshoot_cli::command::{self, Action, Commands, Count, Flag, Kind};
use offshoot_cli::table::{COMMANDS, DETAILS, GLOBAL, SUMMARY};
use std::fs::{self, File};
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let out = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: docs DIRECTORY"))?;
    let (man, completions) = (Path::new(&out).join("man"), Path::new(&out).join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    pages(&man, &program(), "offshoot")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut program(), "offshoot", &completions)?;
    }
    Ok(())
}

/// The page of a command and those of the commands below it.
fn pages(dir: &Path, command: &Command, name: &str) -> io::Result<()> {
    let page = Man::new(command.clone().display_name(name.to_owned()).bin_name(name.replace('-', " ")))
        .title(name.to_owned())
        .section("8")
        .manual("System Manager's Manual")
        .date("");
    page.render(&mut File::create(dir.join(format!("{name}.8")))?)?;
    command.get_subcommands().try_for_each(|inner| pages(dir, inner, &format!("{name}-{}", inner.get_name())))
}

fn program() -> Command {
    let program = Command::new("offshoot").version(env!("CARGO_PKG_VERSION")).about(SUMMARY).long_about(DETAILS);
    let version = Arg::new("version").long("version").short('v').action(ArgAction::Version).help("print the version");
    program
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .arg(version)
        .subcommand_required(true)
        .args(GLOBAL.iter().map(flag))
        .subcommands(subcommands(COMMANDS))
}

fn subcommands(commands: Commands) -> impl Iterator<Item = Command> {
    commands.iter().map(|entry| subcommand(entry))
}

fn subcommand(entry: &command::Command) -> Command {
    let long = if entry.details.is_empty() { entry.summary } else { entry.details };
    let command = Command::new(entry.name).about(entry.summary).long_about(long).args(entry.flags.iter().map(flag));
    match entry.action {
        Action::Group(inner) => command.subcommand_required(true).subcommands(subcommands(inner)),
        Action::Run(_) => command.args(arguments(entry)),
    }
}

/// The words of the usage line, such as `<container-id> [signal]`.
fn arguments(entry: &command::Command) -> Vec<Arg> {
    let least = match entry.count {
        Count::Exactly(least) | Count::AtLeast(least) | Count::Between(least, _) => least,
    };
    let names = entry.arguments.split(|letter| "<>[]|".contains(letter)).map(str::trim).filter(|name| !name.is_empty());
    names.enumerate().map(|(at, name)| Arg::new(name).value_name(name).required(at < least)).collect()
}

fn flag(flag: &'static Flag) -> Arg {
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help).hide(flag.hidden);
    let arg = match flag.kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Path => arg.value_hint(ValueHint::AnyPath).value_name("path"),
        Kind::Text => arg.value_name("value"),
        Kind::Number => arg.value_name("number"),
        Kind::Duration => arg.value_name("duration"),
    };
    let arg = if flag.many { arg.action(ArgAction::Append) } else { arg };
    let arg = if flag.default.is_empty() { arg } else { arg.default_value(flag.default) };
    match flag.short.chars().next() {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}
