//! A bundle: a directory with `config.json` and a root filesystem. spec: bundle.md

use crate::{Error, Kind, Result};
use offshoot_plan::clean;
use offshoot_spec::Spec;
use std::fs;
use std::path::{Path, PathBuf};

/// A bundle whose configuration has been read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Absolute path.
    pub path: PathBuf,
    /// What `config.json` says.
    pub spec: Spec,
    /// `config.json` as it was read, to be kept beside the state.
    pub text: Vec<u8>,
}

impl Bundle {
    /// Reads the bundle at `path`; an empty path is the working directory. The file is read once.
    ///
    /// # Errors
    /// The directory or the file is not there, or is not what it should be.
    pub fn open(path: &Path) -> Result<Bundle> {
        let failed = |error: &std::io::Error| Error::io(format_args!("open the bundle {}", path.display()), error);
        let cwd = || std::env::current_dir();
        // Resolved by its letters, as Go does: the path shows in states, where callers compare it with their own.
        let path = if path.is_absolute() { clean(path) } else { clean(cwd().map_err(|e| failed(&e))?.join(path)) };
        if !fs::metadata(&path).map_err(|error| failed(&error))?.is_dir() {
            return Err(failed(&std::io::Error::from_raw_os_error(offshoot_sys::libc::ENOTDIR)));
        }
        let file = path.join("config.json");
        let text = fs::read(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::Request, "JSON specification file config.json not found"),
            _ => Error::io(format_args!("read {}", file.display()), &error),
        })?;
        let spec = parse(&text).map_err(|cause| cause_of(&file, &cause))?;
        Ok(Bundle { path, spec, text })
    }
}

/// The error of a file whose text is not what it should be.
pub(crate) fn cause_of(file: &Path, cause: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Request, format!("failed to read {}: {cause}", file.display()))
}

/// The configuration in `text`.
///
/// # Errors
/// It is none; says where.
pub fn parse(text: &[u8]) -> std::result::Result<Spec, String> {
    if text.trim_ascii() == b"null" {
        return Err("config cannot be null".into());
    }
    offshoot_spec::from_slice(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_bundle_is_read_once_and_named_absolutely() {
        let scratch = Scratch::new("bundle");
        let open = || Bundle::open(scratch.path());
        assert_eq!(open().unwrap_err().to_string(), "JSON specification file config.json not found");
        let file = scratch.path().join("config.json");
        for (text, says) in
            [("null", "config cannot be null"), ("{", "EOF while parsing"), ("{\"hostname\":1}", "hostname: invalid")]
        {
            fs::write(&file, text).unwrap();
            assert!(open().unwrap_err().to_string().contains(says), "{text}");
        }
        fs::write(&file, "{\"hostname\":\"h\"}").unwrap();
        let bundle = Bundle::open(&scratch.path().join("./x/..")).unwrap();
        assert_eq!((bundle.spec.hostname.as_str(), bundle.path.as_path()), ("h", scratch.path()));
        assert_eq!(Bundle::open(&scratch.path().join("none")).unwrap_err().kind(), Kind::System);
    }
}
