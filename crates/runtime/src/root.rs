//! Where the states of all containers are, and what else a caller decides for all verbs.

use crate::many::Common;
use crate::{Error, Kind, Log, Result, id};
use offshoot_plan::clean;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The library's handle: a root directory, and the choices that hold for every container below it.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Directory with one state directory a container.
    pub root: PathBuf,
    /// Whether the caller named the root, so that it has to exist.
    pub root_given: bool,
    /// Whether systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// Whether missing permission for cgroups is passed over; `None` finds out.
    pub rootless: Option<bool>,
    /// The name by which the program was called; by that of `offshoot_system::PROGRAM` all are system containers.
    pub program: String,
    /// Where messages go.
    pub log: Log,
    /// What many containers have in common: [`Runtime::for_many`].
    pub common: Option<Arc<Common>>,
}

impl Runtime {
    /// With the states below `root`, or below `/run/offshoot`, or `$XDG_RUNTIME_DIR/offshoot` for a caller that
    /// is not root.
    ///
    /// # Errors
    /// The root would be `/`, or the directory of an ordinary user cannot be made.
    pub fn new(root: Option<&Path>, log: Log) -> Result<Runtime> {
        let root_given = root.is_some();
        let root = match root {
            Some(root) => absolute(root)?,
            None => match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty() && is_private()) {
                Some(dir) => make_private(&Path::new(&dir).join("offshoot"))?,
                None => PathBuf::from("/run/offshoot"),
            },
        };
        Ok(Runtime {
            root,
            root_given,
            systemd_cgroup: false,
            rootless: None,
            program: String::new(),
            log,
            common: None,
        })
    }

    /// Lets systemd make the cgroups.
    pub fn systemd_cgroup(self, on: bool) -> Runtime {
        Runtime { systemd_cgroup: on, ..self }
    }

    /// The name by which the program was called.
    pub fn program(self, program: impl Into<String>) -> Runtime {
        Runtime { program: program.into(), ..self }
    }

    /// Whether missing permission for cgroups is passed over; `None` finds out.
    pub fn rootless(self, rootless: Option<bool>) -> Runtime {
        Runtime { rootless, ..self }
    }

    /// The state directory of a container that may or may not exist.
    ///
    /// # Errors
    /// The id cannot be one.
    pub fn dir(&self, id: &str) -> Result<PathBuf> {
        id::check(id)?;
        Ok(self.root.join(id))
    }

    /// Whether this call has no full rights over cgroups: as told, or when the caller is not root or is root of a
    /// user namespace only. With systemd it is also which systemd: one in the user namespace, as in a system
    /// container, gives its root all rights.
    pub fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(|| {
            let euid = nix::unistd::geteuid();
            !euid.is_root() || (in_user_namespace() && (!self.systemd_cgroup || offshoot_cgroup::systemd::is_users()))
        })
    }
}

/// Whether states belong below the user's own runtime directory. Root of a user namespace counts as a user unless
/// `$USER` says root, as runc has it.
fn is_private() -> bool {
    let euid = nix::unistd::geteuid();
    !euid.is_root() || (in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root"))
}

/// Whether the caller is in a user namespace other than the first, whose map is the identity over all ids.
pub fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_partial(&map))
}

fn is_partial(map: &str) -> bool {
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The directory with the sticky bit, which keeps it from being cleaned up (XDG Base Directory Specification).
fn make_private(dir: &Path) -> Result<PathBuf> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let made = made.and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o1700)));
    made.map_err(|error| Error::io(format_args!("make {} in $XDG_RUNTIME_DIR", dir.display()), &error))?;
    Ok(dir.to_owned())
}

/// The absolute path without `.` and `..`, as Go's `filepath.Abs` makes it.
fn absolute(path: &Path) -> Result<PathBuf> {
    let cwd = || std::env::current_dir().map_err(|error| Error::io("find the working directory", &error));
    let full = if path.is_absolute() { path.to_owned() } else { cwd()?.join(path) };
    let clean = clean(&full);
    if clean == Path::new("/") {
        return Err(Error::new(Kind::Request, "Option --root argument should not be set to /"));
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_absolute_and_not_the_root() {
        let root = |path: &str| Runtime::new(Some(Path::new(path)), Log::none()).map(|runtime| runtime.root);
        assert_eq!(root("/a/./b/../c//").unwrap(), Path::new("/a/c"));
        assert_eq!(root("x").unwrap(), std::env::current_dir().unwrap().join("x"));
        for path in ["/", "/..", "../../../../../../../../../../../.."] {
            let error = root(path).unwrap_err();
            assert_eq!(error.to_string(), "Option --root argument should not be set to /");
        }
    }

    #[test]
    fn only_the_whole_identity_map_is_the_first_namespace() {
        assert!(!is_partial("         0          0 4294967295\n"));
        assert!(is_partial("         0     100000      65536\n"));
        assert!(is_partial(""));
    }

    #[test]
    fn an_id_never_leaves_the_root() {
        let runtime = Runtime::new(Some(Path::new("/r")), Log::none()).unwrap();
        assert_eq!(runtime.dir("x").unwrap(), Path::new("/r/x"));
        assert!(runtime.dir("../x").is_err());
    }
}
