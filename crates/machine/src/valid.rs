//! What can be known to be wrong with a machine before any of it is made.

use crate::definition::{Limits, Machine};
use crate::error::{Error, Result};
use crate::network::{Links, Wanted};
use crate::volume;
use offshoot_plan::number_list;
use offshoot_snapshot::{Image, Store};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes without which nothing runs.
const LEAST: u64 = 1 << 20;
/// The kernel's own limit, PID_MAX_LIMIT.
const MOST_PIDS: u64 = 4 << 20;
/// More processors than any kernel knows, for reading.
const MOST_CPUS: u32 = 65_535;

/// Checks limits against this host.
pub(crate) fn limits(limits: &Limits) -> Result<()> {
    if let Some(bytes) = limits.memory.filter(|bytes| *bytes < LEAST) {
        return Err(Error::request(format!("memory {bytes}: no system runs in less than 1M")));
    }
    if let Some(number) = limits.pids.filter(|number| !(1..=MOST_PIDS).contains(number)) {
        return Err(Error::request(format!("pids {number}: it is 1 to {MOST_PIDS}, or max")));
    }
    match &limits.cpuset {
        Some(text) => cpuset(text, &fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default()),
        None => Ok(()),
    }
}

fn cpuset(text: &str, online: &str) -> Result<()> {
    let bad = |why: &str| Error::request(format!("cpuset {text:?}: {why}"));
    let wanted = number_list(text, MOST_CPUS).map_err(|error| bad(&error))?;
    if wanted.is_empty() {
        return Err(bad("it names no processor"));
    }
    // A host that does not say what it has says so when the machine starts.
    let there = number_list(online.trim(), MOST_CPUS).unwrap_or_default();
    match wanted.iter().find(|number| !there.is_empty() && there.binary_search(number).is_err()) {
        Some(number) => Err(bad(&format!("the host has no processor {number}, it has {}", online.trim()))),
        None => Ok(()),
    }
}

/// Checks what a definition says against this host.
pub(crate) fn definition(machine: &Machine) -> Result<()> {
    limits(&machine.limits)?;
    volume::check(&machine.volumes)?;
    let wrong = |entry: &&String| entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) || entry.contains('\0');
    match machine.env.iter().find(wrong) {
        Some(entry) => Err(Error::request(format!("env {entry:?}: it is KEY=value"))),
        None => Ok(()),
    }
}

/// Checks what a machine of `image` is to be.
pub(crate) fn machine(machine: &Machine, store: &Store, image: &Image) -> Result<()> {
    definition(machine)?;
    if !places(&machine.init).iter().any(|place| matches!(store.resolve_file(image, place), Ok(Some(_)))) {
        let message = format!("init {:?}: image {:?} has no such program", machine.init, machine.image);
        return Err(Error::request(message).hint("--init names the program that is to be pid 1"));
    }
    Ok(())
}

/// Where pid 1 may be in an image; what follows its name are its arguments.
fn places(init: &str) -> Vec<PathBuf> {
    match init.split_whitespace().next() {
        None => Vec::new(),
        Some(path) if path.contains('/') => vec![Path::new("/").join(path)],
        Some(name) => crate::config::SEARCH.split(':').map(|dir| Path::new(dir).join(name)).collect(),
    }
}

/// Checks that interfaces are there, which is found out only when a machine starts otherwise.
pub(crate) fn networks(wanted: &[Wanted]) -> Result<()> {
    for (kind, name) in wanted.iter().filter_map(Wanted::interface) {
        if name == "lo" || Links::open()?.find(name)?.is_none() {
            return Err(Error::request(format!("network \"{kind}:{name}\": the host has no such interface to give")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_no_machine_could_have() {
        let memory = |bytes| Limits { memory: Some(bytes), ..Limits::default() };
        let pids = |number| Limits { pids: Some(number), ..Limits::default() };
        for good in [Limits::default(), memory(LEAST), pids(1), pids(MOST_PIDS)] {
            limits(&good).unwrap();
        }
        for bad in [memory(0), memory(LEAST - 1), pids(0), pids(MOST_PIDS + 1)] {
            assert!(limits(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_init_is_looked_for_without_its_arguments() {
        assert_eq!(places("/usr/bin/s6-svscan  /etc/s6"), [PathBuf::from("/usr/bin/s6-svscan")]);
        assert_eq!(places("sbin/init"), [PathBuf::from("/sbin/init")]);
        assert!(places("runit-init 2").contains(&PathBuf::from("/sbin/runit-init")));
        assert!(places(" ").is_empty());
    }

    #[test]
    fn processors_that_are_not_there() {
        for good in ["0", "0-3", "1,3", " 2 , 0-1"] {
            cpuset(good, "0-3\n").unwrap();
        }
        for bad in ["", ",", "4", "0-4", "x", "3-1", "-1", "0-", "1;2", "99999", "0,0x1"] {
            assert!(cpuset(bad, "0-3\n").is_err(), "{bad:?}");
        }
        assert!(cpuset("7", "").is_ok());
    }
}
