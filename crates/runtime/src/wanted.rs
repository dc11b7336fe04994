//! What `exec` asks for: a process of its own making, or the container's with changes.

use crate::bundle::cause_of;
use crate::{Error, Kind, Result};
use offshoot_spec::{Capabilities, Process, Spec};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A further process, as the command line describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A file with the whole process as JSON; nothing below counts then.
    pub file: Option<PathBuf>,
    /// argv.
    pub args: Vec<String>,
    /// Working directory in place of the container's.
    pub cwd: Option<String>,
    /// `KEY=value`, beside the container's.
    pub env: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// `uid` or `uid:gid` in place of the container's.
    pub user: Option<String>,
    /// Supplementary groups, beside the container's.
    pub groups: Vec<i64>,
    /// SELinux label in place of the container's.
    pub selinux_label: Option<String>,
    /// AppArmor profile in place of the container's.
    pub apparmor_profile: Option<String>,
    /// Whether it may gain privileges by exec, in place of what holds for the container.
    pub no_new_privileges: Option<bool>,
    /// Capabilities beside the container's.
    pub capabilities: Vec<String>,
}

impl Wanted {
    /// The process, on the base of the container's own in `spec`.
    ///
    /// # Errors
    /// The file cannot be read, or an option is wrong.
    pub fn process(&self, spec: &Spec) -> Result<Process> {
        match &self.file {
            // May be a FIFO, as bash makes for <(…).
            Some(path) => {
                let text =
                    fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), &error))?;
                offshoot_spec::from_slice(&text).map_err(|error| cause_of(path, &error))
            }
            None => self.changed(spec.process.clone().unwrap_or_default()),
        }
    }

    fn changed(&self, mut process: Process) -> Result<Process> {
        if self.args.is_empty() {
            return Err(Error::new(Kind::Request, "exec args cannot be empty"));
        }
        process.args.clone_from(&self.args);
        process.terminal = self.terminal;
        process.console_size = None;
        replace(&mut process.cwd, self.cwd.as_ref());
        replace(&mut process.selinux_label, self.selinux_label.as_ref());
        replace(&mut process.apparmor_profile, self.apparmor_profile.as_ref());
        process.env.extend(self.env.iter().cloned());
        process.no_new_privileges = self.no_new_privileges.unwrap_or(process.no_new_privileges);
        if !self.capabilities.is_empty() {
            add(process.capabilities.get_or_insert_default(), &self.capabilities);
        }
        if let Some(user) = &self.user {
            let (uid, gid) = user_of(user)?;
            process.user.uid = uid;
            process.user.gid = gid.unwrap_or(process.user.gid);
        }
        for group in &self.groups {
            let group = u32::try_from(*group)
                .map_err(|_| Error::new(Kind::Request, format!("additional-gids must be a positive number {group}")))?;
            process.user.additional_gids.push(group);
        }
        Ok(process)
    }
}

fn replace(old: &mut String, new: Option<&String>) {
    if let Some(new) = new {
        old.clone_from(new);
    }
}

/// Never to the inheritable set: files with inheritable bits would then pass capabilities on that the container's own
/// process does not have (CVE-2022-29162). Ambient ones have to be inheritable, too; so only where the container's
/// configuration has inheritable ones.
fn add(sets: &mut Capabilities, names: &[String]) {
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(names.iter().cloned());
    }
    if !sets.inheritable.is_empty() {
        sets.ambient.extend(names.iter().cloned());
    }
}

/// `uid` or `uid:gid`, in decimal digits and nothing else: `+1`, ` 1` and names that begin with a digit are no ids.
fn user_of(text: &str) -> Result<(u32, Option<u32>)> {
    let id = |what: &str, text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.ok_or_else(|| Error::new(Kind::Request, format!("bad {what}: {text:?} is not a number")))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((id("uid", uid)?, Some(id("gid", gid)?))),
        None => Ok((id("uid", text)?, None)),
    }
}

/// Where in the container's cgroup the process goes, by controller; the empty name is for all.
///
/// # Errors
/// In runc's words.
pub fn sub_cgroups(arguments: &[String]) -> Result<BTreeMap<String, String>> {
    let wrong = |message: String| Err(Error::new(Kind::Request, message));
    let mut paths = BTreeMap::new();
    for argument in arguments {
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() > 1 {
                return wrong(format!("invalid --cgroup argument: {argument} (missing <controller>: prefix)"));
            }
            paths.insert(String::new(), argument.clone());
            break;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return wrong(format!("invalid --cgroup argument: {argument} (empty <controller> prefix)"));
            }
            if paths.insert(controller.to_owned(), path.to_owned()).is_some() {
                return wrong(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                ));
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn spec(text: &str) -> Spec {
        offshoot_spec::from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn users_are_digits() {
        assert_eq!(user_of("1").unwrap(), (1, None));
        assert_eq!(user_of("1:2").unwrap(), (1, Some(2)));
        for text in ["", "1:", ":1", "a", "+1", "-1", " 1", "1 ", "4294967296", "1:2:3", "0x1"] {
            assert!(user_of(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_container_s_process_is_the_base() {
        let spec = spec(
            r#"{"process":{"terminal":true,"args":["sh"],"cwd":"/x","env":["A=1"],"user":{"uid":5,"gid":6},
            "capabilities":{"bounding":["CAP_KILL"]},"noNewPrivileges":true}}"#,
        );
        let wanted = Wanted {
            args: vec!["ls".into()],
            env: vec!["B=2".into()],
            user: Some("7".into()),
            groups: vec![9],
            capabilities: vec!["CAP_CHOWN".into()],
            ..Wanted::default()
        };
        let process = wanted.process(&spec).unwrap();
        assert_eq!((process.args, process.env), (vec!["ls".to_owned()], vec!["A=1".to_owned(), "B=2".to_owned()]));
        assert_eq!((process.user.uid, process.user.gid, process.user.additional_gids), (7, 6, vec![9]));
        assert!(!process.terminal && process.no_new_privileges && process.cwd == "/x");
        let sets = process.capabilities.unwrap();
        assert_eq!(
            (sets.bounding.len(), sets.permitted.len(), sets.inheritable.len(), sets.ambient.len()),
            (2, 1, 0, 0)
        );
        let empty = Wanted::default().process(&spec).unwrap_err();
        assert_eq!(empty.to_string(), "exec args cannot be empty");
    }

    #[test]
    fn a_file_says_it_all() {
        let scratch = Scratch::new("wanted");
        let path = scratch.path().join("process.json");
        fs::write(&path, r#"{"args":["id"],"cwd":"/","terminal":true}"#).unwrap();
        let wanted = Wanted { file: Some(path), args: vec!["ignored".into()], ..Wanted::default() };
        let process = wanted.process(&Spec::default()).unwrap();
        assert!(process.terminal && process.args == ["id"]);
    }

    #[test]
    fn cgroups_go_by_controller_or_all_at_once() {
        let paths = |arguments: &[&str]| sub_cgroups(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(paths(&["a/b"]).unwrap(), [(String::new(), "a/b".to_owned())].into());
        assert_eq!(paths(&["cpu,cpuacct:x", "memory:y"]).unwrap().len(), 3);
        for wrong in [&["a", "b"][..], &[":a"], &["cpu:a", "cpu:b"], &["cpu,:a"]] {
            assert!(paths(wrong).is_err(), "{wrong:?}");
        }
    }
}
