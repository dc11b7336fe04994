//! `exec`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::verbs::create::connections;
use offshoot_runtime::wanted::sub_cgroups;
use offshoot_runtime::{Further, Streams, Wanted};
use std::path::PathBuf;

/// The exit status of an `exec` that did not get as far as the program's own.
const FAILED: u8 = 255;

/// `offshoot exec`
pub static COMMAND: Command = Command::new("exec", "run a further process in a container", run)
    .takes("<container-id> <command> [arguments]", Count::AtLeast(1))
    .enters()
    .flags(&[
        Flag::path("console-socket", "AF_UNIX socket that gets the master of the process's terminal"),
        Flag::path("pidfd-socket", "AF_UNIX socket that gets a pidfd of the process"),
        Flag::text("cwd", "working directory in the container"),
        Flag::text("env", "KEY=value for the environment").short("e").many(),
        Flag::switch("tty", "give it a terminal").short("t"),
        Flag::text("user", "uid or uid:gid").short("u"),
        Flag::number("additional-gids", "supplementary group").short("g").many(),
        Flag::path("process", "read the whole process as JSON from this file").short("p"),
        Flag::switch("detach", "return when the program runs").short("d"),
        Flag::path("pid-file", "file for the process's number"),
        Flag::text("process-label", "SELinux label"),
        Flag::text("apparmor", "AppArmor profile"),
        Flag::switch("no-new-privs", "no new privileges by exec"),
        Flag::text("cap", "capability beside those of the container").short("c").many(),
        Flag::number("preserve-fds", "pass on so many descriptors from 3 on"),
        Flag::text("cgroup", "cgroup below the container's, as [controller[,controller]:]path").many(),
        Flag::switch("ignore-paused", "also in a paused container"),
    ])
    .options_first()
    .details(
        "The process is as the container's own in config.json says, with the changes of\n\
         the options; or all as the file of --process says. Exits with the status of the\n\
         process, or 255 if there was none.",
    );

fn run(call: &Call) -> Result<u8, Failure> {
    exec(call).map_err(|failure| failure.during("exec").status(FAILED))
}

fn exec(call: &Call) -> Result<u8, Failure> {
    let text = |name| call.text(name).map(String::from);
    let texts = |name| call.texts(name).map(String::from).collect::<Vec<_>>();
    let further = Further {
        id: call.id()?.to_owned(),
        wanted: Wanted {
            file: call.path("process").map(PathBuf::from),
            args: call.arguments()[1..].to_vec(),
            cwd: text("cwd"),
            env: texts("env"),
            terminal: call.on("tty"),
            user: text("user"),
            groups: call.numbers("additional-gids").collect(),
            selinux_label: text("process-label"),
            apparmor_profile: text("apparmor"),
            no_new_privileges: call.given("no-new-privs").then(|| call.on("no-new-privs")),
            capabilities: texts("cap"),
        },
        connections: connections(call)?,
        cgroups: sub_cgroups(&texts("cgroup"))?,
        ignore_paused: call.on("ignore-paused"),
        detached: call.on("detach"),
        // As runc's.
        streams: Streams::Caller,
    };
    Ok(call.runtime()?.exec(&further)?)
}
