use std::os::fd::AsFd;

use nix::errno::Errno;
use offshoot_sys::bpf::*;
use offshoot_sys::fork::{Exit, fork, wait};
use offshoot_sys::path;

use crate::{Cgroup, Test, need_root};

pub const TESTS: &[Test] =
    &[("bpf::programs_come_and_go", programs_come_and_go), ("bpf::the_verifier_is_quoted", the_verifier_is_quoted)];

/// `r0 = value; exit`: all devices, or none.
fn program(value: u64) -> [u64; 2] {
    [0xb7 | value << 32, 0x95]
}

fn programs_come_and_go() {
    need_root();
    let cgroup = Cgroup::new("bpf");
    let fd = cgroup.open();
    assert_eq!(query(&fd).unwrap(), []);
    let deny = prog_load(&program(0), "Apache-2.0").unwrap();
    attach(&fd, &deny, ALLOW_MULTI, None).unwrap();
    let [id] = query(&fd).unwrap()[..] else { panic!("one program is attached") };
    let open_null = || {
        let child = fork(0, Some(fd.as_fd()), || i32::from(path::open("/dev/null", libc::O_RDONLY, 0).is_err()));
        wait(child.unwrap().pidfd).unwrap()
    };
    assert_eq!(open_null(), Exit::Code(1));
    let allow = prog_load(&program(1), "Apache-2.0").unwrap();
    let found = prog_get_fd_by_id(id).unwrap();
    attach(&fd, &allow, ALLOW_MULTI | REPLACE, Some(found.as_fd())).unwrap();
    assert_eq!(open_null(), Exit::Code(0));
    assert_ne!(query(&fd).unwrap(), [id]);
    detach(&fd, &allow).unwrap();
    assert_eq!(query(&fd).unwrap(), []);
    assert_eq!(detach(&fd, &allow).unwrap_err().errno(), Errno::ENOENT);
}

fn the_verifier_is_quoted() {
    need_root();
    // An exit without a value in r0.
    let error = prog_load(&[0x95], "Apache-2.0").unwrap_err();
    assert_eq!(error.errno(), Errno::EACCES);
    assert!(error.to_string().contains("R0 !read_ok"), "{error}");
    assert_eq!(prog_get_fd_by_id(u32::MAX).unwrap_err().errno(), Errno::ENOENT);
}
