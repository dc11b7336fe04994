//! The end of the runtime's life in the container: the program is found, waited for, and becomes the process.

use crate::error::{Error, Result};
use crate::inherit::Opened;
use crate::protocol::Report;
use crate::stage::Stage;
use nix::sys::signal::Signal;
use offshoot_sys::{Errno, errno_text, libc, path, process};
use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest `/etc/passwd` that is read for a home directory, in bytes.
const PASSWD_MAX: usize = 1 << 20;

impl Stage<'_> {
    /// From here on only what the program gets, and what leads back to the host.
    pub fn close_descriptors(&mut self) -> Result<()> {
        let mut keep = vec![self.host.number()];
        keep.extend(self.opened.fifo.as_ref().map(AsRawFd::as_raw_fd));
        self.procfs = None;
        self.root = None;
        let fifo = self.opened.fifo.take();
        self.opened = Opened { fifo, ..Opened::default() };
        process::reset_signals(self.job.ignored_signals)?;
        if self.opened.fifo.is_some() {
            // A container that waits for `start` can be stopped like any other; init is deaf to what it does not handle.
            process::exit_on_signals(&[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM])?;
        }
        // runc says so here, and its test suite listens.
        let is_init = self.job.plan.is_some();
        let words = if is_init { "init: closing the pipe to signal completion" } else { "setns_init: about to exec" };
        self.debug(words);
        self.close_all_but(&keep)
    }

    pub fn find_program(&mut self) -> Result<()> {
        self.set_home();
        let Some(name) = self.job.process.args.first() else { return Ok(()) };
        let found = look_up(name, &self.env)?;
        self.program = CString::new(found.as_os_str().as_bytes()).ok();
        Ok(())
    }

    fn set_home(&mut self) {
        let set = self.env.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty()));
        if !set {
            self.env.retain(|entry| !entry.starts_with("HOME="));
            let home = home(self.job.process.uid).unwrap_or_else(|| "/".into());
            self.env.push(format!("HOME={home}"));
        }
    }

    /// Tells the host that all is done, and waits until `start` writes a byte. This process holds both ends, so
    /// that it neither misses the writer nor sees an end of file before it; and up to its exec, by which `start`
    /// knows that poststart hooks may run.
    pub fn wait_start(&mut self) -> Result<()> {
        self.host.tell(&Report::Done)?;
        let Some(fifo) = &self.opened.fifo else { return Ok(()) };
        self.host.close();
        let mut byte = [0];
        path::read(fifo, &mut byte).map(drop).map_err(Into::into)
    }

    /// Becomes the program. Nobody listens on the socket any more, so an error goes to standard error.
    pub fn exec(&mut self) -> Result<()> {
        if self.job.plan.is_none() {
            self.host.tell(&Report::Done)?;
        }
        let program = self.program.clone().unwrap_or_default();
        let strings =
            |list: &[String]| -> Vec<CString> { list.iter().filter_map(|s| CString::new(s.as_str()).ok()).collect() };
        let (args, env) = (strings(&self.job.process.args), strings(&self.env));
        // All else was closed before the filter came into force, or closes with the exec.
        self.host.close();
        if args.is_empty() {
            process::exit(0)
        }
        let Err(error) = process::execve(&program, &args, &env);
        let line = format!("exec {}: {}\n", program.to_string_lossy(), errno_text(error.errno()));
        let _ = std::io::stderr().write_all(line.as_bytes());
        process::exit(255)
    }
}

/// The home directory that the container's `/etc/passwd` gives a user id. The file is the container's: it may be
/// huge, no file at all, or block.
fn home(uid: u32) -> Option<String> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = path::open("/etc/passwd", flags, 0).ok()?;
    if path::fstat(&file).ok()?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let text = path::read_to_end(&file, PASSWD_MAX).ok()?;
    home_in(&String::from_utf8_lossy(&text), uid)
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.len() >= 6 && fields[2].parse() == Ok(uid))?;
    (!line[5].is_empty() && !line[5].contains('\0')).then(|| line[5].to_owned())
}

/// As a shell would look it up, in Go's words.
fn look_up(name: &str, env: &[String]) -> Result<PathBuf> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                Err(Error::new(format!("exec: {name:?}: stat {name}: no such file or directory")))
            }
            Err(errno) => Err(Error::new(format!("exec: {name:?}: {}", errno_text(errno)))),
        };
    }
    let search = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = None;
    for dir in search.split(':') {
        let path = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => denied = denied.or(Some(errno)),
            Err(_) => {}
        }
    }
    match denied {
        Some(errno) if !name.is_empty() => Err(Error::new(format!("exec: {name:?}: {}", errno_text(errno)))),
        _ => Err(Error::new(format!("exec: {name:?}: executable file not found in $PATH"))),
    }
}

fn executable(path: &Path) -> std::result::Result<(), Errno> {
    let stat = offshoot_sys::path::fstatat(None, path, 0).map_err(|error| error.errno())?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    match offshoot_sys::path::access_exec(path).map_err(|error| error.errno()) {
        // The profile may be in force already and know nothing of faccessat2(2). Go looks at the mode then, too.
        Err(Errno::EPERM | Errno::ENOSYS) if stat.st_mode & 0o111 != 0 => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_where_the_number_is() {
        let text =
            "1000:x:0:0::/name:\nshort:x:7\nu:x:1000:1000:a,b:/home/u:/bin/sh\nagain:x:1000:1::/other:\nn:x:8:8::\0:";
        assert_eq!(home_in(text, 1000).as_deref(), Some("/home/u"));
        assert_eq!(home_in(text, 0).as_deref(), Some("/name"));
        assert_eq!(home_in(text, 7), None);
        assert_eq!(home_in(text, 8), None);
        for broken in ["", ":", "::::::", "\u{fffd}:::\u{fffd}", "u:x:99999999999999999999:0::/:", "\n\n:\n"] {
            assert_eq!(home_in(broken, 0), None, "{broken:?}");
        }
    }

    #[test]
    fn go_words_for_what_cannot_run() {
        let env = ["PATH=/bin:/usr/bin".to_owned()];
        let words = |name: &str| look_up(name, &env).unwrap_err().to_string();
        assert_eq!(words("nosuch"), "exec: \"nosuch\": executable file not found in $PATH");
        assert_eq!(words("/nosuch"), "exec: \"/nosuch\": stat /nosuch: no such file or directory");
        assert_eq!(words("/etc/passwd"), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(words("/etc"), "exec: \"/etc\": is a directory");
        assert_eq!(words(""), "exec: \"\": executable file not found in $PATH");
        assert!(look_up("sh", &env).is_ok());
        assert!(look_up("sh", &[]).is_err());
    }
}
