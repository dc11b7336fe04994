//! The file that tells a caller the process's number.

use crate::{Error, Result};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Writes `pid` in decimal, without a newline, to the file `path`: under the same name with a dot in front first, so
/// that whoever waits for the file never reads half of it. A relative path is below the caller's working directory.
///
/// # Errors
/// The file cannot be made, or another writer is at it.
pub fn write(path: &Path, pid: i32) -> Result<()> {
    let failed = |error: &std::io::Error| Error::io(format_args!("write the pid file {}", path.display()), error);
    let hidden = hidden(path).ok_or_else(|| failed(&std::io::Error::from_raw_os_error(offshoot_sys::libc::EISDIR)))?;
    let file = OpenOptions::new().write(true).create_new(true).open(&hidden);
    let written = file.and_then(|mut file| file.write_all(pid.to_string().as_bytes()));
    written.and_then(|()| fs::rename(&hidden, path)).map_err(|error| failed(&error))
}

fn hidden(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let mut dotted = std::ffi::OsString::from(".");
    dotted.push(std::ffi::OsStr::from_bytes(name.as_bytes()));
    Some(path.with_file_name(dotted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn the_file_appears_whole() {
        let scratch = Scratch::new("pidfile");
        let path = scratch.path().join("pid");
        write(&path, 42).unwrap();
        write(&path, 43).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "43");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        assert!(write(Path::new("/"), 1).is_err());
        let error = write(&scratch.path().join("no/pid"), 1).unwrap_err().to_string();
        assert!(error.ends_with("no such file or directory"), "{error}");
    }
}
