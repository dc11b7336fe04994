//! `kill`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use offshoot_runtime::{Kind, signal};

/// `offshoot kill`
pub static COMMAND: Command = Command::new("kill", "send a signal to the container's first process", run)
    .takes("<container-id> [signal]", Count::Between(1, 2))
    .flags(&[Flag::switch("all", "do not fail if the container is not running").short("a").hidden()])
    .details(
        "The signal is a number or a name: 9, KILL, SIGKILL, RTMIN+3; SIGTERM if none is\n\
         given. KILL goes to all processes of a container that shares its pid namespace.\n\
         TERM shuts a system container down in order, by what its init understands.",
    );

fn run(call: &Call) -> Result<u8, Failure> {
    let runtime = call.runtime()?;
    let name = call.arguments().get(1).map(String::as_str).filter(|name| !name.is_empty());
    let id = call.id()?;
    // An unknown container is the graver mistake of the two.
    let container = runtime.load(id)?;
    let signal = signal::parse(name.unwrap_or("TERM"))?;
    if container.kill_enters(signal) {
        offshoot_runtime::protect_program(&call.log)?;
    }
    match runtime.kill(id, signal) {
        // Obsolete in runc, but containerd and Podman send it.
        Err(error) if error.kind() == Kind::Status && call.on("all") => Ok(0),
        killed => Ok(killed.map(|()| 0)?),
    }
}
