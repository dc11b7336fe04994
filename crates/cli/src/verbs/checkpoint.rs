//! `checkpoint`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use offshoot_runtime::checkpoint::{Checkpoint, status_fd};
use offshoot_runtime::criu::{CgroupsMode, Flags, parse_page_server};
use std::path::Path;

/// `offshoot checkpoint`
pub static COMMAND: Command = Command::new("checkpoint", "write the container's processes to files", run)
    .takes("<container-id>", Count::Exactly(1))
    .flags(&[
        Flag::path("image-path", "directory for the images (default: checkpoint)"),
        Flag::path("work-path", "directory for CRIU's log and other files (default: that of the images)"),
        Flag::path("parent-path", "directory of an earlier dump, relative to the images, that this one goes on from"),
        Flag::switch("leave-running", "let the container go on"),
        Flag::switch("tcp-established", "dump open TCP connections"),
        Flag::switch("tcp-skip-in-flight", "leave out TCP connections that are not accepted yet"),
        Flag::switch("link-remap", "give unlinked files that are open a name again"),
        Flag::switch("ext-unix-sk", "dump unix sockets that are connected to the outside"),
        Flag::switch("shell-job", "dump a session that began outside of the container"),
        Flag::switch("lazy-pages", "keep memory here and serve it to the restored container when it is needed"),
        Flag::number("status-fd", "descriptor that gets a NUL byte when memory can be asked for").default("-1"),
        Flag::text("page-server", "ADDRESS:PORT to send memory to, or with lazy-pages to serve it at"),
        Flag::switch("file-locks", "dump file locks"),
        Flag::switch("pre-dump", "dump memory only, and let the container go on"),
        Flag::text("manage-cgroups-mode", "what to do with cgroups: soft, full, strict or ignore"),
        Flag::text("empty-ns", "namespace whose content is not dumped: network").many(),
        Flag::switch("auto-dedup", "drop memory from earlier dumps that this one replaces"),
    ])
    .details(
        "CRIU (4.1 or later) does it. The container is removed then, unless it is left\n\
         running; restore makes it anew from the files.",
    );

fn run(call: &Call) -> Result<u8, Failure> {
    let page_server = call.text("page-server").filter(|text| !text.is_empty());
    let status = call.number("status-fd").filter(|number| *number >= 0);
    let flags = Flags {
        leave_running: call.on("leave-running"),
        tcp_skip_in_flight: call.on("tcp-skip-in-flight"),
        link_remap: call.on("link-remap"),
        ..flags(call)?
    };
    let wanted = Checkpoint {
        images: call.path("image-path").unwrap_or(Path::new("")).to_owned(),
        work: given(call, "work-path"),
        parent: given(call, "parent-path"),
        flags,
        pre_dump: call.on("pre-dump"),
        page_server: page_server.map(parse_page_server).transpose().map_err(Failure::new)?,
        status: status.map(status_fd).transpose()?,
    };
    call.runtime()?.checkpoint(call.id()?, wanted)?;
    Ok(0)
}

/// A path, if it is not empty, which callers send for none.
pub fn given(call: &Call, name: &str) -> Option<std::path::PathBuf> {
    call.path(name).filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned)
}

/// What both `checkpoint` and `restore` leave to the caller.
///
/// # Errors
/// In runc's words.
pub fn flags(call: &Call) -> Result<Flags, Failure> {
    if let Some(other) = call.texts("empty-ns").find(|name| *name != "network") {
        return Err(Failure::new(format!("namespace {other:?} is not supported")));
    }
    let mode = call.text("manage-cgroups-mode").unwrap_or_default();
    Ok(Flags {
        shell_job: call.on("shell-job"),
        tcp_established: call.on("tcp-established"),
        ext_unix_sk: call.on("ext-unix-sk"),
        file_locks: call.on("file-locks"),
        auto_dedup: call.on("auto-dedup"),
        lazy_pages: call.on("lazy-pages"),
        cgroups: CgroupsMode::parse(mode).map_err(Failure::new)?,
        ..Flags::default()
    })
}
