//! Reading JSON as Go's decoder does where callers depend on it.

use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// Text that is not the JSON that was asked for; displays the parser's own words with line and column.
#[derive(Debug)]
pub struct Error(serde_json::Error);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Parses `text`. Callers written in Go send `null` for empty lists, maps and structures, and Go keeps the
/// last of two equal keys, and takes `CPU` beside `cpu` for more of the same; serde refuses all three. Such text is
/// rare, so only a failed parse pays for a second one over a tree without them.
///
/// # Errors
/// The text is not JSON, or a value is not of the type that the specification gives it.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).or_else(|first| {
        let mut tree: Value = serde_json::from_slice(text).map_err(Error)?;
        drop_nulls(&mut tree);
        join_cases(&mut tree);
        // The first error has the line and column; a tree has lost them.
        serde_json::from_value(tree).map_err(|_| Error(first))
    })
}

fn drop_nulls(tree: &mut Value) {
    match tree {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => {
            list.retain(|value| !value.is_null());
            list.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// Makes one object of those whose keys differ in case only.
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
        map.values_mut().for_each(join_cases);
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
    }

    #[test]
    fn null_is_absence_as_in_go() {
        let spec: Spec =
            from_slice(br#"{"mounts":null,"process":{"args":null,"user":null,"cwd":"/"},"linux":null}"#).unwrap();
        assert!(spec.mounts.is_empty() && spec.linux.is_none());
        assert_eq!(spec.process.unwrap().cwd, "/");
    }

    #[test]
    fn the_last_of_two_equal_keys_stays() {
        let spec: Spec = from_slice(br#"{"hostname":"a","hostname":"b"}"#).unwrap();
        assert_eq!(spec.hostname, "b");
    }

    #[test]
    fn a_wrong_type_names_its_line() {
        let error = from_slice::<Spec>(b"{\n\"hostname\": 7}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
