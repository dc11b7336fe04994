//! `restore`

use super::checkpoint::{flags, given};
use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::verbs::create::STORE;
use offshoot_runtime::restore::Source;
use offshoot_runtime::{Connections, Launch};

/// `offshoot restore`
pub static COMMAND: Command = Command::new("restore", "make a container from the files of a checkpoint", run)
    .takes("<container-id>", Count::Exactly(1))
    .enters()
    .flags(&[
        Flag::path("console-socket", "socket that gets the terminal, of a container that is left alone"),
        Flag::path("image-path", "directory of the images (default: checkpoint)"),
        Flag::path("work-path", "directory for CRIU's log and other files (default: that of the images)"),
        Flag::switch("tcp-established", "restore open TCP connections"),
        Flag::switch("ext-unix-sk", "restore unix sockets that are connected to the outside"),
        Flag::switch("shell-job", "restore a session that began outside of the container"),
        Flag::switch("file-locks", "restore file locks"),
        Flag::text("manage-cgroups-mode", "what to do with cgroups: soft, full, strict or ignore"),
        Flag::path("bundle", "directory of the bundle (default: the working directory)").short("b"),
        Flag::switch("detach", "return when the container runs").short("d"),
        Flag::path("pid-file", "file for the number of the container's first process"),
        Flag::switch("no-subreaper", "do not become the parent of the container's orphans"),
        Flag::switch("no-pivot", "change the root by moving a mount, on a ramdisk"),
        Flag::text("empty-ns", "namespace whose content is not restored: network").many(),
        Flag::switch("auto-dedup", "drop memory from images as it is restored"),
        Flag::switch("lazy-pages", "restore memory when it is needed, from a page server"),
        Flag::text("lsm-profile", "other LSM profile for the processes, TYPE:NAME"),
        Flag::text("lsm-mount-context", "other SELinux context for mounts"),
        STORE,
    ])
    .details("The bundle has to be the one that the container was made from, or a copy of it.");

fn run(call: &Call) -> Result<u8, Failure> {
    let launch = Launch {
        id: call.id()?.to_owned(),
        bundle: given(call, "bundle").unwrap_or_default(),
        connections: Connections {
            console_socket: given(call, "console-socket"),
            pid_file: given(call, "pid-file"),
            ..Connections::default()
        },
        store: given(call, "store"),
        no_pivot: call.on("no-pivot"),
        detached: call.on("detach"),
        subreaper: !call.on("no-subreaper"),
        ..Launch::default()
    };
    let source = Source {
        images: given(call, "image-path").unwrap_or_default(),
        work: given(call, "work-path"),
        flags: flags(call)?,
        lsm_profile: call.text("lsm-profile").map(str::to_owned),
        lsm_mount_context: call.text("lsm-mount-context").map(str::to_owned),
    };
    Ok(call.runtime()?.restore(&launch, &source)?)
}
