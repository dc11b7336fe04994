//! Descriptors to wait on: pipes, eventfd, signalfd, timerfd, inotify, and `poll` itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::Result;
use crate::error::owned;

/// What [`poll`] waits for and reports.
pub use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI};

/// A pipe: the end to read from, the end to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(0)
}

/// A pipe with flags such as `O_NONBLOCK`. Close-on-exec always.
pub fn pipe2(flags: i32) -> Result<(OwnedFd, OwnedFd)> {
    call!(nix::unistd::pipe2(OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC), "pipe2({flags:#x})")
}

/// A counter to wait on; `flags` are `EFD_NONBLOCK` and `EFD_SEMAPHORE`.
pub fn eventfd(value: u32, flags: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor.
    let ret = unsafe { libc::eventfd(value, flags | libc::EFD_CLOEXEC) };
    call!(owned(ret.into()), "eventfd({value}, {flags:#x})")
}

/// Waits until one of `fds` is ready, at most `timeout` (for ever where `None`). Each entry is a descriptor, the events to
/// wait for, and where the events that came are stored. Returns how many entries are ready: 0 after a time-out.
///
/// A signal does not end the wait early with an error, but it starts the time anew.
pub fn poll(fds: &mut [(BorrowedFd, i16, i16)], timeout: Option<Duration>) -> Result<usize> {
    let mut list: Vec<libc::pollfd> =
        fds.iter().map(|(fd, events, _)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 }).collect();
    let millis = timeout.map_or(-1, |t| i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: `list` is a writable array of the stated length.
    let ret = retry!(Errno::result(unsafe { libc::poll(list.as_mut_ptr(), list.len() as _, millis) }));
    let ready = call!(ret, "poll({} descriptors)", list.len())?;
    for (entry, polled) in fds.iter_mut().zip(&list) {
        entry.2 = polled.revents;
    }
    Ok(ready as usize)
}

/// A set of descriptors to wait on, itself a descriptor to wait on. man 7 epoll
pub fn epoll() -> Result<OwnedFd> {
    // SAFETY: takes an integer, returns a new descriptor.
    let ret = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    call!(owned(ret.into()), "epoll_create1()")
}

/// Adds `fd` to an [`epoll`] set, which becomes readable once each time that something happens to it (`EPOLLET`). It stays there
/// until all copies of it are closed, here and in other processes.
pub fn epoll_add(set: impl AsFd, fd: impl AsFd) -> Result<()> {
    let (set, fd) = (set.as_fd().as_raw_fd(), fd.as_fd().as_raw_fd());
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
    // SAFETY: `event` outlives the call, which takes integers beside it.
    let ret = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    call!(Errno::result(ret).map(drop), "epoll_ctl([{set}], EPOLL_CTL_ADD, [{fd}])")
}

/// Takes from an [`epoll`] set what has happened so far; says whether anything has.
pub fn epoll_drain(set: impl AsFd) -> Result<bool> {
    const ROOM: usize = 64;
    let set = set.as_fd().as_raw_fd();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; ROOM];
    let mut any = false;
    loop {
        // SAFETY: `events` is a writable array of the stated length.
        let ret = retry!(Errno::result(unsafe { libc::epoll_wait(set, events.as_mut_ptr(), ROOM as i32, 0) }));
        let count = call!(ret, "epoll_wait([{set}])")?;
        any |= count > 0;
        if (count as usize) < ROOM {
            return Ok(any);
        }
    }
}

/// A descriptor that becomes readable when one of `signals` is pending. The caller blocks them first
/// ([`block_signals`]). Non-blocking.
pub fn signalfd(signals: &[i32]) -> Result<OwnedFd> {
    let set = call!(signal_set(signals), "signalfd({signals:?})")?;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: `set` is an initialised signal set that outlives the call; -1 asks for a new descriptor.
    let ret = unsafe { libc::signalfd(-1, set.as_ref(), flags) };
    call!(owned(ret.into()), "signalfd({signals:?})")
}

/// The next pending signal of a [`signalfd`]: its number, its sender's pid and status. `None` where none is pending.
pub fn read_signal(fd: impl AsFd) -> Result<Option<libc::signalfd_siginfo>> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut bytes = [0u8; SIZE];
    match retry!(nix::unistd::read(&fd, &mut bytes)) {
        // SAFETY: the structure is plain integers, valid for any bytes, and `bytes` is exactly as long.
        Ok(SIZE) => Ok(Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })),
        Ok(_) | Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(crate::Error::new(format!("read([{}]) of a signal", fd.as_fd().as_raw_fd()), errno)),
    }
}

/// Blocks `signals` in the calling thread, on top of those already blocked.
pub fn block_signals(signals: &[i32]) -> Result<()> {
    mask(SigmaskHow::SIG_BLOCK, signals)
}

/// Unblocks `signals` in the calling thread.
pub fn unblock_signals(signals: &[i32]) -> Result<()> {
    mask(SigmaskHow::SIG_UNBLOCK, signals)
}

fn mask(how: SigmaskHow, signals: &[i32]) -> Result<()> {
    let change = || nix::sys::signal::sigprocmask(how, Some(&signal_set(signals)?), None);
    call!(change(), "sigprocmask({how:?}, {signals:?})")
}

/// nix's `Signal` knows no real-time signals, which a supervisor forwards as well.
fn signal_set(signals: &[i32]) -> nix::Result<SigSet> {
    let mut set = *SigSet::empty().as_ref();
    for &signal in signals {
        // SAFETY: `set` is an initialised signal set; a number out of range is an error, not undefined.
        Errno::result(unsafe { libc::sigaddset(&raw mut set, signal) })?;
    }
    // SAFETY: `set` is an initialised signal set.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(set) })
}

/// A timer that becomes readable once after `after`. Counts on the monotonic clock; non-blocking.
pub fn timerfd(after: Duration) -> Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: takes integers, returns a new descriptor.
    let ret = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
    let timer = call!(owned(ret.into()), "timerfd_create()")?;
    // SAFETY: `itimerspec` is plain integers, for which zero is valid.
    let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
    spec.it_value.tv_sec = after.as_secs() as _;
    // Zero would disarm the timer instead of firing at once.
    spec.it_value.tv_nsec = after.subsec_nanos().max(u32::from(after.is_zero())) as libc::c_long;
    // SAFETY: `spec` outlives the call; no old value is asked for.
    let ret = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) };
    call!(Errno::result(ret), "timerfd_settime({after:?})")?;
    Ok(timer)
}

/// A new, empty, non-blocking inotify watch list.
pub fn inotify() -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor.
    let ret = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    call!(owned(ret.into()), "inotify_init1()")
}

/// Watches `path` for the `IN_*` events of `mask`; returns the watch's number.
pub fn inotify_add_watch(fd: impl AsFd, path: impl AsRef<Path>, mask: u32) -> Result<i32> {
    let (fd, path) = (fd.as_fd().as_raw_fd(), path.as_ref());
    // SAFETY: `path` is a C string that outlives the call.
    let add = |path: &std::ffi::CStr| Errno::result(unsafe { libc::inotify_add_watch(fd, path.as_ptr(), mask) });
    call!(path.with_nix_path(add).flatten(), "inotify_add_watch([{fd}], {path:?}, {mask:#x})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{read, write_all};

    #[test]
    fn a_set_tells_each_event_once() {
        let set = epoll().unwrap();
        let (reader, writer) = pipe().unwrap();
        epoll_add(&set, &reader).unwrap();
        assert!(!epoll_drain(&set).unwrap());
        for text in [b"a", b"b"] {
            write_all(&writer, text).unwrap();
            assert_eq!(poll(&mut [(set.as_fd(), POLLIN, 0)], Some(Duration::ZERO)).unwrap(), 1);
            assert!(epoll_drain(&set).unwrap());
            assert!(!epoll_drain(&set).unwrap());
        }
    }

    #[test]
    fn poll_reports_each_entry() {
        let (reader, writer) = pipe().unwrap();
        let mut fds = [(reader.as_fd(), POLLIN, 0), (writer.as_fd(), POLLOUT, 0)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
        assert_eq!((fds[0].2, fds[1].2), (0, POLLOUT));
        assert_eq!(poll(&mut [(reader.as_fd(), POLLIN, 0)], Some(Duration::from_millis(1))).unwrap(), 0);
        drop(writer);
        let mut fds = [(reader.as_fd(), POLLIN, 0)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
        assert_eq!(fds[0].2, POLLHUP);
    }

    #[test]
    fn an_eventfd_counts() {
        let fd = eventfd(0, 0).unwrap();
        write_all(&fd, &3u64.to_ne_bytes()).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(read(&fd, &mut bytes).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(bytes), 3);
    }

    #[test]
    fn a_timer_fires() {
        for after in [Duration::ZERO, Duration::from_millis(2)] {
            let timer = timerfd(after).unwrap();
            assert_eq!(poll(&mut [(timer.as_fd(), POLLIN, 0)], Some(Duration::from_secs(5))).unwrap(), 1);
        }
    }

    #[test]
    fn signals_come_by_descriptor() {
        let (wanted, rt) = (libc::SIGUSR2, 40);
        block_signals(&[wanted, rt]).unwrap();
        let fd = signalfd(&[wanted, rt]).unwrap();
        assert!(read_signal(&fd).unwrap().is_none());
        // To this thread, since the harness has others that do not block the signal.
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), wanted) };
        let info = read_signal(&fd).unwrap().unwrap();
        assert_eq!((info.ssi_signo, info.ssi_pid), (wanted as u32, std::process::id()));
        unblock_signals(&[wanted, rt]).unwrap();
        assert_eq!(signalfd(&[1000]).unwrap_err().errno(), Errno::EINVAL);
    }

    #[test]
    fn inotify_sees_a_write() {
        let watches = inotify().unwrap();
        let dir = std::env::temp_dir();
        assert!(inotify_add_watch(&watches, &dir, libc::IN_CREATE).unwrap() > 0);
        assert!(inotify_add_watch(&watches, "/no/such/path", libc::IN_CREATE).is_err());
    }
}
