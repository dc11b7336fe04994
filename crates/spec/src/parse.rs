//! Reading JSON as Go's decoder does where callers depend on it.

use crate::go::Go;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment, Track};
use std::fmt;

/// Text that is not the JSON that was asked for.
#[derive(Debug)]
pub enum Error {
    /// Not JSON at all; displays the parser's own words with line and column.
    Syntax(serde_json::Error),
    /// Values of another type than the specification gives them: for each its JSON path and what is wrong.
    Types(Vec<String>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Syntax(error) => error.fmt(f),
            Error::Types(all) => f.write_str(&all.join("; ")),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Syntax(error) => Some(error),
            Error::Types(_) => None,
        }
    }
}

/// Parses `text` as Go would (see `go.rs`). Of two equal keys Go keeps the last, and it takes `CPU` beside `cpu` for more of the
/// same; serde refuses both. Such text is rare, so only a failed parse pays for a second one over a tree.
///
/// # Errors
/// The text is not JSON, or values are not of the type that the specification gives them: all of these.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = T::deserialize(Go(&mut json)).and_then(|parsed| json.end().map(|()| parsed));
    parsed.or_else(|_| {
        let mut tree: Value = serde_json::from_slice(text).map_err(Error::Syntax)?;
        join_cases(&mut tree);
        from_tree(tree)
    })
}

/// The parser stops at the first value of a wrong type; without that value it finds the next one.
fn from_tree<T: DeserializeOwned>(mut tree: Value) -> Result<T, Error> {
    let mut all = Vec::new();
    loop {
        let mut track = Track::new();
        match T::deserialize(Go(serde_path_to_error::Deserializer::new(&tree, &mut track))) {
            Ok(parsed) if all.is_empty() => return Ok(parsed),
            Ok(_) => return Err(Error::Types(all)),
            Err(error) => {
                let path = track.path();
                let root = matches!(path.iter().next(), None | Some(Segment::Unknown));
                all.push(if root { error.to_string() } else { format!("{path}: {error}") });
                // Every round takes a key away, so this ends; what is left of very many is not worth more rounds.
                if all.len() == MOST || !remove(&mut tree, &path) {
                    return Err(Error::Types(all));
                }
            }
        }
    }
}

/// How many wrong types are named.
const MOST: usize = 32;

/// Removes the value at `path`, or the list that it is in, where later values would change their numbers; whether
/// there was one.
fn remove(tree: &mut Value, path: &Path) -> bool {
    let steps: Vec<&Segment> = path.iter().collect();
    let Some(last) = steps.iter().rposition(|step| matches!(step, Segment::Map { .. })) else { return false };
    let parent = steps[..last].iter().try_fold(tree, |at, step| match step {
        Segment::Map { key } => at.get_mut(key),
        Segment::Seq { index } => at.get_mut(index),
        _ => None,
    });
    match (parent, steps[last]) {
        (Some(Value::Object(map)), Segment::Map { key }) => map.remove(key).is_some(),
        _ => false,
    }
}

/// Keys of maps, whose own keys are names of things and have a case.
const MAPS: [&str; 3] = ["netDevices", "rdma", "timeOffsets"];

/// Makes one object of those fields whose keys differ in case only.
fn join_cases(tree: &mut Value) {
    if let Value::Object(map) = tree {
        let keys: Vec<String> = map.iter().filter(|(_, value)| value.is_object()).map(|(key, _)| key.clone()).collect();
        for (at, key) in keys.iter().enumerate() {
            let same = keys[at + 1..].iter().find(|other| other.eq_ignore_ascii_case(key));
            if let Some(same) = same
                && let Some(Value::Object(more)) = map.remove(key)
                && let Some(Value::Object(one)) = map.get_mut(same)
            {
                one.extend(more);
            }
        }
        let fields = map.iter_mut().filter(|(key, _)| !MAPS.iter().any(|name| name.eq_ignore_ascii_case(key)));
        fields.for_each(|(_, value)| join_cases(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    #[test]
    fn keys_in_another_case_are_the_same_as_in_go() {
        let text = br#"{"linux":{"resources":{"cpu":{"shares":5},"CPU":{"Cpus":"0","Mems":"1"},
            "hugepageLimits":[{"pagesize":"2MB","limit":1}]}}}"#;
        let resources = from_slice::<Spec>(text).unwrap().linux.unwrap().resources.unwrap();
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.shares, cpu.cpus.as_str(), cpu.mems.as_str()), (Some(5), "0", "1"));
        assert_eq!(resources.hugepage_limits[0].page_size, "2MB");
        let text = br#"{"hostname":"a","hostname":"b","linux":{"netDevices":{"eth0":{"name":"x"},"ETH0":{}}}}"#;
        assert_eq!(from_slice::<Spec>(text).unwrap().linux.unwrap().net_devices.len(), 2);
    }

    #[test]
    fn the_last_of_two_equal_keys_stays() {
        let spec: Spec = from_slice(br#"{"hostname":"a","hostname":"b"}"#).unwrap();
        assert_eq!(spec.hostname, "b");
    }

    #[test]
    fn every_wrong_type_is_named_with_its_path() {
        let text = br#"{"hostname": 7, "process": {"args": ["a", 1, 2], "user": {"uid": "x"}},
            "mounts": [{"destination": "/a"}, {"destination": false, "options": "ro"}]}"#;
        let error = from_slice::<Spec>(text).unwrap_err().to_string();
        let mut all: Vec<_> = error.split("; ").collect();
        all.sort_unstable();
        let wanted = [
            "hostname: invalid type: integer `7`, expected a string",
            "mounts[1].destination: invalid type: boolean `false`, expected",
            "mounts[1].options: invalid type: string \"ro\", expected a sequence",
            "process.args[1]: invalid type: integer `1`, expected a string",
            "process.user.uid: invalid type: string \"x\", expected u32",
        ];
        assert_eq!(all.len(), wanted.len(), "{error}");
        for (text, start) in all.iter().zip(wanted) {
            assert!(text.starts_with(start), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_names_its_line() {
        let error = from_slice::<Spec>(b"{\n\"hostname\" 7}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(!from_slice::<Spec>(b"7").unwrap_err().to_string().is_empty());
    }
}
