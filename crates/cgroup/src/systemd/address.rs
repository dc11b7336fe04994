//! Where a bus listens. spec: D-Bus Specification, "Server Addresses".

use super::Failure;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A socket of the `unix` transport; systemd's buses have no other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    /// A list of addresses, in the order in which to try them; transports other than sockets are left out.
    /// `runtime_dir` is `$XDG_RUNTIME_DIR`.
    pub(super) fn parse_list(text: &[u8], runtime_dir: Option<&OsString>) -> Result<Vec<Address>, Failure> {
        let mut list = Vec::new();
        for one in text.split(|b| *b == b';').filter(|one| !one.is_empty()) {
            let Some(keys) = one.strip_prefix(b"unix:") else { continue };
            for pair in keys.split(|b| *b == b',') {
                let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
                let value = || unescape(pair.get(at + 1..).unwrap_or_default());
                match (&pair[..at], runtime_dir) {
                    (b"path", _) => list.push(Address::Path(OsString::from_vec(value()?).into())),
                    (b"abstract", _) => list.push(Address::Abstract(value()?)),
                    (b"runtime", Some(dir)) => list.push(Address::Path(PathBuf::from(dir).join("bus"))),
                    _ => {}
                }
            }
        }
        if list.is_empty() {
            let text = String::from_utf8_lossy(text).into_owned();
            return Err(Failure::Protocol(format!("{text:?} names no socket")));
        }
        Ok(list)
    }

    pub(super) fn display(&self) -> String {
        match self {
            Address::Path(path) => path.display().to_string(),
            Address::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        }
    }

    pub(super) fn to_socket(&self) -> nix::Result<nix::sys::socket::UnixAddr> {
        match self {
            Address::Path(path) => nix::sys::socket::UnixAddr::new(path.as_os_str().as_bytes()),
            Address::Abstract(name) => nix::sys::socket::UnixAddr::new_abstract(name),
        }
    }
}

/// `%20` is a space.
fn unescape(value: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok()).filter(|d| !d.starts_with('+'));
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(escaped) => bytes.push(escaped),
            None => return Err(Failure::Protocol("an address with a broken % escape".into())),
        }
        rest = &after[2..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Address>, Failure> {
        Address::parse_list(text.as_bytes(), Some(&"/run/user/7".into()))
    }

    #[test]
    fn forms() {
        let path = |p: &str| Address::Path(p.into());
        assert_eq!(parse("unix:path=/run/user/0/bus").unwrap(), [path("/run/user/0/bus")]);
        assert_eq!(parse("unix:path=/a%20b,guid=12").unwrap(), [path("/a b")]);
        assert_eq!(parse("unix:abstract=/tmp/x,guid=1").unwrap(), [Address::Abstract(b"/tmp/x".to_vec())]);
        assert_eq!(parse("unix:runtime=yes").unwrap(), [path("/run/user/7/bus")]);
        assert_eq!(parse("tcp:host=h,port=1;unix:path=/a;unix:path=/b").unwrap(), [path("/a"), path("/b")]);
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            ";",
            "unix:",
            "unix",
            "tcp:host=h",
            "unix:tmpdir=/x",
            "unix:path=/a%2",
            "unix:path=/a%zz",
            "unix:path=%+1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
