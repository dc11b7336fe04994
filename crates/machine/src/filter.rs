//! Which system calls a machine is refused: ours, somebody's, or none.

use crate::error::{Error, Result};
use offshoot_seccomp::Arch;
use offshoot_snapshot::{Image, Store};
use offshoot_spec::Seccomp;
use offshoot_system::{Strictness, profile};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// What 32-bit x86 programs are loaded by: those of glibc and of musl.
const LOADERS: [&str; 2] = ["lib/ld-linux.so.2", "lib/ld-musl-i386.so.1"];

/// A machine's filter of system calls, as `machine.json` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// What no system needs is refused; docs/system.md has the list.
    Default,
    /// The same, but all kinds of sockets, for 32-bit x86 programs.
    Compat,
    /// Nothing is refused, as in machines of versions that had no filter.
    #[default]
    Unconfined,
    /// spec: config-linux.md#seccomp
    Profile(Box<Seccomp>),
}

impl Filter {
    /// What an option says: a word, or a file with a profile.
    ///
    /// # Errors
    /// The file cannot be read, or holds no profile that can be loaded.
    pub fn parse(text: &str) -> Result<Filter> {
        match text {
            "default" => Ok(Filter::Default),
            "compat" => Ok(Filter::Compat),
            "unconfined" => Ok(Filter::Unconfined),
            file => Filter::read(Path::new(file)).map_err(|error| {
                let error = error.during(format_args!("read seccomp profile {file:?}"));
                let is_word = !file.contains('/') && !Path::new(file).exists();
                if is_word { error.hint("it is default, compat, unconfined or a file") } else { error }
            }),
        }
    }

    fn read(file: &Path) -> Result<Filter> {
        let text = std::fs::read(file).map_err(|error| Error::request(offshoot_runtime::cause(&error)))?;
        Filter::of(&text)
    }

    fn of(text: &[u8]) -> Result<Filter> {
        let value: Value = serde_json::from_slice(text).map_err(|error| Error::request(error.to_string()))?;
        let rules = value["syscalls"].as_array().into_iter().flatten();
        let foreign = ["includes", "excludes"].into_iter().find(|key| rules.clone().any(|rule| has(rule, key)));
        if let Some(key) = foreign.or(has(&value, "archMap").then_some("archMap")) {
            // Taken for a rule without conditions it would say something else.
            return Err(Error::request(format!("it has {key:?}, which only engines understand"))
                .hint("what an engine makes of it is linux.seccomp of a container's config.json"));
        }
        let profile: Seccomp = offshoot_spec::from_slice(text).map_err(|error| Error::request(error.to_string()))?;
        if profile.default_action.is_empty() {
            return Err(Error::request("it has no defaultAction"));
        }
        offshoot_runtime::check_seccomp(&profile).map_err(Error::request)?;
        Ok(Filter::Profile(Box::new(profile)))
    }

    /// What a machine of `image` has that was not told otherwise.
    pub(crate) fn fitting(store: &Store, image: &Image) -> Filter {
        let is_there = |loader: &&str| matches!(store.resolve_file(image, Path::new(loader)), Ok(Some(_)));
        // A native interface with socketcall(2): its own programs use it.
        let everywhere = Arch::NATIVE.multiplexes();
        match everywhere || (Arch::NATIVE == Arch::X86_64 && LOADERS.iter().any(is_there)) {
            true => Filter::Compat,
            false => Filter::Default,
        }
    }

    /// spec: config-linux.md#seccomp
    pub(crate) fn profile(&self) -> Option<Seccomp> {
        match self {
            Filter::Default => Some(profile(Arch::NATIVE, Strictness::Full)),
            Filter::Compat => Some(profile(Arch::NATIVE, Strictness::OpenSockets)),
            Filter::Unconfined => None,
            Filter::Profile(profile) => Some(Seccomp::clone(profile)),
        }
    }
}

fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|found| match found {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Null => false,
        _ => true,
    })
}

/// A profile without what it does not say: people read the file.
pub(crate) fn written(profile: &Seccomp) -> Result<Value> {
    let mut value = serde_json::to_value(profile).map_err(|error| Error::failed("write config.json", error))?;
    prune(&mut value);
    Ok(value)
}

fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(prune);
        // An empty list of flags is not the same as none.
        map.retain(|key, value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty() || key == "flags",
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
    } else if let Value::Array(list) = value {
        list.iter_mut().for_each(prune);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_filter_is_a_word_or_a_profile() {
        for (text, filter) in
            [("default", Filter::Default), ("compat", Filter::Compat), ("unconfined", Filter::Unconfined)]
        {
            assert_eq!(Filter::parse(text).unwrap(), filter);
            assert_eq!(serde_json::to_value(&filter).unwrap(), json!(text));
            assert_eq!(serde_json::from_value::<Filter>(json!(text)).unwrap(), filter);
        }
        let text = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let filter = Filter::of(text).unwrap();
        let value = serde_json::to_value(&filter).unwrap();
        assert_eq!(value["profile"]["syscalls"][0]["names"], json!(["mount"]));
        assert_eq!(serde_json::from_value::<Filter>(value).unwrap(), filter);
        let written = written(&filter.profile().unwrap()).unwrap();
        assert_eq!(written, serde_json::from_slice::<Value>(text).unwrap());
        assert!(Filter::default().profile().is_none());
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let engine = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#;
        let conditional = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}]}"#;
        for (text, why) in [
            ("", "EOF"),
            ("[]", "invalid type"),
            ("{}", "no defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
            (engine, "archMap"),
            (conditional, "includes"),
        ] {
            let error = Filter::of(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
        let error = Filter::parse("defautl").unwrap_err();
        assert!(error.advice().is_some_and(|hint| hint.contains("unconfined")), "{error}");
        assert!(Filter::parse("/no/such/file").unwrap_err().to_string().contains("no such file"));
    }
}
