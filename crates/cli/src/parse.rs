//! Options and arguments by the rules of Go's `flag` package and urfave/cli, which every caller of runc writes for.
//!
//! `-x`, `--x`, `-x=v`, `--x=v`, `-x v` and `--x v` are the same option whatever the length of its name; letters
//! are not combined; a switch takes a value only after `=`; `--` ends the options.

use crate::command::{Flag, Kind, Order};
use crate::value::{Value, switch};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What one level of the command line held: its options and what was left.
#[derive(Debug, Default, PartialEq)]
pub struct Arguments {
    /// Options in the order given.
    pub options: Vec<(&'static str, Value)>,
    /// What is not an option.
    pub rest: Vec<OsString>,
    /// Whether `-h` or `--help` was among the options.
    pub help: bool,
    /// Whether `-v` or `--version` was, where `--version` is not an option of the command.
    pub version: bool,
}

/// Splits `words` into the options that `flags` names and the rest.
///
/// # Errors
/// In Go's words: an option that is not known, lacks its value, or has a wrong one.
pub fn parse(
    flags: &'static [Flag],
    order: Order,
    words: impl IntoIterator<Item = OsString>,
) -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some((name, inline)) = option(&word)? else {
            let ends = word == "--";
            if !ends {
                found.rest.push(word);
            }
            if ends || order == Order::First || (order == Order::AroundFirst && found.rest.len() > 1) {
                break;
            }
            continue;
        };
        let is_named = |flag: &&Flag| flag.name == name || (!flag.short.is_empty() && flag.short == name);
        let Some(flag) = flags.iter().find(is_named) else {
            match &*name {
                "h" | "help" => found.help = on(&name, inline)?,
                "v" | "version" => found.version = on(&name, inline)?,
                // urfave/cli moves only options that it knows to the front: `kill ID -9` is an argument.
                _ if !found.rest.is_empty() => found.rest.push(word.clone()),
                _ => return Err(format!("flag provided but not defined: -{name}")),
            }
            continue;
        };
        let value = match (flag.kind, inline) {
            (Kind::Switch, inline) => Value::Switch(on(&name, inline)?),
            (_, Some(inline)) => Value::of(flag.kind, &name, inline.to_owned())?,
            (_, None) => {
                let next = words.next();
                let next = next.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                Value::of(flag.kind, &name, next)?
            }
        };
        found.options.push((flag.name, value));
    }
    found.rest.extend(words);
    Ok(found)
}

fn on(name: &str, inline: Option<&OsStr>) -> Result<bool, String> {
    inline.map_or(Ok(true), |text| switch(name, text))
}

/// An option as typed: its name and the value after `=`.
type Typed<'a> = (Cow<'a, str>, Option<&'a OsStr>);

/// The option that a word is; a lone dash and `--` are none.
fn option(word: &OsStr) -> Result<Option<Typed<'_>>, String> {
    let bytes = word.as_bytes();
    let name = match bytes {
        b"-" | b"--" => return Ok(None),
        [b'-', b'-', name @ ..] | [b'-', name @ ..] => name,
        _ => return Ok(None),
    };
    if matches!(name, [b'-' | b'=', ..]) {
        return Err(format!("bad flag syntax: {}", word.display()));
    }
    let (name, value) = match name.iter().position(|&byte| byte == b'=') {
        Some(at) => (&name[..at], Some(OsStr::from_bytes(&name[at + 1..]))),
        None => (name, None),
    };
    Ok(Some((String::from_utf8_lossy(name), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: &[Flag] = &[
        Flag::switch("detach", "").short("d"),
        Flag::path("bundle", "").short("b"),
        Flag::text("env", "").short("e").many(),
        Flag::number("preserve-fds", ""),
    ];

    fn split(order: Order, line: &str) -> Result<Arguments, String> {
        parse(FLAGS, order, line.split_whitespace().map(OsString::from))
    }

    fn rest(arguments: &Arguments) -> Vec<&str> {
        arguments.rest.iter().filter_map(|word| word.to_str()).collect()
    }

    #[test]
    fn all_spellings_of_an_option_are_one() {
        let path = |line| split(Order::Anywhere, line).unwrap().options;
        for line in ["-b x", "--b x", "-b=x", "--b=x", "-bundle x", "--bundle x", "-bundle=x", "--bundle=x"] {
            assert_eq!(path(line), [("bundle", Value::Text("x".into()))], "{line}");
        }
        for (line, on) in [("-d", true), ("--detach", true), ("-detach=false", false), ("--d=T", true), ("-d=0", false)]
        {
            assert_eq!(path(line), [("detach", Value::Switch(on))], "{line}");
        }
    }

    #[test]
    fn options_may_follow_the_arguments_unless_these_belong_to_another_program() {
        let anywhere = split(Order::Anywhere, "-d id --bundle=b -9 -- -d").unwrap();
        assert_eq!(rest(&anywhere), ["id", "-9", "-d"]);
        assert_eq!(anywhere.options.len(), 2);
        let first = split(Order::First, "-d id --bundle b -- -d").unwrap();
        assert_eq!(rest(&first), ["id", "--bundle", "b", "--", "-d"]);
        assert_eq!(first.options.len(), 1);
        for line in ["-d id --bundle b ls -d", "id -d --bundle=b -- ls -d", "-d --bundle b id ls -d"] {
            let around = split(Order::AroundFirst, line).unwrap();
            assert_eq!((rest(&around), around.options.len()), (vec!["id", "ls", "-d"], 2), "{line}");
        }
        // As ever, where there is one argument.
        assert_eq!(rest(&split(Order::AroundFirst, "-d id -9 --bundle=b").unwrap()), ["id", "-9"]);
    }

    #[test]
    fn a_switch_never_takes_the_next_word() {
        assert_eq!(rest(&split(Order::Anywhere, "--detach false").unwrap()), ["false"]);
    }

    #[test]
    fn values_add_up_and_are_not_split() {
        let many = split(Order::First, "-e A=1,2 --env B=3 id").unwrap();
        assert_eq!(many.options, [("env", Value::Text("A=1,2".into())), ("env", Value::Text("B=3".into()))]);
    }

    #[test]
    fn mistakes_are_told_as_go_does() {
        for (line, text) in [
            ("--nope id", "flag provided but not defined: -nope"),
            ("-it", "flag provided but not defined: -it"),
            ("--bundle", "flag needs an argument: -bundle"),
            ("--detach=maybe", "invalid boolean value \"maybe\" for -detach: parse error"),
            ("--preserve-fds x", "invalid value \"x\" for flag -preserve-fds: parse error"),
            ("---x", "bad flag syntax: ---x"),
        ] {
            assert_eq!(split(Order::Anywhere, line).unwrap_err(), text);
        }
    }

    #[test]
    fn help_is_an_option_of_every_command() {
        assert!(split(Order::Anywhere, "id -h").unwrap().help);
        assert!(!split(Order::First, "id -h").unwrap().help);
        assert!(split(Order::First, "--version").unwrap().version);
    }

    #[test]
    fn a_lone_dash_is_an_argument() {
        assert_eq!(rest(&split(Order::Anywhere, "- x").unwrap()), ["-", "x"]);
    }
}
