use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use offshoot_sys::fork::*;
use offshoot_sys::{event, path, pidfd, process};

use crate::{Cgroup, Test, need_root};

pub const TESTS: &[Test] = &[
    ("fork::exit_codes_and_signals", exit_codes_and_signals),
    ("fork::try_wait_does_not_block", try_wait_does_not_block),
    ("fork::what_never_ends_is_left", what_never_ends_is_left),
    ("fork::any_child_is_reaped", any_child_is_reaped),
    ("fork::a_panic_ends_the_child", a_panic_ends_the_child),
    ("fork::destructors_of_the_parent_do_not_run", destructors_of_the_parent_do_not_run),
    ("fork::threads_are_refused", threads_are_refused),
    ("fork::sharing_is_refused", sharing_is_refused),
    ("fork::new_namespaces", new_namespaces),
    ("fork::a_sibling_by_clone_parent", a_sibling_by_clone_parent),
    ("fork::a_process_hands_over_to_a_sibling", a_process_hands_over_to_a_sibling),
    ("fork::who_was_handed_over_to_forks_at_once", who_was_handed_over_to_forks_at_once),
    ("fork::into_a_cgroup", into_a_cgroup),
];

fn exit_codes_and_signals() {
    let child = fork(0, None, || 7).unwrap();
    assert_eq!(wait(&child.pidfd).unwrap(), Exit::Code(7));
    assert_eq!(wait(&child.pidfd).unwrap_err().errno(), Errno::ECHILD);
    let child = fork(0, None, || pidfd::kill(process::getpid(), libc::SIGKILL).map_or(1, |()| 2)).unwrap();
    let ended = wait_pid(child.pid).unwrap();
    assert_eq!((ended, ended.status()), (Exit::Signal(libc::SIGKILL), 137));
    assert_eq!(ended.to_string(), "signal: killed");
    assert_eq!(Exit::Code(1).to_string(), "exit status 1");
}

fn try_wait_does_not_block() {
    let (reader, writer) = event::pipe().unwrap();
    let child = fork(0, None, || path::read(&reader, &mut [0]).map_or(1, |_| 0)).unwrap();
    assert_eq!(try_wait(&child.pidfd).unwrap(), None);
    path::write_all(&writer, b"x").unwrap();
    event::poll(&mut [(child.pidfd.as_fd(), event::POLLIN, 0)], None).unwrap();
    assert_eq!(try_wait(&child.pidfd).unwrap(), Some(Exit::Code(0)));
}

fn what_never_ends_is_left() {
    let (reader, _writer) = event::pipe().unwrap();
    let never = || path::read(&reader, &mut [0]).map(drop);
    assert_eq!(within(Duration::from_millis(20), never).unwrap_err().errno(), Errno::ETIMEDOUT);
    let long = Duration::from_secs(100);
    within(long, || Ok(())).unwrap();
    let absent = || path::open("/proc/none", libc::O_RDONLY, 0).map(drop);
    assert_eq!(within(long, absent).unwrap_err().errno(), Errno::ENOENT);
    // The first is dead.
    assert!(matches!(wait_any(), Exit::Signal(libc::SIGKILL)));
}

fn wait_any() -> Exit {
    loop {
        if let Some((_, exit)) = try_wait_any().unwrap() {
            return exit;
        }
    }
}

fn any_child_is_reaped() {
    assert_eq!(try_wait_any().unwrap_err().errno(), Errno::ECHILD);
    let child = fork(0, None, || 3).unwrap();
    event::poll(&mut [(child.pidfd.as_fd(), event::POLLIN, 0)], None).unwrap();
    assert_eq!(try_wait_any().unwrap(), Some((child.pid, Exit::Code(3))));
}

fn a_panic_ends_the_child() {
    std::panic::set_hook(Box::new(|_| {}));
    let child = fork(0, None, || panic!("as intended")).unwrap();
    let _ = std::panic::take_hook();
    // An unwinding build exits, one with panic=abort is killed.
    assert!(matches!(wait(&child.pidfd).unwrap(), Exit::Code(255) | Exit::Signal(libc::SIGABRT)));
}

fn destructors_of_the_parent_do_not_run() {
    struct Loud(std::os::fd::OwnedFd);
    impl Drop for Loud {
        fn drop(&mut self) {
            path::write_all(&self.0, b"x").unwrap();
        }
    }
    let (reader, writer) = event::pipe().unwrap();
    let loud = Loud(writer);
    let child = fork(0, None, || 0).unwrap();
    wait(&child.pidfd).unwrap();
    let mut fds = [(reader.as_fd(), event::POLLIN, 0)];
    assert_eq!(event::poll(&mut fds, Some(std::time::Duration::ZERO)).unwrap(), 0);
    drop(loud);
    assert_eq!(path::read_to_end(&reader, 8).unwrap(), b"x");
}

fn threads_are_refused() {
    let (tell, wait_for) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait_for.recv());
    let error = fork(0, None, || 0).unwrap_err();
    assert_eq!(error.errno(), Errno::EBUSY);
    drop(tell);
    let _ = thread.join().unwrap();
    // A joined thread may still be on its way out of the kernel.
    for _ in 0..1000 {
        match fork(0, None, || 0) {
            Ok(child) => {
                wait(child.pidfd).unwrap();
                return;
            }
            Err(error) => assert_eq!(error.errno(), Errno::EBUSY),
        }
        std::thread::yield_now();
    }
    panic!("still refused after the thread has ended");
}

fn sharing_is_refused() {
    for flag in [libc::CLONE_VM, libc::CLONE_FILES, libc::CLONE_FS, libc::CLONE_VFORK, libc::CLONE_SETTLS] {
        assert_eq!(fork(flag as u64, None, || 0).unwrap_err().errno(), Errno::EINVAL);
    }
}

fn new_namespaces() {
    need_root();
    let flags = CLONE_NEWUSER
        | CLONE_NEWNS
        | CLONE_NEWPID
        | CLONE_NEWIPC
        | CLONE_NEWUTS
        | CLONE_NEWNET
        | CLONE_NEWCGROUP
        | CLONE_NEWTIME;
    let child = fork(flags as u64, None, || i32::from(process::getpid() != 1 || process::getppid() != 0)).unwrap();
    assert_eq!(wait(&child.pidfd).unwrap(), Exit::Code(0));
}

fn a_sibling_by_clone_parent() {
    let (reader, writer) = event::pipe().unwrap();
    let child = fork(0, None, || {
        let sibling = fork(CLONE_PARENT as u64, None, || 5).unwrap();
        path::write_all(&writer, &sibling.pid.to_ne_bytes()).unwrap();
        0
    })
    .unwrap();
    let mut pid = [0; 4];
    assert_eq!(path::read(&reader, &mut pid).unwrap(), 4);
    assert_eq!(wait_pid(i32::from_ne_bytes(pid)).unwrap(), Exit::Code(5));
    assert_eq!(wait(child.pidfd).unwrap(), Exit::Code(0));
}

fn who_was_handed_over_to_forks_at_once() {
    for _ in 0..200 {
        let (reader, writer) = event::pipe().unwrap();
        let child = fork(0, None, || {
            let error = hand_over(0, |pid| {
                path::write_all(&writer, &pid.to_ne_bytes()).unwrap();
                fork(0, None, || 7).and_then(|child| wait(&child.pidfd)).map_or(1, Exit::status)
            });
            panic!("{error}")
        })
        .unwrap();
        let mut pid = [0; 4];
        assert_eq!(path::read(&reader, &mut pid).unwrap(), 4);
        assert_eq!(wait(&child.pidfd).unwrap(), Exit::Code(0));
        assert_eq!(wait_pid(i32::from_ne_bytes(pid)).unwrap(), Exit::Code(7));
    }
}

fn a_process_hands_over_to_a_sibling() {
    let (reader, writer) = event::pipe().unwrap();
    let words = vec!["kept".to_owned(); 100];
    let child = fork(0, None, || {
        let parent = process::getppid();
        let error = hand_over(CLONE_NEWPID as u64, |pid| {
            // In its own pid namespace it is the first, and sees no parent; the other's memory is its own.
            let own = process::getpid() == 1 && process::getppid() == 0 && parent > 0 && words[99] == "kept";
            path::write_all(&writer, &pid.to_ne_bytes()).unwrap();
            if own { 5 } else { 6 }
        });
        panic!("{error}")
    })
    .unwrap();
    let mut pid = [0; 4];
    assert_eq!(path::read(&reader, &mut pid).unwrap(), 4);
    assert_eq!(wait(child.pidfd).unwrap(), Exit::Code(0));
    assert_eq!(wait_pid(i32::from_ne_bytes(pid)).unwrap(), Exit::Code(5));
    let error = hand_over(CLONE_NEWTIME as u64, |_| 0);
    assert_eq!(error.errno(), Errno::EINVAL);
}

fn into_a_cgroup() {
    let cgroup = Cgroup::new("fork");
    let fd = cgroup.open();
    let child = fork(0, Some(fd.as_fd()), || {
        let mine = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        i32::from(!mine.lines().any(|line| line.starts_with("0::") && line.contains("offshoot-sys-fork")))
    })
    .unwrap();
    assert_eq!(wait(&child.pidfd).unwrap(), Exit::Code(0));
    let null = path::open("/dev/null", libc::O_RDONLY, 0).unwrap();
    let error = fork(0, Some(null.as_fd()), || 0).unwrap_err();
    assert_eq!(error.errno(), Errno::EBADF);
    assert!(error.to_string().starts_with("clone3(CLONE_INTO_CGROUP ["), "{error}");
}
