//! `create` and `run`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use offshoot_runtime::image::FromImage;
use offshoot_runtime::{Connections, Launch};
use offshoot_snapshot::{Request, parse_size};
use std::io::IsTerminal as _;
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
const IMAGE: Flag = Flag::text("image", "an image to clone, in place of a bundle; a command may follow the id");
const DRIVER: Flag = Flag::text("driver", "storage driver of the clone (default: auto)");
const SIZE: Flag = Flag::text("size", "the most that the clone may grow to, such as 2G");
const KEEP_CLONE: Flag = Flag::switch("keep-clone", "keep the clone for the next container of this id");
const PRESERVE_FDS: Flag =
    Flag::number("preserve-fds", "pass on so many descriptors from 3 on, beside those of $LISTEN_FDS");

/// `offshoot create`
pub static CREATE: Command = Command::new("create", "make a container, up to where its program starts", create)
    .takes("<container-id> [command...]", Count::AtLeast(1))
    .options_around_first()
    .enters()
    .flags(&[
        BUNDLE,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        PID_FILE,
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
        IMAGE,
        DRIVER,
        SIZE,
        KEEP_CLONE,
        STORE,
    ])
    .details(
        "Makes a container from a bundle, a directory with config.json and a root\n\
         filesystem, or from an image. Its process waits until the container is started.",
    );

/// `offshoot run`
pub static RUN: Command = Command::new("run", "create and start a container", run)
    .takes("<container-id> [command...]", Count::AtLeast(1))
    .options_around_first()
    .enters()
    .flags(&[
        BUNDLE,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        Flag::switch("detach", "return when the program runs").short("d"),
        Flag::switch("keep", "keep the container when its process has ended"),
        Flag::duration("ready", "with --detach: return when the program says that it is ready, or fail after so long"),
        PID_FILE,
        Flag::switch("no-subreaper", "do not become the parent of the container's orphans"),
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
        IMAGE,
        DRIVER,
        SIZE,
        KEEP_CLONE,
        STORE,
    ])
    .details(
        "Makes a container from a bundle, a directory with config.json and a root\n\
         filesystem, or from an image, and starts it. Passes signals on, exits with the\n\
         status of the process, and deletes the container then.\n\
         \n\
         \x20   offshoot run --image debian shell bash -l",
    );

fn create(call: &Call) -> Result<u8, Failure> {
    let created = launch(call, true).and_then(|launch| Ok(call.runtime()?.create(&launch)?));
    created.map(|_| 0).map_err(|failure| failure.during("runc create"))
}

fn run(call: &Call) -> Result<u8, Failure> {
    if call.text("image").is_some() && !call.on("detach") {
        // A user's container of a user's store: until it ends, this process is root of the user's ids. One that is left
        // alone would be out of reach of later commands.
        offshoot_snapshot::become_root_of_own_ids()?;
    }
    if call.duration("ready").is_some() && !call.on("detach") {
        return Err(Failure::new("--ready is for a container that runs in the background").hint("add --detach"));
    }
    let (keep, subreaper, ready) = (call.on("keep"), !call.on("no-subreaper"), call.duration("ready"));
    let own = |launch| Launch { keep, subreaper, ready, ..launch };
    let ran = launch(call, call.on("detach")).and_then(|launch| Ok(call.runtime()?.run(&own(launch))?));
    ran.map_err(|failure| failure.during("runc run"))
}

fn launch(call: &Call, detached: bool) -> Result<Launch, Failure> {
    let connections = connections(call)?;
    // On a terminal of its own where one looks on; what goes into a file or pipe is left as it is.
    let looked_on = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = if detached { connections.console_socket.is_some() } else { looked_on };
    Ok(Launch {
        id: call.id()?.to_owned(),
        bundle: call.path("bundle").unwrap_or(Path::new("")).to_owned(),
        image: image(call, terminal)?,
        connections,
        store: call.path("store").map(PathBuf::from),
        no_pivot: call.on("no-pivot"),
        no_new_keyring: call.on("no-new-keyring"),
        detached,
        ..Launch::default()
    })
}

/// The image that is to be cloned, and what runs in it.
fn image(call: &Call, terminal: bool) -> Result<Option<FromImage>, Failure> {
    let command = call.arguments()[1..].to_vec();
    let Some(image) = call.text("image") else {
        let options = ["driver", "size"].into_iter().find(|name| call.text(name).is_some());
        return match options.or(call.on("keep-clone").then_some("keep-clone")) {
            Some(name) => {
                let hint = "a bundle says it in the annotation org.offshoot.rootfs";
                Err(Failure::new(format!("--{name} is for a container of an image, by --image")).hint(hint))
            }
            None if command.is_empty() => Ok(None),
            // In runc's words, whose command takes nothing else.
            None => Err(Failure::new(format!("{:?} requires exactly 1 argument(s)", call.command.name))
                .hint("a command may follow the id with --image only; that of a bundle is in its config.json")),
        };
    };
    let clone = Request {
        image: image.to_owned(),
        driver: call.text("driver").unwrap_or("auto").parse()?,
        keep: call.on("keep-clone"),
        size: call.text("size").map(parse_size).transpose()?,
    };
    Ok(Some(FromImage { clone, command, terminal }))
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
