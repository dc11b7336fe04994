//! Verbs that go in or look in: `shell`, `exec`, `console`, `logs`.

use super::{ALL, machines};
use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::{print, print_foreign};
use crate::verbs::image::STORE;
use crate::verbs::network::failed;
use offshoot_machine::{Machines, supervisor};
use offshoot_runtime::{Further, Kind, Streams, Wanted, cause};
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::time::Duration;

/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(300);
/// What `exec` exits with if there was no process, as the container's `exec` does.
const FAILED: u8 = 255;

/// `offshoot machine shell`
pub static SHELL: Command = Command::new("shell", "open a login shell of root's in a machine", shell)
    .takes("NAME", Count::Exactly(1))
    .enters()
    .flags(&[STORE]);

/// `offshoot machine exec`
pub static EXEC: Command = Command::new("exec", "run a command in machines", exec)
    .takes("NAME COMMAND...", Count::AtLeast(1))
    .options_around_first()
    .enters()
    .flags(&[
        STORE,
        ALL,
        Flag::switch("tty", "on a terminal of its own").short("t"),
        Flag::text("user", "uid or uid:gid (default: root)").short("u"),
        Flag::text("cwd", "its working directory (default: /)"),
        Flag::text("env", "KEY=value").short("e").many(),
    ])
    .details(
        "NAME may hold * and ?: then the command runs in one machine after the other, each\n\
         below a line with its name. With --all no name is given. Exits with the status of\n\
         the command, of many with 1 if one failed. The command never has the caller's\n\
         terminal: without --tty it has pipes in its place.",
    );

/// `offshoot machine console`
pub static CONSOLE: Command = Command::new("console", "use a machine's console", console)
    .takes("NAME", Count::Exactly(1))
    .flags(&[STORE])
    .details("Ctrl-] leaves.");

/// `offshoot machine logs`
pub static LOGS: Command = Command::new("logs", "print what a machine wrote to its console lately", logs)
    .takes("NAME", Count::Exactly(1))
    .flags(&[
        STORE,
        Flag::switch("follow", "go on printing, until the machine is removed").short("f"),
        Flag::number("lines", "print the last so many lines only").short("n"),
    ])
    .details("On a terminal, what would do more there than set colours is shown as text.");

fn shell(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let name = &call.arguments()[0];
    machines.home.load(name).map_err(failed)?;
    // Of an image that has bash, people expect it.
    let script = "cd ~ 2>/dev/null; [ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l";
    let args = ["/bin/sh", "-c", script].map(String::from).to_vec();
    let home = "HOME=/root".to_owned();
    run(
        &machines,
        name,
        Wanted { args, env: vec![home, term()], terminal: true, cwd: Some("/".into()), ..Wanted::default() },
    )
}

fn term() -> String {
    format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned()))
}

fn exec(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let (names, command) = match call.on("all") {
        true => (&[][..], call.arguments()),
        false => call.arguments().split_at(1),
    };
    if command.is_empty() {
        return Err(Failure::new("no command is given").status(FAILED));
    }
    let mut env = vec!["HOME=/root".to_owned()];
    if call.on("tty") {
        env.push(term());
    }
    env.extend(call.texts("env").map(String::from));
    let wanted = Wanted {
        args: command.to_vec(),
        cwd: Some(call.text("cwd").unwrap_or("/").to_owned()),
        env,
        terminal: call.on("tty"),
        user: call.text("user").map(String::from),
        ..Wanted::default()
    };
    let names = machines.select(names, call.on("all")).map_err(|error| failed(error).status(FAILED))?;
    let [name] = &names[..] else { return each(&machines, &names, &wanted) };
    run(&machines, name, wanted)
}

fn each(machines: &Machines, names: &[String], wanted: &Wanted) -> Result<u8, Failure> {
    let mut bad = 0;
    for name in names {
        print(format!("==> {name} <==\n"))?;
        match run(machines, name, wanted.clone()) {
            Ok(0) => {}
            Ok(_) => bad = 1,
            Err(failure) => {
                eprintln!("{name}: {failure}");
                bad = 1;
            }
        }
    }
    Ok(bad)
}

fn run(machines: &Machines, name: &str, wanted: Wanted) -> Result<u8, Failure> {
    // The command is the machine's own, and so is what stands in its place: it must not keep the caller's terminal.
    let further = Further { id: name.to_owned(), wanted, streams: Streams::NoTerminal, ..Further::default() };
    machines.runtime.exec(&further).map_err(|error| {
        match error.kind() {
            Kind::NotFound => {
                Failure::new(format!("machine {name:?} does not run")).hint(format!("offshoot machine start {name}"))
            }
            _ => Failure::new(error),
        }
        .status(FAILED)
    })
}

fn console(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let attached = supervisor::attach(&machines, &call.arguments()[0]).map_err(failed)?;
    if std::io::stdin().is_terminal() {
        eprintln!("Ctrl-] leaves the console.");
    }
    supervisor::relay(&attached).map_err(failed)?;
    eprintln!();
    Ok(0)
}

fn logs(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let name = &call.arguments()[0];
    machines.home.load(name).map_err(failed)?;
    let [new, old] = supervisor::logs(&machines.home, name);
    let wrong = |error: &std::io::Error| Failure::new(format!("failed to read {}: {}", new.display(), cause(error)));
    let read = |path| -> Result<Vec<u8>, Failure> {
        match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            text => text.map_err(|error| wrong(&error)),
        }
    };
    let (before, mut shown) = (read(&old)?, read(&new)?);
    let mut at = shown.len() as u64;
    let all = [&before[..], &shown].concat();
    print_foreign(match call.number("lines") {
        Some(lines) => last_lines(&all, usize::try_from(lines).unwrap_or(0)),
        None => &all,
    })?;
    while call.on("follow") {
        std::thread::sleep(LOOK);
        let Ok(mut file) = File::open(&new) else {
            // Of one that has said nothing yet there is none, either.
            machines.home.load(name).map_err(failed)?;
            continue;
        };
        let length = file.metadata().map_err(|error| wrong(&error))?.len();
        if length < at {
            // What was there has become the old one.
            let rest = read(&old)?;
            print_foreign(rest.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default())?;
            at = 0;
        }
        shown.clear();
        let more = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_to_end(&mut shown));
        at += more.map_err(|error| wrong(&error))? as u64;
        print_foreign(&shown)?;
    }
    Ok(0)
}

/// The end of a text from so many lines before it.
fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    let end = text.strip_suffix(b"\n").unwrap_or(text);
    let mut breaks = end.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match lines {
        0 => &[],
        lines => &text[breaks.nth(lines - 1).unwrap_or(0)..],
    }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_of_a_log() {
        for (text, lines, last) in
            [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb", 1, "b"), ("a\nb\n", 9, "a\nb\n"), ("a\n", 0, ""), ("", 1, "")]
        {
            assert_eq!(last_lines(text.as_bytes(), lines), last.as_bytes(), "{text:?} {lines}");
        }
    }
}
