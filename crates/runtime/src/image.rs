//! A bundle made of an image: for a caller who has an image and a command, and no `config.json`.
//!
//! The configuration is the one that `spec` writes, with what the image says of its process (environment, command, working
//! directory, user), the capabilities that container engines give, and a writable clone for a root. The bundle is the
//! container's state directory, where `create` keeps the configuration anyway.

use crate::bundle::Bundle;
use crate::launch::Launch;
use crate::rootfs::{self, ANNOTATION};
use crate::{Error, Kind, Result, Runtime, error};
use offshoot_snapshot::{Image, Request, Store};
use offshoot_spec::User;
use serde_json::{Value, json};
use std::path::Path;

/// A container to be made of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromImage {
    /// The image, and how it is cloned.
    pub clone: Request,
    /// What runs in place of the image's command; the image's entry point, if it has one, gets it.
    pub command: Vec<String>,
    /// Whether its process gets a terminal.
    pub terminal: bool,
}

/// Those of Docker, containerd and Podman: enough for a distribution's packages to be installed.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel takes no longer host name (`__NEW_UTS_LEN`).
const HOST_NAME: usize = 64;

impl Runtime {
    /// The bundle of a container: the one that the caller names, or one made of an image.
    ///
    /// # Errors
    /// Neither can be read, or both are given.
    pub fn bundle(&self, wanted: &Launch) -> Result<Bundle> {
        let Some(image) = &wanted.image else { return Bundle::open(&wanted.bundle) };
        if !wanted.bundle.as_os_str().is_empty() {
            return Err(Error::new(
                Kind::Request,
                "an image and a bundle are given: a container is made of one of them",
            ));
        }
        let path = self.dir(&wanted.id)?;
        let store =
            rootfs::open_store(wanted.store.as_deref(), &image.clone.image, None).map_err(|refusal| refusal.alone())?;
        let found = store.image(&image.clone.image).map_err(|error| error::of_store(&error))?;
        let config = config(&wanted.id, image, &store, &found)?;
        let text = serde_json::to_vec_pretty(&config).map_err(|error| Error::io("write config.json", &error.into()))?;
        let spec = crate::bundle::parse(&text).map_err(|cause| Error::new(Kind::System, cause))?;
        Ok(Bundle { path, spec, text })
    }
}

fn config(id: &str, wanted: &FromImage, store: &Store, image: &Image) -> Result<Value> {
    let starter = crate::default_config(false);
    let mut config: Value =
        serde_json::from_str(&starter).map_err(|error| Error::io("read the starter configuration", &error.into()))?;
    let says = &image.config()["config"];
    let user = says["User"].as_str().unwrap_or_default();
    let user = user_of(user, |path| store.read_file(image, path).map_err(|error| error::of_store(&error)))?;
    let host_name: String = id
        .chars()
        .scan(0, |length, c| {
            *length += c.len_utf8();
            (*length <= HOST_NAME).then_some(c)
        })
        .collect();
    let caps = json!(CAPABILITIES);
    let process = &mut config["process"];
    process["terminal"] = wanted.terminal.into();
    process["args"] = json!(args(says, &wanted.command));
    process["env"] = json!(env(says, wanted.terminal));
    process["cwd"] = says["WorkingDir"].as_str().filter(|dir| dir.starts_with('/')).unwrap_or("/").into();
    process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids});
    process["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
    config["hostname"] = host_name.into();
    if let Some(all) = config.as_object_mut() {
        all.remove("root");
    }
    config["annotations"] = json!({ANNOTATION: wanted.clone.to_string()});
    Ok(config)
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// As engines do: a command takes the place of the image's command, and goes to its entry point.
fn args(says: &Value, command: &[String]) -> Vec<String> {
    let mut args = words(&says["Entrypoint"]);
    args.extend(if command.is_empty() { words(&says["Cmd"]) } else { command.to_vec() });
    if args.is_empty() { vec!["/bin/sh".to_owned()] } else { args }
}

fn env(says: &Value, terminal: bool) -> Vec<String> {
    let mut env = words(&says["Env"]);
    let has = |env: &[String], name: &str| env.iter().any(|entry| entry.starts_with(name));
    if !has(&env, "PATH=") {
        env.insert(0, PATH.to_owned());
    }
    if terminal && !has(&env, "TERM=") {
        env.push("TERM=xterm".to_owned());
    }
    env
}

/// `user`, `uid`, `user:group`, `uid:gid`… by the image's own `/etc/passwd` and `/etc/group`. spec: image-spec config.md, "User"
fn user_of(text: &str, read: impl Fn(&Path) -> Result<Option<Vec<u8>>>) -> Result<User> {
    if text.is_empty() {
        return Ok(User::default());
    }
    let file = |path: &str| -> Result<Vec<Vec<String>>> {
        let text = read(Path::new(path))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let field = |entry: &[String], at: usize| entry.get(at).cloned().unwrap_or_default();
    let number = |entry: &[String], at: usize| field(entry, at).parse::<u32>().ok();
    let missing = |what: &str, name: &str, path: &str| {
        Error::new(Kind::Request, format!("the image's {what} {name:?} is neither a number nor in its /{path}"))
    };
    let users = file("etc/passwd")?;
    let same = |entry: &&Vec<String>, name: &str, at| field(entry, 0) == name || field(entry, at) == name;
    let entry = users.iter().find(|entry| same(entry, user, 2));
    let uid = entry.and_then(|entry| number(entry, 2)).or_else(|| user.parse().ok());
    let uid = uid.ok_or_else(|| missing("user", user, "etc/passwd"))?;
    let groups = file("etc/group")?;
    if let Some(group) = group {
        let found = groups.iter().find(|entry| same(entry, group, 2)).and_then(|entry| number(entry, 2));
        let gid = found.or_else(|| group.parse().ok()).ok_or_else(|| missing("group", group, "etc/group"))?;
        return Ok(User { uid, gid, ..User::default() });
    }
    let gid = entry.and_then(|entry| number(entry, 3)).unwrap_or(0);
    let name = entry.map(|entry| field(entry, 0)).unwrap_or_default();
    let member = |entry: &&Vec<String>| !name.is_empty() && field(entry, 3).split(',').any(|member| member == name);
    let additional_gids = groups.iter().filter(member).filter_map(|entry| number(entry, 2)).collect();
    Ok(User { uid, gid, additional_gids, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Result<(u32, u32, Vec<u32>)> {
        let read = |path: &Path| {
            Ok(Some(match path.to_str() {
                Some("etc/passwd") => b"root:x:0:0::/:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n".to_vec(),
                _ => b"root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\nvideo:x:44:ann\n".to_vec(),
            }))
        };
        user_of(text, read).map(|user| (user.uid, user.gid, user.additional_gids))
    }

    #[test]
    fn a_user_is_looked_up_in_the_image() {
        assert_eq!(user("").unwrap(), (0, 0, vec![]));
        assert_eq!(user("ann").unwrap(), (1000, 100, vec![29, 44]));
        assert_eq!(user("1000").unwrap(), (1000, 100, vec![29, 44]));
        assert_eq!(user("ann:audio").unwrap(), (1000, 29, vec![]));
        assert_eq!(user("4711").unwrap(), (4711, 0, vec![]));
        assert_eq!(user("4711:4712").unwrap(), (4711, 4712, vec![]));
        assert!(
            user("bob").unwrap_err().to_string().contains("user \"bob\" is neither a number nor in its /etc/passwd")
        );
        assert!(user("ann:none").unwrap_err().to_string().contains("group \"none\""));
    }

    #[test]
    fn a_command_takes_the_place_of_the_image_s() {
        let says = json!({"Entrypoint": ["/entry"], "Cmd": ["a", "b"]});
        assert_eq!(args(&says, &[]), ["/entry", "a", "b"]);
        assert_eq!(args(&says, &["c".into()]), ["/entry", "c"]);
        assert_eq!(args(&json!({}), &[]), ["/bin/sh"]);
        assert_eq!(args(&json!({"Cmd": ["x"]}), &["c".into()]), ["c"]);
        assert_eq!(env(&json!({"Env": ["A=1"]}), true), [PATH, "A=1", "TERM=xterm"]);
        assert_eq!(env(&json!({"Env": ["PATH=/x", "TERM=vt100"]}), true), ["PATH=/x", "TERM=vt100"]);
    }
}
