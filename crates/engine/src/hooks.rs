//! Hooks: programs of the caller's, run at fixed places. spec: config.md#posix-platform-hooks

use crate::error::{Error, Kind, Result};
use offshoot_plan::HookKind;
use offshoot_spec::Hook;
use offshoot_sys::fork::{self, Exit};
use offshoot_sys::{Errno, errno_text, event, libc, memfd, path, pidfd, process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How much of a hook's output an error quotes, in bytes.
const OUTPUT_MAX: usize = 4096;

/// The state that a hook reads from its standard input, its keys in runc's order. spec: runtime.md#state
pub fn state(id: &str, status: &str, pid: i32, bundle: &Path, annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let mut fields = vec![
        ("ociVersion", Value::from(offshoot_spec::OCI_VERSION)),
        ("id", Value::from(id)),
        ("status", Value::from(status)),
    ];
    // A stopped container has no process.
    if pid > 0 {
        fields.push(("pid", Value::from(pid)));
    }
    fields.push(("bundle", Value::from(bundle.to_string_lossy())));
    if !annotations.is_empty() {
        fields.push(("annotations", serde_json::json!(annotations)));
    }
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// Runs all hooks of one kind in order; the first that fails ends it. A hook without an environment of its own gets
/// `env`, or the caller's.
///
/// # Errors
/// `error running KIND hook #N: CAUSE, stdout: …, stderr: …`
pub fn run_all(kind: HookKind, hooks: &[Hook], state: &[u8], env: Option<&[String]>) -> Result<()> {
    run_each(kind, hooks, state, env).collect()
}

/// [`run_all`] for a caller that goes on past a failure: each hook runs when its result is asked for.
pub fn run_each<'a>(
    kind: HookKind,
    hooks: &'a [Hook],
    state: &'a [u8],
    env: Option<&'a [String]>,
) -> impl Iterator<Item = Result<()>> + 'a {
    each(kind, hooks, state, Surroundings { env, dir: None })
}

/// [`run_all`] in the container's first process, with the working directory `dir`.
///
/// # Errors
/// As there.
pub(crate) fn run_inside(
    kind: HookKind,
    hooks: &[Hook],
    state: &[u8],
    env: &[String],
    dir: Option<BorrowedFd>,
) -> Result<()> {
    each(kind, hooks, state, Surroundings { env: Some(env), dir }).collect()
}

/// What a hook finds.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    /// The environment of a hook that has none of its own; the caller's where `None`.
    env: Option<&'a [String]>,
    /// The working directory, of a hook that runs while the container's root is made.
    dir: Option<BorrowedFd<'a>>,
}

fn each<'a>(
    kind: HookKind,
    hooks: &'a [Hook],
    state: &'a [u8],
    surroundings: Surroundings<'a>,
) -> impl Iterator<Item = Result<()>> + 'a {
    hooks.iter().enumerate().map(move |(index, hook)| {
        run(hook, state, surroundings)
            .map_err(|cause| Error::of(Kind::Hook, format!("error running {} hook #{index}: {cause}", kind.name())))
    })
}

fn run(hook: &Hook, state: &[u8], surroundings: Surroundings) -> Result<()> {
    let input = memfd::memfd("state", libc::MFD_CLOEXEC)?;
    path::write_all(&input, state)?;
    let input = rewound(input)?;
    let output = memfd::memfd("stdout", libc::MFD_CLOEXEC)?;
    let errors = memfd::memfd("stderr", libc::MFD_CLOEXEC)?;
    let (failure, report) = event::pipe()?;
    let child = fork::fork(0, None, || {
        let Err(errno) = become_hook(hook, surroundings, [&input, &output, &errors]);
        // The pipe closes with a successful exec, which leaves the caller with nothing to read.
        let _ = path::write_all(&report, errno_text(errno).as_bytes());
        1
    })?;
    drop(report);
    let exit = wait(&child.pidfd, hook.timeout)?;
    let failure = path::read_to_end(&failure, OUTPUT_MAX)?;
    if !failure.is_empty() {
        return Err(Error::new(format!("fork/exec {}: {}", hook.path, String::from_utf8_lossy(&failure))));
    }
    match (exit, hook.timeout) {
        (Some(exit), _) if exit.success() => Ok(()),
        (Some(exit), _) => Err(Error::new(format!("{exit}, stdout: {}, stderr: {}", quoted(output)?, quoted(errors)?))),
        (None, seconds) => {
            let seconds = seconds.unwrap_or_default();
            Err(Error::new(format!("hook ran past specified timeout of {seconds}.0s")))
        }
    }
}

/// A second description of a memfd, which starts at its beginning.
fn rewound(fd: OwnedFd) -> Result<OwnedFd> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = std::fs::File::from(fd);
    file.seek(SeekFrom::Start(0)).map_err(|error| Error::new(error.to_string()))?;
    Ok(file.into())
}

/// The start of what a hook wrote.
fn quoted(output: OwnedFd) -> Result<String> {
    let mut text = vec![0; OUTPUT_MAX];
    let length = path::read(rewound(output)?, &mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

fn wait(child: &OwnedFd, seconds: Option<i64>) -> Result<Option<Exit>> {
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.unsigned_abs()));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        match event::poll(&mut [(child.as_fd(), libc::POLLIN, 0)], left) {
            Err(error) if error.errno() == Errno::EINTR => {}
            Err(error) => return Err(error.into()),
            Ok(0) => {
                pidfd::send_signal(child, libc::SIGKILL)?;
                fork::wait(child)?;
                return Ok(None);
            }
            Ok(_) => return fork::wait(child).map(Some).map_err(Into::into),
        }
    }
}

/// In the child: streams, nothing else open, the program.
fn become_hook(
    hook: &Hook,
    surroundings: Surroundings,
    streams: [&OwnedFd; 3],
) -> std::result::Result<std::convert::Infallible, Errno> {
    let strings =
        |list: &[String]| -> Vec<CString> { list.iter().filter_map(|s| CString::new(s.as_str()).ok()).collect() };
    let caller: Vec<String>;
    let env = match surroundings.env {
        _ if !hook.env.is_empty() => &hook.env,
        Some(env) => env,
        None => {
            caller =
                std::env::vars_os().map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())).collect();
            &caller
        }
    };
    let args = if hook.args.is_empty() { strings(std::slice::from_ref(&hook.path)) } else { strings(&hook.args) };
    let errno = |error: offshoot_sys::Error| error.errno();
    if let Some(dir) = surroundings.dir {
        process::fchdir(dir).map_err(errno)?;
        // The container's root is made with a mask of 0, which is not meant for the hook's files.
        process::umask(0o022);
    }
    for (number, stream) in streams.into_iter().enumerate() {
        process::dup2(stream, number as i32).map_err(errno)?;
    }
    process::reset_signals(process::ALL_SIGNALS).map_err(errno)?;
    // A filter may know nothing of close_range; all that is ours closes on exec anyway.
    let _ = process::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    let program = CString::new(hook.path.as_str()).map_err(|_| Errno::EINVAL)?;
    process::execve(&program, &args, &strings(env)).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_a_pid_only_if_there_is_a_process() {
        let none = state("a", "stopped", 0, Path::new("/b"), &BTreeMap::new());
        assert_eq!(
            String::from_utf8(none).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"a","status":"stopped","bundle":"/b"}"#
        );
        let some = state("a", "creating", 7, Path::new("/b"), &BTreeMap::from([("k".into(), "v".into())]));
        assert_eq!(
            String::from_utf8(some).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"a","status":"creating","pid":7,"bundle":"/b","annotations":{"k":"v"}}"#
        );
    }
}
