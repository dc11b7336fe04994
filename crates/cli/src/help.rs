//! Help texts, in the layout of urfave/cli, which people and scripts know from runc.

use crate::command::{Action, Command, Commands, Flag, Kind, Order};
use crate::table::{COMMANDS, DETAILS, GLOBAL, SUMMARY};
use std::fmt::Write as _;

static HELP: Flag = Flag::switch("help", "show help").short("h");
static VERSION: Flag = Flag::switch("version", "print the version").short("v");

/// Help on the whole program.
pub fn program(name: &str) -> String {
    let title = if name == "runc" { name.to_owned() } else { format!("{name}, compatible with runc") };
    let mut out = format!("NAME:\n   {title} - {SUMMARY}\n\n{DETAILS}\n\n");
    let _ = write!(
        out,
        "USAGE:\n   {name} [global options] command [command options] [arguments...]\n\nVERSION:\n   {}\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let help = [("help, h".to_owned(), "list the commands or explain one of them".to_owned())];
    section(&mut out, "COMMANDS", list(COMMANDS).chain(help));
    out.push('\n');
    section(&mut out, "GLOBAL OPTIONS", GLOBAL.iter().chain([&HELP, &VERSION]).filter_map(option));
    out
}

/// Help on one command, which is typed as `path`: `offshoot create`, `offshoot image list`.
pub fn command(path: &str, command: &Command) -> String {
    let mut out = format!("NAME:\n   {path} - {}\n\nUSAGE:\n   {path}", command.summary);
    match command.action {
        Action::Group(_) => out.push_str(" command"),
        Action::Run(_) => {}
    }
    let options: Vec<_> = command.flags.iter().filter_map(option).collect();
    if !options.is_empty() {
        out.push_str(if command.order == Order::First { " [options]" } else { " [command options]" });
    }
    if !command.arguments.is_empty() {
        let _ = write!(out, " {}", command.arguments);
    }
    out.push('\n');
    if !command.details.is_empty() {
        let _ = write!(out, "\nDESCRIPTION:\n{}\n", indented(command.details));
    }
    if let Action::Group(commands) = command.action {
        out.push('\n');
        section(&mut out, "COMMANDS", list(commands));
    }
    if !options.is_empty() {
        out.push('\n');
        section(&mut out, "OPTIONS", options.into_iter());
    }
    out
}

/// How an option is written, and what it does; `None` for a hidden one.
fn option(flag: &'static Flag) -> Option<(String, String)> {
    if flag.hidden {
        return None;
    }
    let value = if flag.kind == Kind::Switch { "" } else { " value" };
    let mut name = format!("--{}{value}", flag.name);
    if !flag.short.is_empty() {
        let _ = write!(name, ", -{}{value}", flag.short);
    }
    let mut help = flag.help.to_owned();
    if flag.many {
        help.push_str(", may be given many times");
    }
    if !flag.default.is_empty() {
        let _ = write!(help, " (default: {:?})", flag.default);
    }
    Some((name, help))
}

fn list(commands: Commands) -> impl Iterator<Item = (String, String)> {
    commands.iter().map(|command| (command.name.to_owned(), command.summary.to_owned()))
}

/// Two columns below a heading.
fn section(out: &mut String, heading: &str, rows: impl Iterator<Item = (String, String)>) {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let _ = writeln!(out, "{heading}:");
    for (name, help) in rows {
        let _ = writeln!(out, "   {name:width$}  {help}");
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<_> =
        text.lines().map(|line| if line.is_empty() { String::new() } else { format!("   {line}") }).collect();
    lines.join("\n")
}
