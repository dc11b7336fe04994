//! `criu swrk`: CRIU as a child that takes requests over a socket. source: criu.org/RPC

use super::message::{Response, acknowledgement, feature_request, version_request};
use crate::{Error, Result};
use offshoot_sys as sys;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Below it CRIU cannot take external pid namespaces or another LSM profile, and no distribution that has the kernels
/// of our floor ships it.
const MIN_VERSION: u32 = 31600;
/// Larger than any answer.
const MAX_RESPONSE: usize = 40 * 1024;

/// What CRIU reports on its way, and waits for.
pub(super) struct Notification {
    pub(super) script: String,
    /// The container's init, where the step has one; else 0.
    pub(super) pid: i32,
    /// What came with it: the terminal of `orphan-pts-master`.
    pub(super) fds: Vec<OwnedFd>,
}

/// The conversation.
pub(super) struct Session(OwnedFd);

impl Session {
    pub(super) fn new(socket: OwnedFd) -> Session {
        Session(socket)
    }

    /// Asks for the version, which must be one that we can work with.
    pub(super) fn check_version(&self) -> Result<()> {
        let response = self.ask(&version_request(), "version")?;
        match response.version {
            Some(version) if version >= MIN_VERSION => Ok(()),
            Some(version) => Err(Error::new(format!("CRIU version {version} must be {MIN_VERSION} or higher"))),
            None => Err(Error::new("CRIU version check failed: no version in the answer")),
        }
    }

    /// Whether memory can be tracked, and whether it can be restored lazily.
    pub(super) fn features(&self) -> Result<(bool, bool)> {
        let response = self.ask(&feature_request(), "feature")?;
        Ok((response.mem_track, response.lazy_pages))
    }

    fn ask(&self, request: &[u8], what: &str) -> Result<Response> {
        self.send(request)?;
        let (response, _) = self.receive()?;
        if response.success {
            Ok(response)
        } else {
            Err(Error::new(format!("CRIU {what} check failed: {}", reason(&response))))
        }
    }

    /// Has a request carried out; `notified` hears of every step before CRIU goes on, and its error ends the request.
    pub(super) fn run(&self, request: &[u8], notified: &mut dyn FnMut(Notification) -> Result<()>) -> Result<Response> {
        self.send(request)?;
        let mut refused = None;
        loop {
            let (mut response, fds) = self.receive()?;
            let Some(script) = response.script.take().filter(|_| response.success) else {
                return match refused {
                    // CRIU failed because we made it fail; our reason is the better one.
                    Some(error) => Err(error),
                    None if response.success => Ok(response),
                    None => Err(Error::new(reason(&response))),
                };
            };
            let answer = notified(Notification { script, pid: response.pid, fds });
            self.send(&acknowledgement(answer.is_ok()))?;
            refused = refused.or(answer.err());
        }
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        match sys::socket::send(&self.0, message, &[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(format!("failed to ask CRIU: {error}"))),
        }
    }

    fn receive(&self) -> Result<(Response, Vec<OwnedFd>)> {
        let mut bytes = vec![0; MAX_RESPONSE];
        let (count, fds) = sys::socket::recv(&self.0, &mut bytes)
            .map_err(|error| Error::new(format!("failed to hear from CRIU: {error}")))?;
        if count == 0 {
            return Err(Error::new("criu failed: it ended without an answer"));
        }
        let response =
            Response::parse(&bytes[..count]).ok_or_else(|| Error::new("criu failed: its answer makes no sense"))?;
        Ok((response, fds))
    }
}

/// runc's words, and CRIU's own where it has some.
fn reason(response: &Response) -> String {
    let kind = match response.kind {
        1 => "DUMP".to_owned(),
        2 => "RESTORE".to_owned(),
        4 => "PRE_DUMP".to_owned(),
        6 => "NOTIFY".to_owned(),
        other => other.to_string(),
    };
    let text = format!("criu failed: type {kind} errno {}", response.errno);
    if response.message.is_empty() { text } else { format!("{text}: {}", response.message.trim_end()) }
}

/// How CRIU is started.
pub(super) struct Start<'a> {
    /// Whether it gets our descriptors 0, 1 and 2, which the processes it restores may inherit; else `/dev/null`.
    pub(super) stdio: bool,
    /// More descriptors to inherit, under the numbers they have here.
    pub(super) inherit: &'a [BorrowedFd<'a>],
    /// New namespaces for it, as flags of clone.
    pub(super) namespaces: u64,
}

/// CRIU at work.
pub(super) struct Worker {
    pub(super) session: Session,
    pub(super) child: sys::fork::Child,
    /// What was opened in its process.
    pub(super) opened: Vec<OwnedFd>,
}

impl Worker {
    /// Starts `criu swrk` from `$PATH`, after `prepare` has run in its process. What that opens comes back here: CRIU
    /// looks for files among the descriptors of whoever made the socket, and can only mount on what is in its own
    /// mount namespace.
    pub(super) fn start(start: &Start<'_>, prepare: impl FnOnce() -> Result<Vec<OwnedFd>>) -> Result<Worker> {
        let failed = |cause: &dyn std::fmt::Display| Error::new(format!("failed to start criu: {cause}"));
        let program = find("criu", std::env::var_os("PATH").as_deref())
            .ok_or_else(|| failed(&"executable file not found in $PATH\nhint: install CRIU 4.1 or later"))?;
        let (ours, theirs) = sys::socket::seqpacket_pair().map_err(|e| failed(&e))?;
        let (said, says) = sys::event::pipe().map_err(|e| failed(&e))?;
        let child = sys::fork::fork(start.namespaces, None, || {
            let opened = prepare().and_then(|fds| {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                sys::socket::send(&theirs, b"x", &fds).map_err(|e| failed(&e))
            });
            let error = opened.and_then(|_| become_criu(&program, &theirs, start).map_err(|e| failed(&e))).err();
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            let _ = sys::path::write_all(&says, text.as_bytes());
            127
        });
        let child = child.map_err(|e| failed(&e))?;
        // So that the end of CRIU is the end of the conversation, and its exec the end of the pipe.
        drop((theirs, says));
        let error = sys::path::read_to_end(&said, 64 * 1024).map_err(|e| failed(&e))?;
        if !error.is_empty() {
            let _ = sys::fork::wait(&child.pidfd);
            return Err(Error::new(String::from_utf8_lossy(&error)));
        }
        let (_, opened) = sys::socket::recv(&ours, &mut [0; 1]).map_err(|e| failed(&e))?;
        Ok(Worker { session: Session::new(ours), child, opened })
    }

    /// Waits for its end, and for a good one unless `force`: a pre-dump leaves CRIU waiting for the next.
    pub(super) fn finish(self, force: bool) -> Result<()> {
        drop(self.session);
        match sys::fork::wait(&self.child.pidfd) {
            Ok(exit) if exit.success() || force => Ok(()),
            Ok(exit) => Err(Error::new(format!("criu failed: {exit}"))),
            Err(error) => Err(Error::new(format!("failed to wait for criu: {error}"))),
        }
    }
}

fn become_criu(program: &Path, socket: &OwnedFd, start: &Start<'_>) -> sys::Result<()> {
    if !start.stdio {
        let null = sys::path::open("/dev/null", sys::libc::O_RDWR, 0)?;
        for number in 0..3 {
            sys::process::dup2(&null, number)?;
        }
    }
    // What our own caller left open is not for CRIU.
    sys::process::close_range(3, u32::MAX, sys::libc::CLOSE_RANGE_CLOEXEC)?;
    sys::process::set_cloexec(socket, false)?;
    for fd in start.inherit {
        sys::process::set_cloexec(fd, false)?;
    }
    sys::process::reset_signals(sys::process::ALL_SIGNALS)?;
    let arguments = ["criu".into(), "swrk".into(), socket.as_fd().as_raw_fd().to_string()];
    let arguments: Vec<CString> = arguments.into_iter().filter_map(|a: String| CString::new(a).ok()).collect();
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok());
    let program = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    sys::process::execve(&program, &arguments, &variables.collect::<Vec<_>>()).map(drop)
}

/// The program of that name, as a shell would find it; an empty entry of the path is not taken for the current directory.
fn find(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        sys::path::fstatat(None, file, 0)
            .is_ok_and(|stat| stat.st_mode & sys::libc::S_IFMT == sys::libc::S_IFREG && stat.st_mode & 0o111 != 0)
    };
    std::env::split_paths(path?).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::super::proto::Writer;
    use super::*;
    use std::thread::spawn;

    fn response(kind: u32, success: bool, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(1, kind);
        out.bool(2, success);
        fill(&mut out);
        out.into_bytes()
    }

    fn notification(script: &str) -> Vec<u8> {
        response(6, true, |out| out.message(5, |n| n.bytes(1, script.as_bytes())))
    }

    /// A CRIU that gives each answer after it has heard something; returns what it heard.
    fn criu(answers: Vec<Vec<u8>>) -> (Session, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let (ours, theirs) = sys::socket::seqpacket_pair().unwrap();
        let server = spawn(move || {
            let mut heard = Vec::new();
            for answer in answers {
                let mut bytes = vec![0; 4096];
                let (count, _) = sys::socket::recv(&theirs, &mut bytes).unwrap();
                heard.push(bytes[..count].to_vec());
                let tty = std::fs::File::open("/dev/null").unwrap();
                let fds = if answer.windows(6).any(|w| w == b"orphan") { vec![tty.as_fd()] } else { vec![] };
                sys::socket::send(&theirs, &answer, &fds).unwrap();
            }
            heard
        });
        (Session::new(ours), server)
    }

    #[test]
    fn steps_are_acknowledged() {
        let done = response(2, true, |out| out.message(4, |r| r.i32(1, 77)));
        let (session, server) = criu(vec![notification("setup-namespaces"), notification("orphan-pts-master"), done]);
        let mut steps = Vec::new();
        let result = session.run(b"request", &mut |n| {
            steps.push((n.script, n.fds.len()));
            Ok(())
        });
        assert_eq!(result.unwrap().pid, 77);
        assert_eq!(steps, [("setup-namespaces".into(), 0), ("orphan-pts-master".into(), 1)]);
        assert_eq!(server.join().unwrap()[1..], [acknowledgement(true), acknowledgement(true)]);
    }

    #[test]
    fn our_own_failure_is_the_reason() {
        let (session, server) = criu(vec![notification("setup-namespaces"), response(2, false, |out| out.i32(7, 1))]);
        let result = session.run(b"request", &mut |_| Err(Error::new("hook failed")));
        assert_eq!(result.unwrap_err().to_string(), "hook failed");
        assert_eq!(server.join().unwrap()[1], acknowledgement(false));
    }

    #[test]
    fn criu_says_why() {
        let answer = response(1, false, |out| {
            out.i32(7, 3);
            out.bytes(9, b"Error (criu/x.c:1): no\n");
        });
        let (session, server) = criu(vec![answer]);
        let text = session.run(b"request", &mut |_| Ok(())).unwrap_err().to_string();
        assert_eq!(text, "criu failed: type DUMP errno 3: Error (criu/x.c:1): no");
        server.join().unwrap();
    }

    #[test]
    fn an_end_without_an_answer() {
        let (ours, theirs) = sys::socket::seqpacket_pair().unwrap();
        let session = Session::new(ours);
        drop(theirs);
        assert!(session.run(b"request", &mut |_| Ok(())).is_err());
        let (ours, theirs) = sys::socket::seqpacket_pair().unwrap();
        sys::socket::send(&theirs, b"\xff\xff", &[]).unwrap();
        let text = Session::new(ours).features().unwrap_err().to_string();
        assert_eq!(text, "criu failed: its answer makes no sense");
    }

    #[test]
    fn versions() {
        let version = |minor| {
            response(10, true, |out| {
                out.message(10, |v| {
                    v.i32(1, 3);
                    v.i32(2, minor);
                })
            })
        };
        let (session, server) = criu(vec![version(16), version(15)]);
        session.check_version().unwrap();
        let text = session.check_version().unwrap_err().to_string();
        assert_eq!(text, "CRIU version 31500 must be 31600 or higher");
        server.join().unwrap();
    }

    #[test]
    fn programs_in_the_path() {
        assert_eq!(find("sh", Some(OsStr::new("::relative:/nowhere:/bin"))), Some("/bin/sh".into()));
        assert_eq!(find("bin", Some(OsStr::new("/:/usr"))), None, "directories are no programs");
        assert_eq!(find("sh", None), None);
    }
}
