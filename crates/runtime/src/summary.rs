//! What `state` and `list` tell about a container.

use crate::root::Runtime;
use crate::{Container, Result, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

/// A container as others see it. The keys and their order are runc's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The version of the specification.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The first process, 0 when it is gone.
    pub pid: i32,
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who owns the state directory: a user's name, or `#` and a number. Only `list` knows.
    pub owner: String,
}

impl Summary {
    /// JSON over several lines, as `state` prints it.
    pub fn to_json(&self) -> String {
        to_json(self, "  ")
    }

    /// JSON in one line, as `list` prints many.
    pub fn list_to_json(list: &[Summary]) -> String {
        // Go's encoder writes a list that was never made as null, and runc makes none without a container.
        if list.is_empty() { "null".into() } else { serde_json::to_string(list).unwrap_or_default() }
    }
}

/// JSON over several lines, with an indentation of the caller's choice, since Go programs differ in theirs.
///
/// For types of ours, which always have a JSON form; of others it may be empty.
pub fn to_json(value: &impl Serialize, indent: &str) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter));
    written.ok().and_then(|()| String::from_utf8(out).ok()).unwrap_or_default()
}

impl Runtime {
    /// The state of one container.
    ///
    /// # Errors
    /// The container does not exist, or its state cannot be read.
    pub fn state(&self, id: &str) -> Result<Summary> {
        summary(&self.load(id)?)
    }
}

/// What is known of `container`, with its status now.
pub(crate) fn summary(container: &Container) -> Result<Summary> {
    let status = container.status()?;
    let state = &container.state;
    Ok(Summary {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        pid: if status == Status::Stopped { 0 } else { state.init_process_pid },
        status: status.to_string(),
        bundle: state.bundle.clone(),
        rootfs: state.config.rootfs.clone(),
        created: state.created.clone(),
        annotations: state.annotations.clone(),
        owner: String::new(),
    })
}

/// The name of a user. Only `/etc/passwd` is asked: a static program has no name service, and must not wait for one.
pub(crate) fn user_name(uid: u32) -> String {
    let file = File::open("/etc/passwd").ok();
    let lines = file.into_iter().flat_map(|file| BufReader::new(file).lines().map_while(std::io::Result::ok));
    lines.filter_map(|line| name_of(&line, uid)).next().unwrap_or_else(|| format!("#{uid}"))
}

fn name_of(line: &str, uid: u32) -> Option<String> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Summary {
        Summary {
            oci_version: "1.3.0".into(),
            id: "x".into(),
            pid: 7,
            status: "running".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "1970-01-01T00:00:00Z".into(),
            annotations: BTreeMap::new(),
            owner: String::new(),
        }
    }

    #[test]
    fn state_is_indented_and_keeps_its_order() {
        let expected = "{\n  \"ociVersion\": \"1.3.0\",\n  \"id\": \"x\",\n  \"pid\": 7,\n  \"status\": \"running\",\n  \
                        \"bundle\": \"/b\",\n  \"rootfs\": \"/b/rootfs\",\n  \"created\": \"1970-01-01T00:00:00Z\",\n  \
                        \"owner\": \"\"\n}";
        assert_eq!(example().to_json(), expected);
    }

    #[test]
    fn a_list_is_one_line() {
        assert_eq!(Summary::list_to_json(&[]), "null");
        let two = Summary::list_to_json(&[example(), example()]);
        assert!(
            two.starts_with("[{\"ociVersion\":\"1.3.0\",\"id\":\"x\",\"pid\":7,\"status\":\"running\"")
                && !two.contains('\n')
        );
    }

    #[test]
    fn users_have_names_in_passwd_only() {
        assert_eq!(name_of("a:x:7:8::/:/bin/sh", 7).as_deref(), Some("a"));
        assert_eq!(name_of("a:x:7:8::/:/bin/sh", 8), None);
        assert_eq!(name_of("", 0), None);
        assert_eq!(user_name(4_000_000_000), "#4000000000");
    }
}
