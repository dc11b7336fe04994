use std::os::fd::AsFd;

use nix::errno::Errno;
use offshoot_sys::fork::{Exit, fork, wait};
use offshoot_sys::seccomp::*;
use offshoot_sys::{event, path, pidfd, process};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("seccomp::a_filter_fails_a_call", a_filter_fails_a_call),
    ("seccomp::bad_programs_are_refused", bad_programs_are_refused),
    ("seccomp::what_the_kernel_knows", what_the_kernel_knows),
    ("seccomp::a_supervisor_answers", a_supervisor_answers),
];

const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;

/// `action` for one system call, all others allowed.
fn filter(nr: libc::c_long, action: u32) -> [SockFilter; 4] {
    [(0x20, 0, 0, 0), (0x15, 0, 1, nr as u32), (0x06, 0, 0, action), (0x06, 0, 0, RET_ALLOW)].map(SockFilter::from)
}

fn a_filter_fails_a_call() {
    process::set_no_new_privs().unwrap();
    assert!(load(&filter(libc::SYS_sethostname, RET_ERRNO | libc::ENOTTY as u32), FLAG_LOG).unwrap().is_none());
    assert_eq!(process::sethostname("x").unwrap_err().errno(), Errno::ENOTTY);
    assert!(load(&filter(libc::SYS_setdomainname, RET_ERRNO | 1), FLAG_TSYNC).unwrap().is_none());
}

fn bad_programs_are_refused() {
    process::set_no_new_privs().unwrap();
    assert_eq!(load(&[], 0).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(load(&[(0xffff, 0, 0, 0).into()], 0).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(load(&vec![(6, 0, 0, RET_ALLOW).into(); 70000], 0).unwrap_err().errno(), Errno::E2BIG);
    let error = load(&filter(1, 0), 1 << 30).unwrap_err();
    assert_eq!(error.to_string(), "seccomp(SECCOMP_SET_MODE_FILTER, 0x40000000, 4 instructions): invalid argument");
}

fn what_the_kernel_knows() {
    assert!(action_available(RET_ALLOW) && action_available(RET_USER_NOTIF));
    assert!(!action_available(0x1234_0000));
    assert!(flag_available(FLAG_LOG) && flag_available(FLAG_NEW_LISTENER));
    assert!(!flag_available(1 << 30) && !flag_available(1 << 40));
    assert_eq!(notification_sizes().unwrap(), (80, 24, 64));
}

fn a_supervisor_answers() {
    process::set_no_new_privs().unwrap();
    let (reader, writer) = event::pipe().unwrap();
    let child = fork(0, None, || {
        let listener = load(&filter(libc::SYS_getppid, RET_USER_NOTIF), FLAG_NEW_LISTENER).unwrap().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
        path::write_all(&writer, &number.to_ne_bytes()).unwrap();
        let copied = i32::from(process::getppid() != 4242);
        let continued = i32::from(process::getppid() == 4242);
        copied + continued
    })
    .unwrap();
    let mut number = [0; 4];
    path::read(&reader, &mut number).unwrap();
    let listener = pidfd::getfd(&child.pidfd, i32::from_ne_bytes(number)).unwrap();
    let first = receive(&listener).unwrap();
    assert_eq!((first.nr, first.pid), (libc::SYS_getppid as i32, child.pid as u32));
    assert!(is_valid(&listener, first.id));
    assert!(add_fd(&listener, first.id, reader.as_fd()).unwrap() > 2);
    respond(&listener, first.id, Response::Value(4242)).unwrap();
    assert!(!is_valid(&listener, first.id));
    let second = receive(&listener).unwrap();
    respond(&listener, second.id, Response::Continue).unwrap();
    // Answered already: the process may or may not have taken the answer yet.
    let error = respond(&listener, second.id, Response::Error(Errno::EPERM)).unwrap_err();
    assert!(matches!(error.errno(), Errno::ENOENT | Errno::EINPROGRESS), "{error}");
    assert_eq!(wait(&child.pidfd).unwrap(), Exit::Code(0));
}
