//! BPF programs on a cgroup that decide about devices (man 2 bpf).

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::owned;
use crate::{Error, Result};

/// Other programs of the cgroup and its descendants stay.
pub const ALLOW_MULTI: u32 = 2;
/// Take the place of the program given.
pub const REPLACE: u32 = 4;

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;

/// Attempts at a call that the verifier interrupts with EAGAIN when a signal is pending.
const ATTEMPTS: usize = 5;

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative: u32,
    expected_revision: u64,
}

/// All 64 bytes: Linux 6.17 and later write `revision` whatever length they were told.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}
const _: () = assert!(size_of::<Query>() == 64);

#[repr(C)]
#[derive(Default)]
struct GetFd {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}

/// # Safety
/// `T` is the whole of what `command` reads and writes, and its pointers are valid for what `command` does with them.
unsafe fn bpf<T>(command: u32, attr: &mut T) -> nix::Result<libc::c_long> {
    for _ in 1..ATTEMPTS {
        // SAFETY: as the caller promises.
        match Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) }) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
    // SAFETY: as the caller promises.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

/// Loads a device program of 8-byte instructions. The error carries what the kernel's verifier said.
pub fn prog_load(insns: &[u64], licence: &str) -> Result<OwnedFd> {
    let text = || format!("bpf(BPF_PROG_LOAD, {} instructions)", insns.len());
    let (Ok(insn_cnt), Ok(licence)) = (u32::try_from(insns.len()), CString::new(licence)) else {
        return Err(Error::new(text(), Errno::EINVAL));
    };
    let mut attr = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt,
        insns: insns.as_ptr() as u64,
        license: licence.as_ptr() as u64,
        expected_attach_type: CGROUP_DEVICE,
        ..Load::default()
    };
    attr.prog_name[..8].copy_from_slice(b"offshoot");
    // SAFETY: `attr` points at `insn_cnt` instructions and a C string, which outlive the call; it asks for no log.
    let errno = match unsafe { bpf(PROG_LOAD, &mut attr) } {
        Ok(fd) => return call!(owned(fd), "bpf(BPF_PROG_LOAD)"),
        Err(errno) => errno,
    };
    let mut log = vec![0u8; 65536];
    attr.log_level = 1;
    attr.log_size = log.len() as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: as above, and `log` is writable for `log_size` bytes.
    if let Ok(fd) = unsafe { bpf(PROG_LOAD, &mut attr) } {
        return call!(owned(fd), "bpf(BPF_PROG_LOAD)");
    }
    let log = String::from_utf8_lossy(&log[..log.iter().position(|b| *b == 0).unwrap_or(0)]).trim_end().to_string();
    Err(Error::new(text(), errno).with_note(log))
}

/// Attaches a device program to a cgroup directory; with [`REPLACE`] in place of `replace`.
pub fn attach(cgroup: impl AsFd, prog: impl AsFd, flags: u32, replace: Option<BorrowedFd>) -> Result<()> {
    let (cgroup, prog) = (cgroup.as_fd().as_raw_fd(), prog.as_fd().as_raw_fd());
    let mut attr = Attach {
        target_fd: cgroup as u32,
        attach_bpf_fd: prog as u32,
        attach_type: CGROUP_DEVICE,
        attach_flags: flags,
        replace_bpf_fd: replace.map_or(0, |fd| fd.as_raw_fd() as u32),
        ..Attach::default()
    };
    // SAFETY: `attr` is the whole attribute of this command and holds no pointers.
    let ret = unsafe { bpf(PROG_ATTACH, &mut attr) };
    call!(ret, "bpf(BPF_PROG_ATTACH, [{cgroup}], [{prog}], {flags:#x})").map(drop)
}

/// Detaches a device program from a cgroup directory.
pub fn detach(cgroup: impl AsFd, prog: impl AsFd) -> Result<()> {
    let (cgroup, prog) = (cgroup.as_fd().as_raw_fd(), prog.as_fd().as_raw_fd());
    let mut attr = Attach {
        target_fd: cgroup as u32,
        attach_bpf_fd: prog as u32,
        attach_type: CGROUP_DEVICE,
        ..Attach::default()
    };
    // SAFETY: `attr` is the whole attribute of this command and holds no pointers.
    let ret = unsafe { bpf(PROG_DETACH, &mut attr) };
    call!(ret, "bpf(BPF_PROG_DETACH, [{cgroup}], [{prog}])").map(drop)
}

/// The numbers of the device programs attached to a cgroup directory itself, in the order they run.
pub fn query(cgroup: impl AsFd) -> Result<Vec<u32>> {
    let cgroup = cgroup.as_fd().as_raw_fd();
    let mut ids = vec![0u32; 64];
    loop {
        let mut attr = Query {
            target_fd: cgroup as u32,
            attach_type: CGROUP_DEVICE,
            prog_ids: ids.as_mut_ptr() as u64,
            prog_cnt: ids.len() as u32,
            ..Query::default()
        };
        // SAFETY: `attr` is the whole attribute of this command and points at `prog_cnt` writable numbers.
        match unsafe { bpf(PROG_QUERY, &mut attr) } {
            Ok(_) => {
                ids.truncate(attr.prog_cnt as usize);
                return Ok(ids);
            }
            // The kernel says how many there are; the limit is its own for one cgroup, 64, and then some.
            Err(Errno::ENOSPC) if ids.len() < 4096 => ids = vec![0; ids.len() * 4],
            Err(errno) => return Err(Error::new(format!("bpf(BPF_PROG_QUERY, [{cgroup}])"), errno)),
        }
    }
}

/// A descriptor of the program with this number.
pub fn prog_get_fd_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = GetFd { prog_id: id, ..GetFd::default() };
    // SAFETY: `attr` is the whole attribute of this command and holds no pointers.
    let ret = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) };
    call!(ret.and_then(owned), "bpf(BPF_PROG_GET_FD_BY_ID, {id})")
}
