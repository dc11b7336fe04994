use std::os::unix::net::UnixListener;

use super::*;
use crate::path::{fstat, read};

#[test]
fn descriptors_travel() {
    let (left, right) = seqpacket_pair().unwrap();
    let (reader, writer) = crate::event::pipe().unwrap();
    assert_eq!(send(&left, b"hello", &[reader.as_fd(), writer.as_fd()]).unwrap(), 5);
    let mut buf = [0; 16];
    let (len, fds) = recv(&right, &mut buf).unwrap();
    assert_eq!((&buf[..len], fds.len()), (&b"hello"[..], 2));
    assert_eq!(fstat(&fds[0]).unwrap().st_ino, fstat(&reader).unwrap().st_ino);
    let flags = nix::fcntl::fcntl(&fds[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    assert_eq!(try_recv(&right, &mut buf).unwrap_err().errno(), Errno::EAGAIN);
}

#[test]
fn half_a_message_is_an_error() {
    let (left, right) = seqpacket_pair().unwrap();
    let (reader, _writer) = crate::event::pipe().unwrap();
    send(&left, b"too long", &[reader.as_fd()]).unwrap();
    assert_eq!(recv(&right, &mut [0; 3]).unwrap_err().errno(), Errno::EMSGSIZE);
    send(&left, b"next", &[]).unwrap();
    assert_eq!(recv(&right, &mut [0; 8]).unwrap().0, 4);
}

#[test]
fn a_closed_peer_is_the_end_and_no_signal() {
    let (left, right) = stream_pair().unwrap();
    drop(left);
    assert_eq!(recv(&right, &mut [0; 3]).unwrap().0, 0);
    assert_eq!(send(&right, b"x", &[]).unwrap_err().errno(), Errno::EPIPE);
}

#[test]
fn sockets_at_long_paths() {
    let dir = std::env::temp_dir().join(format!("offshoot-sys-{}-{}", std::process::id(), "d".repeat(120)));
    std::fs::create_dir_all(&dir).unwrap();
    // The listener's own address has the same limit.
    let handle = crate::path::open(&dir, libc::O_PATH, 0).unwrap();
    let listener = UnixListener::bind(crate::path::fd_path(&handle).join("socket")).unwrap();
    let socket = connect_unix(dir.join("socket")).unwrap();
    let (peer, _) = listener.accept().unwrap();
    send(&socket, b"x", &[]).unwrap();
    assert_eq!(read(&peer, &mut [0; 4]).unwrap(), 1);
    let (pid, ..) = peer_credentials(&peer).unwrap();
    assert_eq!(pid, std::process::id() as i32);
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(connect_unix(dir.join("socket")).unwrap_err().to_string().ends_with("no such file or directory"));
}

#[test]
fn a_listener_may_come_late_but_not_never() {
    let path = std::env::temp_dir().join(format!("offshoot-test-{}-late", std::process::id()));
    let late = path.clone();
    let listener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        UnixListener::bind(late).unwrap()
    });
    connect_unix_soon(&path).unwrap();
    drop(listener.join().unwrap());
    assert_eq!(connect_unix_soon(&path).unwrap_err().errno(), Errno::ECONNREFUSED);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(connect_unix_soon(&path).unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn the_kernel_answers_on_netlink() {
    let socket = netlink(libc::NETLINK_ROUTE).unwrap();
    // An RTM_GETLINK dump, the least request there is: header and a family.
    let mut request = Vec::new();
    request.extend(17u32.to_ne_bytes());
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend(1u32.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.push(0);
    send(&socket, &request, &[]).unwrap();
    let mut buf = vec![0; 65536];
    let len = netlink_recv(&socket, &mut buf).unwrap();
    assert!(len > 16);
    assert_eq!(u32::from_ne_bytes([buf[8], buf[9], buf[10], buf[11]]), 1);
}
