//! Tests against the running kernel. Each runs in a forked child of its own, which may give up rights, change namespaces or
//! die; so this binary has no threads and no libtest. `cargo test -p offshoot-sys --test kernel [FILTER]`.

#![forbid(unsafe_code)]

mod bpf;
mod fork;
mod mount;
mod process;
mod seccomp;

use offshoot_sys::fork::{Exit, wait};
use offshoot_sys::process::exit;

/// A test, and where it cannot run the reason.
type Test = (&'static str, fn());

fn main() {
    let filter = std::env::args().nth(1).filter(|arg| !arg.starts_with('-')).unwrap_or_default();
    let tables = [fork::TESTS, mount::TESTS, process::TESTS, seccomp::TESTS, bpf::TESTS];
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    for (name, test) in tables.into_iter().flatten().filter(|(name, _)| name.contains(&filter)) {
        let child = offshoot_sys::fork::fork(0, None, || {
            test();
            0
        });
        match wait(child.expect("fork").pidfd).expect("wait") {
            Exit::Code(0) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Exit::Code(SKIPPED) => skipped += 1,
            ended => {
                println!("test {name} ... FAILED ({ended})");
                failed += 1;
            }
        }
    }
    println!("\ntest result: {passed} passed; {failed} failed; {skipped} skipped");
    std::process::exit(i32::from(failed > 0));
}

const SKIPPED: i32 = 77;

/// Ends the test, which cannot run here.
fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    exit(SKIPPED)
}

/// Skips the test unless the caller is root in the initial user namespace.
fn need_root() {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if !nix::unistd::geteuid().is_root() || !map.contains("4294967295") {
        skip("needs root in the initial user namespace");
    }
}

/// Runs `child` in new namespaces and expects it to succeed.
fn in_namespaces(flags: i32, child: impl FnOnce()) {
    let child = offshoot_sys::fork::fork(flags as u64, None, || {
        child();
        0
    });
    assert_eq!(wait(child.expect("fork").pidfd).expect("wait"), Exit::Code(0));
}

/// A new directory in the cgroup v2 hierarchy, and its removal.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let Some(root) = root else { skip("no cgroup v2 hierarchy is mounted") };
        let path = std::path::PathBuf::from(root).join(format!("offshoot-sys-{name}-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&path) {
            skip(&format!("cannot make a cgroup: {error}"));
        }
        Self(path)
    }

    fn open(&self) -> std::os::fd::OwnedFd {
        offshoot_sys::path::open(&self.0, libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("cgroup")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
