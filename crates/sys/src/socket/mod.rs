//! Sockets between processes, with descriptors as cargo, and netlink to the kernel.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockType, UnixAddr, connect,
    getsockopt, recvmsg, sendmsg, socketpair, sockopt,
};

use crate::error::owned;
use crate::{Error, Result};

/// The kernel's `SCM_MAX_FD`: more descriptors do not travel in one message.
pub const MAX_FDS: usize = 253;

/// A connected pair that keeps message boundaries.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    call!(pair, "socketpair(AF_UNIX, SOCK_SEQPACKET)")
}

/// A connected pair of byte streams.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    call!(pair, "socketpair(AF_UNIX, SOCK_STREAM)")
}

/// Sends one message with copies of `fds`; returns how many bytes went. A closed peer is `EPIPE`, not a signal.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd]) -> Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    let raw: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let ret = retry!(sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None));
    call!(ret, "sendmsg([{socket}], {} bytes, {} descriptors)", bytes.len(), fds.len())
}

/// Receives one message: its length and the descriptors with it, close-on-exec. Length 0 is the end. A message longer than
/// `buf` is `EMSGSIZE`: half a message is worth nothing.
pub fn recv(socket: impl AsFd, buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    receive(socket, buf, MsgFlags::empty())
}

/// [`recv`] that fails with `EAGAIN` where no message waits.
pub fn try_recv(socket: impl AsFd, buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    receive(socket, buf, MsgFlags::MSG_DONTWAIT)
}

fn receive(socket: impl AsFd, buf: &mut [u8], flags: MsgFlags) -> Result<(usize, Vec<OwnedFd>)> {
    let socket = socket.as_fd().as_raw_fd();
    let mut control = nix::cmsg_space!([i32; MAX_FDS]);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut fds = Vec::new();
    let received = {
        let mut slices = [IoSliceMut::new(buf)];
        loop {
            match recvmsg::<()>(socket, &mut slices, Some(&mut control), flags) {
                Err(Errno::EINTR) => {}
                Err(errno) => break Err(errno),
                Ok(message) => {
                    if let Ok(control) = message.cmsgs() {
                        for part in control {
                            if let ControlMessageOwned::ScmRights(raw) = part {
                                // SAFETY: the kernel has just made these descriptors for this process.
                                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                            }
                        }
                    }
                    let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                    break if cut { Err(Errno::EMSGSIZE) } else { Ok(message.bytes) };
                }
            }
        }
    };
    Ok((call!(received, "recvmsg([{socket}])")?, fds))
}

/// Connects to the unix socket at `path`, of any length.
pub fn connect_unix(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let kind = SockType::Stream;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None);
    let socket = call!(socket, "socket(AF_UNIX, SOCK_STREAM)")?;
    // An address holds 107 bytes; a longer path goes through a descriptor of the socket's file.
    let (address, _file) = match UnixAddr::new(path) {
        Err(Errno::ENAMETOOLONG) => {
            let file = crate::path::open(path, libc::O_PATH, 0)?;
            (UnixAddr::new(&crate::path::fd_path(&file)), Some(file))
        }
        address => (address, None),
    };
    let address = call!(address, "connect({path:?})")?;
    call!(retry!(connect(socket.as_raw_fd(), &address)), "connect({path:?})")?;
    Ok(socket)
}

/// As [`connect_unix`], to a listener that its caller may have started at the same time, as scripts do, runc's own test suite among
/// them: runc takes tens of milliseconds to come that far. Waits up to 100 ms for it.
pub fn connect_unix_soon(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let end = Instant::now() + Duration::from_millis(100);
    loop {
        match connect_unix(path) {
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ECONNREFUSED) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

/// Who is at the other end of a unix socket: pid, uid and gid when it connected.
pub fn peer_credentials(socket: impl AsFd) -> Result<(i32, u32, u32)> {
    let credentials = getsockopt(&socket, sockopt::PeerCredentials);
    let credentials = call!(credentials, "getsockopt([{}], SO_PEERCRED)", socket.as_fd().as_raw_fd())?;
    Ok((credentials.pid(), credentials.uid(), credentials.gid()))
}

/// A socket to the kernel's netlink `protocol` (`NETLINK_ROUTE`, …), bound, with the kernel's own error texts switched on.
pub fn netlink(protocol: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor.
    let ret = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    let socket = call!(owned(ret.into()), "socket(AF_NETLINK, {protocol})")?;
    let ret = nix::sys::socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0));
    call!(ret, "bind(AF_NETLINK, {protocol})")?;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: reads an int of the stated length. A kernel without these options gives shorter answers, no more.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
    }
    Ok(socket)
}

/// Receives one netlink datagram of the kernel; what any other process sent is dropped. A datagram longer than `buf` is
/// `EMSGSIZE`.
pub fn netlink_recv(socket: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    loop {
        let mut slices = [IoSliceMut::new(buf)];
        let message = retry!(recvmsg::<NetlinkAddr>(fd, &mut slices, None, MsgFlags::empty()));
        let message = call!(message, "recvmsg([{fd}])")?;
        if message.address.is_none_or(|from| from.pid() != 0) {
            continue;
        }
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(Error::new(format!("recvmsg([{fd}])"), Errno::EMSGSIZE));
        }
        return Ok(message.bytes);
    }
}

#[cfg(test)]
mod tests;
