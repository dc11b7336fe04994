//! Making processes without exec, and waiting for them by descriptor.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::{Error, Result, event, pidfd, process};

/// `clone3` flags for new namespaces, and the two that change how the child is made.
pub use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_PARENT,
};
/// A new time namespace; the C library's constant is missing from some targets.
pub const CLONE_NEWTIME: i32 = 0x80;

/// Flags with which a child is still an independent copy of its parent. Any other (`CLONE_VM`, `CLONE_FILES`, …) would
/// share memory or descriptors with it behind Rust's back.
const ALLOWED: u64 = (CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWUSER
    | CLONE_NEWUTS
    | CLONE_NEWTIME
    | CLONE_PARENT) as u32 as u64;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process made by [`fork`].
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd: never refers to another process, and polls readable when this one ends.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this value.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The exit status as a shell reports it: the code, or 128 plus the signal.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether the process exited with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    /// Go's words, which callers of runc match: `exit status 1`, `signal: bad system call`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal: {}", crate::signal_text(*signal)),
        }
    }
}

/// Ends the process with 255 should the child's closure unwind: nothing above it belongs to the child.
struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        crate::process::exit(255)
    }
}

/// Makes a child with `clone3`: in the new namespaces that `flags` names and, where given, in `cgroup` (a cgroup v2
/// directory, `CLONE_INTO_CGROUP`). The child runs `child` and exits with its value; it never returns from here.
///
/// The calling process must have a single thread, or the child would inherit locks whose holders do not exist in it; it is
/// refused with `EBUSY` otherwise. Flags that share memory or descriptors with the parent are refused with `EINVAL`.
pub fn fork(flags: u64, cgroup: Option<BorrowedFd>, child: impl FnOnce() -> i32) -> Result<Child> {
    let text = || match cgroup {
        Some(cgroup) => format!("clone3({}CLONE_INTO_CGROUP [{}])", Flags(flags), cgroup.as_raw_fd()),
        None => format!("clone3({}CLONE_PIDFD)", Flags(flags)),
    };
    if flags & !ALLOWED != 0 {
        return Err(Error::new(text(), Errno::EINVAL));
    }
    if !single_threaded()? {
        return Err(Error::new("clone3 in a process with several threads", Errno::EBUSY));
    }
    let mut pidfd: i32 = -1;
    // SAFETY: `clone_args` is plain integers, for which zero is valid; the fields that libc may add later stay zero.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | CLONE_PIDFD;
    args.pidfd = &raw mut pidfd as u64;
    // man 2 clone: with CLONE_PARENT the child inherits the caller's own exit signal and may not name one.
    if flags & CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM, which ALLOWED keeps out, the child runs on its own copy of memory and stack. The caller has
    // one thread (checked above), so no lock in that copy is held by a thread the child lacks. `args` lives through the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match Errno::result(pid) {
        Ok(0) => {
            let guard = ExitOnUnwind;
            let status = child();
            std::mem::forget(guard);
            crate::process::exit(status)
        }
        // SAFETY: clone3 stored a new descriptor in `pidfd`, as CLONE_PIDFD asks.
        Ok(pid) => Ok(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        Err(errno) => Err(Error::new(text(), errno)),
    }
}

/// Lets a new process go on with this one's memory, in the new namespaces that `flags` names (not a time namespace: entering
/// one takes a copy of the memory), and ends this one with 0. The other is this one's sibling, as with `CLONE_PARENT`. It runs
/// `child`, with its pid in this one's pid namespace, and exits with its value. Returns where that fails only.
///
/// A fork before an exit copies what is thrown away at once; and what the two then change, once more.
/// As for [`fork`], the calling process must have a single thread.
pub fn hand_over(flags: u64, child: impl FnOnce(i32) -> i32) -> Error {
    let flags = flags | CLONE_PARENT as u64;
    let text = || format!("clone({}CLONE_VM)", Flags(flags));
    if flags & !ALLOWED != 0 || flags & CLONE_NEWTIME as u64 != 0 {
        return Error::new(text(), Errno::EINVAL);
    }
    match single_threaded() {
        Ok(true) => {}
        Ok(false) => return Error::new("clone in a process with several threads", Errno::EBUSY),
        Err(error) => return error,
    }
    let stack = match Mapping::stack() {
        Ok(stack) => stack,
        Err(errno) => return Error::new("mmap of a stack", errno),
    };
    let mut heir = Heir { child: Some(child), pid: 0 };
    let (heir, pid) = (&raw mut heir, &raw mut heir.pid);
    let flags = flags as i32 | libc::CLONE_VM | libc::CLONE_PARENT_SETTID;
    // SAFETY: the child runs on a stack of its own, and what it finds through `heir` stays in this process's memory, which is
    // then its own, as this function does not return: its process ends here, and on the way writes to nothing but the dead part
    // of its stack. It has one thread (checked above), so no lock is held by a thread that the child lacks. The kernel has
    // stored the pid before the child runs.
    let made = unsafe { libc::clone(inherit_from::<_>(heir), stack.end(), flags, heir.cast(), pid) };
    match Errno::result(made) {
        Ok(_) => crate::process::exit(0),
        Err(errno) => Error::new(text(), errno),
    }
}

/// What the child of [`hand_over`] is to do.
struct Heir<F> {
    child: Option<F>,
    pid: i32,
}

/// The function that does it.
fn inherit_from<F: FnOnce(i32) -> i32>(_: *mut Heir<F>) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
    extern "C" fn run<F: FnOnce(i32) -> i32>(heir: *mut libc::c_void) -> libc::c_int {
        let guard = ExitOnUnwind;
        // SAFETY: `hand_over` gives its own, which nobody else uses any more.
        let heir = unsafe { &mut *heir.cast::<Heir<F>>() };
        let status = heir.child.take().map_or(255, |child| child(heir.pid));
        std::mem::forget(guard);
        crate::process::exit(status)
    }
    run::<F>
}

/// Memory for a stack; given back when dropped.
struct Mapping {
    start: *mut libc::c_void,
}

impl Mapping {
    /// As much as is never used. Only what is touched takes memory.
    const SIZE: usize = 1 << 20;
    /// The lowest part, which stops what would run over: as large as any page.
    const GUARD: usize = 64 << 10;

    fn stack() -> std::result::Result<Mapping, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel likes it.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), Mapping::SIZE, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let mapping = Mapping { start };
        // SAFETY: part of that mapping, which nobody uses yet.
        Errno::result(unsafe { libc::mprotect(start, Mapping::GUARD, libc::PROT_NONE) }).map(|_| mapping)
    }

    fn end(&self) -> *mut libc::c_void {
        self.start.wrapping_byte_add(Mapping::SIZE)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `stack`, and no process was made that would use it.
        unsafe { libc::munmap(self.start, Mapping::SIZE) };
    }
}

/// Whether the calling process has one thread and shares its memory with nobody.
///
/// `unshare` of memory does nothing in such a process and fails with EINVAL in any other (man 2 unshare, CLONE_VM). Where a
/// sandbox forbids the call, the link count of the task directory tells: two and one for each thread.
fn single_threaded() -> Result<bool> {
    let end = Instant::now() + GOING;
    loop {
        // SAFETY: unsharing memory that nobody shares changes nothing; otherwise the call fails and changes nothing either.
        match Errno::result(unsafe { libc::unshare(libc::CLONE_VM) }) {
            Ok(_) => return Ok(true),
            Err(Errno::EINVAL) if Instant::now() < end => std::thread::sleep(Duration::from_micros(200)),
            Err(Errno::EINVAL) => return Ok(false),
            Err(_) => {
                let tasks = call!(nix::sys::stat::stat("/proc/self/task"), "stat(\"/proc/self/task\")")?;
                return Ok(tasks.st_nlink == 3);
            }
        }
    }
}

/// How long a process may still have this one's memory that is about to let it go: who ends after [`hand_over`], and, for a moment,
/// what was started by `vfork` and has executed its program.
const GOING: Duration = Duration::from_secs(1);

/// Has a child do what may never end, such as to use a file system that somebody else serves. One that has not done it within
/// `patience` is killed, and left to whoever reaps orphans if even that does not end it: `ETIMEDOUT`.
/// As for [`fork`], the calling process must have a single thread.
pub fn within(patience: Duration, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let failed = |errno| Err(Error::new(format!("a child with {} s for it", patience.as_secs_f32()), errno));
    // An errno fits into an exit status.
    let child = fork(0, None, || {
        // Nobody else would end it.
        let done = process::set_pdeathsig(libc::SIGKILL).and_then(|()| work());
        done.map_or_else(|error| error.errno() as i32, |()| 0)
    })?;
    let done = event::poll(&mut [(child.pidfd.as_fd(), event::POLLIN, 0)], Some(patience))? > 0;
    if !done {
        pidfd::send_signal(&child.pidfd, libc::SIGKILL)?;
        return failed(Errno::ETIMEDOUT);
    }
    match wait(&child.pidfd)? {
        Exit::Code(0) => Ok(()),
        Exit::Code(errno) => failed(Errno::from_raw(errno)),
        Exit::Signal(_) => failed(Errno::EINTR),
    }
}

/// Waits until the child of `pidfd` has ended, and reaps it.
pub fn wait(pidfd: impl AsFd) -> Result<Exit> {
    let fd = pidfd.as_fd().as_raw_fd();
    loop {
        if let Some((_, exit)) = waitid(libc::P_PIDFD, fd as u32, 0)? {
            return Ok(exit);
        }
    }
}

/// Reaps the child of `pidfd` if it has ended; `None` while it runs.
pub fn try_wait(pidfd: impl AsFd) -> Result<Option<Exit>> {
    Ok(waitid(libc::P_PIDFD, pidfd.as_fd().as_raw_fd() as u32, libc::WNOHANG)?.map(|(_, exit)| exit))
}

/// Waits until the child `pid` has ended, and reaps it.
pub fn wait_pid(pid: i32) -> Result<Exit> {
    loop {
        if let Some((_, exit)) = waitid(libc::P_PID, pid as u32, 0)? {
            return Ok(exit);
        }
    }
}

/// Reaps any one child that has ended, as a subreaper must: its pid and how it ended. `None` while all run; `ECHILD` where
/// there is no child.
pub fn try_wait_any() -> Result<Option<(i32, Exit)>> {
    waitid(libc::P_ALL, 0, libc::WNOHANG)
}

/// The pid of any one child that has ended, which stays to be reaped. `None` while all run; `ECHILD` where there is no child.
pub fn peek_any() -> Result<Option<i32>> {
    Ok(waitid(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT)?.map(|(pid, _)| pid))
}

fn waitid(kind: libc::idtype_t, id: u32, flags: i32) -> Result<Option<(i32, Exit)>> {
    // SAFETY: `siginfo_t` is plain data, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a writable siginfo_t that outlives the call.
    let ret = retry!(Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) }));
    call!(ret, "waitid({}, {id})", if kind == libc::P_PIDFD { "P_PIDFD" } else { "P_PID" })?;
    // SAFETY: after a successful waitid the kernel has filled the SIGCHLD fields, or left them zero (WNOHANG, none ended).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some((pid, Exit::Code(status))),
        (_, _) => Some((pid, Exit::Signal(status))),
    })
}

/// Prints namespace flags by name, each followed by `|`.
struct Flags(u64);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::process::clone_names(self.0))?;
        if self.0 != 0 { f.write_str("|") } else { Ok(()) }
    }
}
