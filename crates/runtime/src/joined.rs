//! What is known of namespaces that a container is to join only by looking at them.

use crate::{Error, Result};
use offshoot_spec::Spec;
use offshoot_sys::{event, fork, libc, path, pidfd, process};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long reading a map may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespace of a kind that is to be joined, by its path.
fn path_of<'a>(spec: &'a Spec, kind: &str) -> Option<&'a str> {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.filter(|ns| ns.kind == kind && !ns.path.is_empty()).map(|ns| ns.path.as_str()).next()
}

/// Whether the network namespace to be joined is this process's own: its sysctls are the host's.
pub(crate) fn is_own_network(spec: &Spec) -> bool {
    let id = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    path_of(spec, "network").is_some_and(|path| id(path).is_some_and(|found| Some(found) == id("/proc/self/ns/net")))
}

/// The map of users of the user namespace to be joined, where the configuration does not send it along: for each range the
/// first id inside, the first outside, and how many. Empty where there is none to join, and where it cannot be entered,
/// which is told by the process that has to.
///
/// # Errors
/// The namespace cannot be opened, or the map not read.
pub(crate) fn uids(spec: &Spec) -> Result<Vec<(u32, u32, u32)>> {
    let sent = spec.linux.as_ref().is_some_and(|linux| !linux.uid_mappings.is_empty());
    let Some(place) = path_of(spec, "user").filter(|_| !sent) else { return Ok(Vec::new()) };
    let read = || {
        let namespace = path::open(place, libc::O_RDONLY, 0)?;
        uid_map(&namespace)
    };
    let text = read().map_err(|error: offshoot_sys::Error| {
        Error::io(format_args!("read the map of the user namespace {place}"), &error.into())
    })?;
    Ok(parse(&text))
}

/// A map is read of a process: one enters the namespace for that.
fn uid_map(namespace: &OwnedFd) -> offshoot_sys::Result<String> {
    let (told, tell) = event::pipe()?;
    let child = fork::fork(0, None, || {
        let entered = process::setns(namespace, libc::CLONE_NEWUSER).and_then(|()| path::write_all(&tell, b"x"));
        // Until it is killed; should its parent be, not for ever.
        let _ = entered.and_then(|()| event::poll(&mut [], Some(PATIENCE)));
        1
    })?;
    drop(tell);
    let map = match path::read(&told, &mut [0])? {
        // It has said nothing, so the map would be this process's own.
        0 => Ok(Vec::new()),
        _ => path::open(format!("/proc/{}/uid_map", child.pid), libc::O_RDONLY, 0)
            .and_then(|file| path::read_to_end(&file, 1 << 16)),
    };
    let _ = pidfd::send_signal(&child.pidfd, libc::SIGKILL);
    fork::wait(&child.pidfd)?;
    Ok(String::from_utf8_lossy(&map?).into_owned())
}

/// man 7 user_namespaces, "User and group ID mappings"
fn parse(text: &str) -> Vec<(u32, u32, u32)> {
    let range = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        <[u32; 3]>::try_from(numbers).ok().map(Into::into)
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use offshoot_spec::{IdMapping, Linux, Namespace};

    #[test]
    fn a_map_is_ranges() {
        assert_eq!(
            parse("         0     100000      65536\n     65536 4294967294 1\n"),
            [(0, 100_000, 65_536), (65_536, 4_294_967_294, 1)]
        );
        assert_eq!(parse("x\n0 1\n"), []);
    }

    #[test]
    fn a_map_that_is_sent_along_is_not_looked_for() {
        let linux = Linux {
            namespaces: vec![Namespace { kind: "user".into(), path: "/nowhere".into() }],
            uid_mappings: vec![IdMapping { container_id: 0, host_id: 5, size: 1 }],
            ..Linux::default()
        };
        let mut spec = Spec { linux: Some(linux), ..Spec::default() };
        assert_eq!(uids(&spec).unwrap(), []);
        spec.linux.as_mut().unwrap().uid_mappings.clear();
        assert!(uids(&spec).unwrap_err().to_string().contains("/nowhere"));
        assert_eq!(uids(&Spec::default()).unwrap(), []);
    }
}
