//! The unit of a container: its name, its slice, the properties it starts with.

use super::{SystemdUnit, Value, variant};
use crate::Problem;
use std::collections::BTreeMap;

const ANNOTATION: &str = "org.systemd.property.";
/// systemd's `UNIT_NAME_MAX`.
const NAME_MAX: usize = 255;

impl SystemdUnit {
    /// The unit for a container, from `linux.cgroupsPath` (`slice:prefix:name`, or empty) and the annotations.
    /// `user`: the unit is the user's systemd's, not the system's. `v1`: limits are in cgroup v1 hierarchies.
    ///
    /// # Errors
    /// All that is wrong with the path and the annotations.
    pub fn new(
        id: &str,
        cgroups_path: &str,
        annotations: &BTreeMap<String, String>,
        user: bool,
        v1: bool,
    ) -> Result<SystemdUnit, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut properties = Vec::new();
        for (key, text) in annotations {
            let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
            match annotation_property(name, text) {
                Ok(property) => properties.push(property),
                Err(message) => problems.push(Problem::new("annotations", format!("annotation {key}{message}"))),
            }
        }
        let place =
            Place::parse(id, cgroups_path, user).map_err(|m| problems.push(Problem::new("linux.cgroupsPath", m)));
        let (Ok(place), true) = (place, problems.is_empty()) else { return Err(problems) };
        let mut unit = place.into_unit(v1);
        unit.properties.append(&mut properties);
        Ok(unit)
    }

    /// Whether this is a slice and not a scope.
    #[must_use]
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// The cgroup below systemd's own root: `/machine.slice/machine-a.slice/crio-X.scope`. Of the user's systemd, it is
    /// below that service's cgroup (`ControlGroup` of the manager).
    #[must_use]
    pub fn cgroup_path(&self) -> String {
        let slice = expand_slice(&self.slice).unwrap_or_default();
        format!("{}/{}", slice.trim_end_matches('/'), self.name)
    }
}

struct Place<'a> {
    slice: &'a str,
    name: &'a str,
    unit: String,
}

impl<'a> Place<'a> {
    fn parse(id: &'a str, cgroups_path: &'a str, user: bool) -> Result<Place<'a>, String> {
        let parts: Vec<&str> =
            if cgroups_path.is_empty() { vec!["", "runc", id] } else { cgroups_path.split(':').collect() };
        let &[slice, prefix, name] = parts.as_slice() else {
            return Err(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?} instead"
            ));
        };
        let slice = match (slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            _ => slice,
        };
        expand_slice(slice)?;
        let unit = if name.ends_with(".slice") { name.to_owned() } else { format!("{prefix}-{name}.scope") };
        check_unit_name(&unit)?;
        Ok(Place { slice, name, unit })
    }

    /// The properties are runc's, in runc's order: engines and operators look for them.
    fn into_unit(self, v1: bool) -> SystemdUnit {
        let mut properties = vec![("Description", Value::Str(format!("libcontainer container {}", self.name)))];
        if self.unit.ends_with(".slice") {
            // A slice's parent follows from its name; the dependency makes systemd keep the parent.
            properties.push(("Wants", Value::strings([self.slice])));
        } else {
            properties.push(("Slice", Value::str(self.slice)));
            properties.push(("Delegate", Value::Bool(true)));
        }
        let io = if v1 { "BlockIOAccounting" } else { "IOAccounting" };
        // Always accounted: the kernel has trouble with processes that join the memory cgroup late.
        for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            properties.push((accounting, Value::Bool(true)));
        }
        properties.push(("DefaultDependencies", Value::Bool(false)));
        let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        SystemdUnit { name: self.unit, slice: self.slice.to_owned(), properties }
    }
}

/// `a-b.slice` is below `a.slice`: `/a.slice/a-b.slice`. The root slice is `-.slice`.
///
/// # Errors
/// `invalid slice name`, for what systemd would not take: `/` in it, an empty component, no `.slice` at its end.
pub fn expand_slice(slice: &str) -> Result<String, String> {
    let invalid = || format!("invalid slice name: {slice}");
    check_unit_name(slice).map_err(|_| invalid())?;
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if name == "-" {
        return Ok("/".into());
    }
    if name.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &name[..end])).collect())
}

/// The characters are systemd's `VALID_CHARS`. It would refuse others itself, but the name is also a directory.
fn check_unit_name(name: &str) -> Result<(), String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    if name.len() > NAME_MAX {
        return Err(format!("unit name {name:?} is longer than {NAME_MAX} bytes"));
    }
    if !name.bytes().all(valid) {
        return Err(format!(
            "unit name {name:?} has characters that systemd does not take (letters, digits and :-_.\\@)"
        ));
    }
    Ok(())
}

/// The message goes on from `annotation KEY`.
fn annotation_property(name: &str, text: &str) -> Result<(String, Value), String> {
    if name.len() < 3 {
        return Err(" name incorrect: too short".into());
    }
    if !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(" name incorrect: contains non-alphabetic character".into());
    }
    let wrong = |cause: String| format!("={text} value parse error: {cause}");
    let value = variant::parse(text).map_err(wrong)?;
    // systemd documents TimeoutStopSec=, its D-Bus property is TimeoutStopUSec.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|c: char| c.is_ascii_lowercase()) => {
            let micros = microseconds(&value).ok_or_else(|| wrong("not a number of seconds".into()))?;
            Ok((format!("{stem}USec"), Value::U64(micros)))
        }
        _ => Ok((name.to_owned(), value)),
    }
}

/// More than fits is systemd's infinity.
fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match *seconds {
        Value::Byte(n) => n.into(),
        Value::U16(n) => n.into(),
        Value::U32(n) => n.into(),
        Value::U64(n) => n,
        Value::I16(n) => n.try_into().ok()?,
        Value::I32(n) => n.try_into().ok()?,
        Value::I64(n) => n.try_into().ok()?,
        // `as` saturates, which is what is wanted.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::Double(n) => return (n >= 0.0).then_some((n * 1e6) as u64),
        _ => return None,
    };
    Some(whole.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> SystemdUnit {
        SystemdUnit::new("c1", path, &BTreeMap::new(), false, false).unwrap()
    }

    fn annotated(key: &str, text: &str) -> Result<(String, Value), String> {
        let annotations = BTreeMap::from([(format!("{ANNOTATION}{key}"), text.to_owned())]);
        match SystemdUnit::new("c1", "", &annotations, false, false) {
            Ok(mut unit) => Ok(unit.properties.pop().unwrap()),
            Err(problems) => Err(problems[0].message.clone()),
        }
    }

    #[test]
    fn names_and_paths() {
        assert_eq!((unit("").name.as_str(), unit("").slice.as_str()), ("runc-c1.scope", "system.slice"));
        assert_eq!(unit("").cgroup_path(), "/system.slice/runc-c1.scope");
        assert_eq!(unit("machine-a.slice:crio:x").cgroup_path(), "/machine.slice/machine-a.slice/crio-x.scope");
        assert_eq!(unit("-.slice:p:n").cgroup_path(), "/p-n.scope");
        assert_eq!(unit("a-b.slice::a-b-c.slice").cgroup_path(), "/a.slice/a-b.slice/a-b-c.slice");
        let user = SystemdUnit::new("c1", "", &BTreeMap::new(), true, false).unwrap();
        assert_eq!(user.cgroup_path(), "/user.slice/runc-c1.scope");
    }

    #[test]
    fn properties_are_runcs() {
        let names: Vec<String> = unit("a.slice:p:n").properties.into_iter().map(|(name, _)| name).collect();
        let scope = "Description Slice Delegate MemoryAccounting CPUAccounting IOAccounting TasksAccounting DefaultDependencies";
        assert_eq!(names.join(" "), scope);
        assert_eq!(unit("a.slice::a-b.slice").properties[1], ("Wants".into(), Value::strings(["a.slice"])));
        assert_eq!(unit("a.slice:p:n").properties[0].1, Value::str("libcontainer container n"));
    }

    #[test]
    fn bad_places() {
        for path in [
            "a",
            "a:b",
            "a.slice:b:c:d",
            "/x",
            "a:b:c",
            ".slice:b:c",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a/b.slice:p:n",
        ] {
            assert!(SystemdUnit::new("c1", path, &BTreeMap::new(), false, false).is_err(), "{path}");
        }
        for path in ["a.slice:p:../../x", "a.slice:p:x/y", "a.slice:p:n\n", "a.slice:p:é"] {
            assert!(SystemdUnit::new("c1", path, &BTreeMap::new(), false, false).is_err(), "{path}");
        }
        assert!(
            SystemdUnit::new("c1", &format!("a.slice:p:{}", "n".repeat(255)), &BTreeMap::new(), false, false).is_err()
        );
    }

    #[test]
    fn annotations() {
        assert_eq!(annotated("TimeoutStopUSec", "uint64 5"), Ok(("TimeoutStopUSec".into(), Value::U64(5))));
        assert_eq!(annotated("TimeoutStopSec", "5"), Ok(("TimeoutStopUSec".into(), Value::U64(5_000_000))));
        assert_eq!(annotated("RuntimeMaxSec", "2.5"), Ok(("RuntimeMaxUSec".into(), Value::U64(2_500_000))));
        assert_eq!(annotated("RuntimeMaxSec", "uint64 18446744073709551615").unwrap().1, Value::U64(u64::MAX));
        assert_eq!(annotated("FOOSec", "5"), Ok(("FOOSec".into(), Value::I32(5))));
        assert_eq!(annotated("CollectMode", "'inactive-or-failed'").unwrap().1, Value::str("inactive-or-failed"));
        assert!(annotated("TimeoutStopSec", "-5").is_err());
        assert!(
            annotated("TimeoutStopSec", "'x'")
                .unwrap_err()
                .ends_with("='x' value parse error: not a number of seconds")
        );
        assert!(annotated("ab", "5").unwrap_err().contains("too short"));
        assert!(annotated("a_b", "5").unwrap_err().contains("non-alphabetic"));
    }

    #[test]
    fn all_problems_at_once() {
        let annotations = BTreeMap::from([
            ("org.systemd.property.x".into(), String::new()),
            ("org.systemd.property.Foo".into(), "(".into()),
        ]);
        assert_eq!(SystemdUnit::new("c1", "bad", &annotations, false, false).unwrap_err().len(), 3);
    }
}
