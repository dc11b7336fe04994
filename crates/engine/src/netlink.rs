//! rtnetlink, man 7 rtnetlink: just what a container needs.

use crate::error::{Error, Result};
use offshoot_sys::{Errno, errno_text, libc, path, socket};

/// The loopback interface is the first of every network namespace.
const LOOPBACK_INDEX: i32 = 1;

/// Brings up `lo` of the caller's network namespace.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn loopback_up() -> Result<()> {
    let netlink = socket::netlink(libc::NETLINK_ROUTE)?;
    let mut message = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port.
    message.extend(32u32.to_ne_bytes());
    message.extend((libc::RTM_NEWLINK).to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    // struct ifinfomsg: family, padding, type, index, flags, change mask.
    message.extend([0; 4]);
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend((libc::IFF_UP as u32).to_ne_bytes());
    message.extend((libc::IFF_UP as u32).to_ne_bytes());
    path::write_all(&netlink, &message)?;
    let mut answer = [0; 256];
    let length = socket::netlink_recv(&netlink, &mut answer)?;
    // struct nlmsgerr follows the header: a negative errno, 0 for an acknowledgement.
    let code =
        answer.get(16..20).filter(|_| length >= 20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(Error::new(format!("RTM_NEWLINK lo: {}", errno_text(Errno::from_raw(-code))))),
        None => Err(Error::new("RTM_NEWLINK lo: the kernel's answer is too short")),
    }
}
