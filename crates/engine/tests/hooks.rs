//! Hooks as callers see them: what they are given, and the words of what goes wrong. Without the test harness, since a hook is
//! made by fork, which wants a process with one thread.

#![forbid(unsafe_code)]

use offshoot_engine::hooks::{run_all, run_each};
use offshoot_engine::{Kind, hooks::state};
use offshoot_plan::HookKind::{CreateRuntime, Poststop};
use offshoot_spec::Hook;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn main() {
    let tests = [
        ("a hook gets arguments, environment, state and nothing else", gets as fn(&Dir)),
        ("errors are in runc's words", words),
        ("time is limited", limited),
        ("each hook of a list runs", each),
    ];
    for (name, test) in tests {
        test(&Dir::new());
        println!("test {name} ... ok");
    }
}

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let path = std::env::temp_dir().join(format!("offshoot-hooks-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("directory");
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn shell(script: &str) -> Hook {
    Hook { path: "/bin/sh".into(), args: ["sh", "-c", script].map(String::from).to_vec(), ..Hook::default() }
}

fn gets(dir: &Dir) {
    let file = dir.0.join("out");
    let script = format!("{{ echo $0 $1; cat; echo; env; ls /proc/self/fd; umask; }} > {}", file.display());
    let mut hook = shell(&script);
    hook.args.extend(["argv0".to_owned(), "a b".to_owned()]);
    let input = state("c1", "creating", 7, Path::new("/bundle"), &BTreeMap::new());
    // Left open across exec on purpose: a caller may have such a descriptor.
    let leak = offshoot_sys::path::open("/dev/null", offshoot_sys::libc::O_RDONLY, 0).expect("null");
    offshoot_sys::process::set_cloexec(&leak, false).expect("inheritable");
    offshoot_sys::process::umask(0o027);
    run_all(CreateRuntime, std::slice::from_ref(&hook), &input, Some(&["A=b c".to_owned()])).expect("hook");
    let expected = "argv0 a b\n{\"ociVersion\":\"1.3.0\",\"id\":\"c1\",\"status\":\"creating\",\"pid\":7,\"bundle\":\"/bundle\"}\n";
    let said = std::fs::read_to_string(&file).expect("out");
    let rest = said.strip_prefix(expected).unwrap_or_else(|| panic!("{said}"));
    assert!(rest.contains("A=b c\n") && rest.ends_with("0\n1\n2\n3\n0027\n"), "{said}");
    assert!(!rest.contains("HOME="), "{said}");
    // Its own environment comes first, the caller's last.
    hook.env = vec!["OWN=1".to_owned()];
    run_all(CreateRuntime, std::slice::from_ref(&hook), &input, Some(&["A=b".to_owned()])).expect("hook");
    let said = std::fs::read_to_string(&file).expect("out");
    assert!(said.contains("OWN=1\n") && !said.contains("A=b"), "{said}");
    hook.env.clear();
    run_all(CreateRuntime, &[hook], &input, None).expect("hook");
    assert!(std::fs::read_to_string(&file).expect("out").contains("PATH="));
}

fn words(_: &Dir) {
    let said = |hook: Hook| {
        let error = run_all(CreateRuntime, &[shell("true"), hook], b"{}", None).expect_err("a failed hook");
        assert_eq!(error.kind(), Kind::Hook);
        error.to_string().strip_prefix("error running createRuntime hook #1: ").expect("prefix").to_owned()
    };
    assert_eq!(said(shell("echo out; echo err >&2; exit 3")), "exit status 3, stdout: out\n, stderr: err\n");
    assert_eq!(said(shell("kill -SYS $$")), "signal: bad system call, stdout: , stderr: ");
    let absent = Hook { path: "/no/such".into(), ..Hook::default() };
    assert_eq!(said(absent), "fork/exec /no/such: no such file or directory");
    let text = Hook { path: "/etc/passwd".into(), ..Hook::default() };
    assert_eq!(said(text), "fork/exec /etc/passwd: permission denied");
    let long = said(shell("yes | head -c 1000000; exit 1"));
    assert!(long.starts_with("exit status 1, stdout: y\ny\n") && long.len() < 5000, "{}", long.len());
}

fn limited(_: &Dir) {
    let start = Instant::now();
    // What the hook leaves behind must not keep the runtime waiting either.
    let slow = Hook { timeout: Some(1), ..shell("sleep 30 & sleep 30") };
    let error = run_all(CreateRuntime, &[slow], b"{}", None).expect_err("a time-out");
    assert_eq!(error.to_string(), "error running createRuntime hook #0: hook ran past specified timeout of 1.0s");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    run_all(CreateRuntime, &[Hook { timeout: Some(60), ..shell("exit 0") }], b"{}", None).expect("in time");
}

fn each(_: &Dir) {
    let hooks = [shell("exit 1"), shell("exit 0"), shell("exit 2")];
    let failed: Vec<String> =
        run_each(Poststop, &hooks, b"{}", None).filter_map(Result::err).map(|error| error.to_string()).collect();
    assert_eq!(failed.len(), 2);
    assert!(failed[1].starts_with("error running poststop hook #2: exit status 2"), "{failed:?}");
}
