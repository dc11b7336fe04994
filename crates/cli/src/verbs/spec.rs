//! `spec`

use crate::call::Call;
use crate::command::{Command, Flag};
use crate::failure::Failure;
use offshoot_runtime::cause;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// `offshoot spec`
pub static COMMAND: Command = Command::new("spec", "write a config.json to start from", run)
    .flags(&[
        Flag::path("bundle", "the bundle's directory (default: the working directory)").short("b"),
        Flag::switch("rootless", "for a caller who is not root"),
    ])
    .details(
        "Writes config.json for a shell in a root filesystem called rootfs. Edit it to run\n\
         something else:\n\
         \n\
         \x20   mkdir -p bundle/rootfs && tar -xf image.tar -C bundle/rootfs\n\
         \x20   cd bundle && offshoot spec\n\
         \x20   sed -i 's;\"sh\";\"/hello\";' config.json\n\
         \x20   offshoot run my-container",
    );

fn run(call: &Call) -> Result<u8, Failure> {
    let path = call.path("bundle").unwrap_or(Path::new("")).join("config.json");
    let text = offshoot_runtime::default_config(call.on("rootless"));
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new("File config.json exists. Remove it first"),
        _ => Failure::new(format!("failed to write {}: {}", path.display(), cause(&error))),
    })?;
    Ok(0)
}
