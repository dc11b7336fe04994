//! The command table: all that the program accepts, in the order that help shows it.

use crate::command::{Commands, Flag};
use crate::verbs;

/// What the program is, in one line. The words after the dash are runc's, which its test suite looks for.
pub const SUMMARY: &str = "Open Container Initiative runtime";

/// What the program is, in paragraphs.
pub const DETAILS: &str = "\
Makes and runs containers from bundles: directories with a root filesystem and
a config.json as the OCI runtime specification describes it. Takes the commands,
options and answers of runc, so that containerd, Docker, Podman, CRI-O and
Kubernetes can use it in runc's place.

    cd bundle && offshoot run my-container

The process becomes a child of the caller; there is no daemon.";

/// Options that stand before the command.
pub static GLOBAL: &[Flag] = &[
    Flag::switch("debug", "log how things are done, too"),
    Flag::path("log", "append messages to this file instead of stderr"),
    Flag::text(
        "log-format",
        "form of messages: text or json (default: text; plain sentences from commands that runc has not)",
    ),
    Flag::path(
        "root",
        "directory of the containers' states; on a tmpfs, gone after a reboot as they are (default: /run/offshoot, or $XDG_RUNTIME_DIR/offshoot without root)",
    ),
    Flag::switch("systemd-cgroup", "let systemd make cgroups; cgroupsPath is then \"slice:prefix:name\""),
    Flag::text("rootless", "pass over missing permission for cgroups: true, false or auto").default("auto"),
    // go-runc of containerd 1.x still sends it; criu is found in PATH.
    Flag::text("criu", "ignored").hidden(),
];

/// The commands. To add one, write its file in `verbs` and its line here; a group of commands is a
/// [`Command::group`](crate::command::Command::group) over such a list.
pub static COMMANDS: Commands = &[
    &verbs::checkpoint::COMMAND,
    &verbs::create::CREATE,
    &verbs::delete::COMMAND,
    &verbs::events::COMMAND,
    &verbs::exec::COMMAND,
    &verbs::kill::COMMAND,
    &verbs::list::COMMAND,
    &verbs::pause::PAUSE,
    &verbs::ps::COMMAND,
    &verbs::restore::COMMAND,
    &verbs::pause::RESUME,
    &verbs::create::RUN,
    &verbs::spec::COMMAND,
    &verbs::start::COMMAND,
    &verbs::state::COMMAND,
    &verbs::update::COMMAND,
    &verbs::features::COMMAND,
    &verbs::plan::COMMAND,
    &verbs::image::COMMAND,
    &verbs::clone::COMMAND,
    &verbs::machine::COMMAND,
    &verbs::network::COMMAND,
    &verbs::check::COMMAND,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, Order};

    fn check(commands: Commands) {
        for (at, command) in commands.iter().enumerate() {
            assert!(!commands[..at].iter().any(|other| other.name == command.name), "two commands {}", command.name);
            assert!(!command.summary.ends_with('.') && !command.summary.is_empty(), "summary of {}", command.name);
            let mut names = vec!["help", "h"];
            for flag in command.flags {
                for name in [flag.name, flag.short].into_iter().filter(|name| !name.is_empty()) {
                    assert!(!names.contains(&name), "two options {name} of {}", command.name);
                    names.push(name);
                }
            }
            if let Action::Group(inner) = command.action {
                assert!(command.flags.is_empty() && command.order == Order::First, "options of {}", command.name);
                check(inner);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        check(COMMANDS);
    }
}
