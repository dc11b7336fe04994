//! Being root of one's own ids: a user namespace in which a plain user can write an image's owners, and mount overlays.

use std::io::{Read, Write};

use offshoot_sys::fork::{fork, wait};
use offshoot_sys::process::{setresgid, setresuid, unshare};

use crate::error::{Call, During, Error, Result};
use crate::tool::Tool;

const NEWUIDMAP: Tool = Tool { name: "newuidmap", package: "uidmap" };
const NEWGIDMAP: Tool = Tool { name: "newgidmap", package: "uidmap" };

/// Makes the calling process, which must have one thread, root in a user and a mount namespace of its own: the user's id is 0
/// there, and the subordinate ids of `/etc/subuid` and `/etc/subgid` are those from 1 on. Does nothing for root.
///
/// For a program's `main`: it changes its caller for good.
pub fn become_root_of_own_ids() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    enter().during(|| "enter a user namespace for the rootless store")
}

fn enter() -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let name = user_name(uid);
    let range = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        subordinate(&text, &name, uid).ok_or_else(|| {
            Error::invalid(format!("{file} gives user {name} no ids"))
                .with_hint(format!("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"))
        })
    };
    let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
    let pid = std::process::id().to_string();
    let map = |tool: Tool, own: u32, (start, count): (u32, u32)| {
        let args =
            [pid.clone(), "0".into(), own.to_string(), "1".into(), "1".into(), start.to_string(), count.to_string()];
        tool.run(&args.each_ref().map(String::as_str)).map(drop)
    };
    // The tools are set-user-id, which only counts outside of the new namespace: a child stays there and runs them.
    let (mut ready, ready_writer) = std::io::pipe().call(|| "pipe2()")?;
    let (mut told, mut told_writer) = std::io::pipe().call(|| "pipe2()")?;
    let child = fork(0, None, || {
        let mapped = ready.read_exact(&mut [0]).call(|| "read(pipe)").and_then(|()| map(NEWUIDMAP, uid, uids));
        match mapped.and_then(|()| map(NEWGIDMAP, gid, gids)) {
            Ok(()) => 0,
            Err(error) => {
                let _ = told_writer.write_all(format!("{error}\n{}", error.hint().unwrap_or_default()).as_bytes());
                1
            }
        }
    })?;
    drop(told_writer);
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    { ready_writer }.write_all(b"x").call(|| "write(pipe)")?;
    let mut why = String::new();
    told.read_to_string(&mut why).call(|| "read(pipe)")?;
    if !wait(&child.pidfd)?.success() {
        let (text, hint) = why.split_once('\n').unwrap_or((&why, ""));
        let error = Error::invalid(text);
        return Err(if hint.is_empty() { error } else { error.with_hint(hint) });
    }
    setresgid(0)?;
    Ok(setresuid(0)?)
}

fn user_name(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own = text.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    own.and_then(|line| line.split(':').next()).map_or_else(|| uid.to_string(), str::to_owned)
}

/// The first range that a user has in `/etc/subuid`, by name or number (man 5 subuid).
fn subordinate(text: &str, name: &str, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((user == name || user == uid.to_string()) && count > 0).then_some((start, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_counts_by_name_or_number() {
        let text = "# x\nother:1:2\nann:100000:65536\nann:1:1\n1001:200000:10\nbad:x:1\n";
        assert_eq!(subordinate(text, "ann", 1000), Some((100_000, 65_536)));
        assert_eq!(subordinate(text, "bob", 1001), Some((200_000, 10)));
        assert_eq!(subordinate(text, "bad", 7), None);
    }
}
