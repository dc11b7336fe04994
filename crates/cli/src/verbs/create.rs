//! `create` and `run`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use offshoot_runtime::{Connections, Launch};
use std::path::{Path, PathBuf};

const BUNDLE: Flag = Flag::path("bundle", "the bundle's directory (default: the working directory)").short("b");
const CONSOLE_SOCKET: Flag =
    Flag::path("console-socket", "AF_UNIX socket that gets the master of the process's terminal");
const PIDFD_SOCKET: Flag = Flag::path("pidfd-socket", "AF_UNIX socket that gets a pidfd of the process");
const PID_FILE: Flag = Flag::path("pid-file", "file for the process's number");
const NO_PIVOT: Flag =
    Flag::switch("no-pivot", "change the root without pivot_root, for a root filesystem on a ramdisk");
const NO_NEW_KEYRING: Flag = Flag::switch("no-new-keyring", "keep the caller's session keyring");
/// Where the image is, of a bundle that names one.
pub const STORE: Flag = Flag::path("store", "directory of images and clones, for a bundle that names an image");
const PRESERVE_FDS: Flag =
    Flag::number("preserve-fds", "pass on so many descriptors from 3 on, beside those of $LISTEN_FDS");

/// `offshoot create`
pub static CREATE: Command = Command::new("create", "make a container, up to where its program starts", create)
    .takes("<container-id>", Count::Exactly(1))
    .enters()
    .flags(&[BUNDLE, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS, STORE])
    .details(
        "Makes a container from a bundle, a directory with config.json and a root\n\
         filesystem. Its process waits until the container is started.",
    );

/// `offshoot run`
pub static RUN: Command = Command::new("run", "create and start a container", run)
    .takes("<container-id>", Count::Exactly(1))
    .enters()
    .flags(&[
        BUNDLE,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        Flag::switch("detach", "return when the program runs").short("d"),
        Flag::switch("keep", "keep the container when its process has ended"),
        PID_FILE,
        Flag::switch("no-subreaper", "do not become the parent of the container's orphans"),
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
        STORE,
    ])
    .details(
        "Makes a container from a bundle, a directory with config.json and a root\n\
         filesystem, and starts it. Passes signals on, exits with the status of the\n\
         process, and deletes the container then.",
    );

fn create(call: &Call) -> Result<u8, Failure> {
    let created = launch(call).and_then(|launch| Ok(call.runtime()?.create(&Launch { detached: true, ..launch })?));
    created.map(|_| 0).map_err(|failure| failure.during("runc create"))
}

fn run(call: &Call) -> Result<u8, Failure> {
    let own = |launch| Launch {
        detached: call.on("detach"),
        keep: call.on("keep"),
        subreaper: !call.on("no-subreaper"),
        ..launch
    };
    let ran = launch(call).and_then(|launch| Ok(call.runtime()?.run(&own(launch))?));
    ran.map_err(|failure| failure.during("runc run"))
}

fn launch(call: &Call) -> Result<Launch, Failure> {
    Ok(Launch {
        id: call.id()?.to_owned(),
        bundle: call.path("bundle").unwrap_or(Path::new("")).to_owned(),
        connections: connections(call)?,
        store: call.path("store").map(PathBuf::from),
        no_pivot: call.on("no-pivot"),
        no_new_keyring: call.on("no-new-keyring"),
        ..Launch::default()
    })
}

/// What the caller gets of a process, by options that `exec` has, too.
pub fn connections(call: &Call) -> Result<Connections, Failure> {
    let path = |name| call.path(name).map(PathBuf::from);
    let preserve = u32::try_from(call.number("preserve-fds").unwrap_or(0));
    Ok(Connections {
        console_socket: path("console-socket"),
        pidfd_socket: path("pidfd-socket"),
        pid_file: path("pid-file"),
        preserve_fds: preserve.map_err(|_| Failure::new("invalid value for preserve-fds: value out of range"))?,
    })
}
