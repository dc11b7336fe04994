//! Network devices: the container's loopback, and host devices that move into it. spec: config-linux.md#network-devices

use crate::error::{Context, Error, Result};
use crate::netlink::{Message, Request, Route, word};
use offshoot_sys::{Errno, fork, libc, path, process, socket};
use std::os::fd::{AsFd, OwnedFd};

/// The loopback interface is the first of every network namespace.
const LOOPBACK: i32 = 1;

/// `struct ifinfomsg` and `struct ifaddrmsg`, in bytes.
const LINK: usize = 16;
const ADDRESS: usize = 8;

const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
/// No counters, which make up most of a link's description.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// Brings up `lo` of the caller's network namespace.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn loopback_up() -> Result<()> {
    set_up(&mut Route::open()?, LOOPBACK, true, "lo")
}

/// Moves host devices into the network namespace of the process `pid`: each is a name on the host and a name in the
/// container, empty for the same. It keeps its MTU, hardware address and further names by the kernel's doing, and its
/// permanent global addresses by ours, and comes up there.
///
/// # Errors
/// There is no such device, it may not be moved, or its new name is taken.
pub(crate) fn move_all(pid: i32, devices: &[(String, String)]) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let namespace = path::open(format!("/proc/{pid}/ns/net"), libc::O_RDONLY, 0)?;
    let mut target = enter(&namespace)?;
    let mut host = Route::open()?;
    for (name, new_name) in devices {
        let new_name = if new_name.is_empty() { name } else { new_name };
        let moved = move_one(&mut host, &mut target, &namespace, name, new_name);
        moved.context(|| format!("move network device {name:?} into the container as {new_name:?}"))?;
    }
    Ok(())
}

/// A socket to the routing tables of another network namespace. A socket belongs to the namespace it was made in, so a
/// child makes it there: this process stays where it is.
fn enter(namespace: &OwnedFd) -> Result<Route> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let child = fork::fork(0, None, || {
        let made = process::setns(namespace, libc::CLONE_NEWNET)
            .and_then(|()| socket::netlink(libc::NETLINK_ROUTE))
            .and_then(|made| socket::send(&theirs, b"x", &[made.as_fd()]));
        match made {
            Ok(_) => 0,
            Err(error) => error.errno() as i32,
        }
    })?;
    match fork::wait(&child.pidfd)? {
        fork::Exit::Code(0) => {}
        fork::Exit::Code(errno) => {
            return Err(offshoot_sys::Error::new("setns(CLONE_NEWNET)", Errno::from_raw(errno)).into());
        }
        killed @ fork::Exit::Signal(_) => return Err(Error::new(format!("setns(CLONE_NEWNET): {killed}"))),
    }
    let (_, fds) = socket::try_recv(&ours, &mut [0])?;
    let made = fds.into_iter().next().ok_or_else(|| Error::new("setns(CLONE_NEWNET): no socket was made"))?;
    Ok(Route::from(made))
}

fn move_one(host: &mut Route, target: &mut Route, namespace: &OwnedFd, name: &str, new_name: &str) -> Result<()> {
    let absent = || offshoot_sys::Error::new(format!("RTM_GETLINK {name}"), Errno::ENODEV);
    let link = find(host, name)?.ok_or_else(absent)?;
    // The kernel would rename only after the move, and leave the device there where it cannot. `%d` stands for a number.
    if !new_name.contains('%') && find(target, new_name)?.is_some() {
        return Err(offshoot_sys::Error::new(format!("RTM_NEWLINK {new_name}"), Errno::EEXIST).into());
    }
    // Before it goes down, which would take its IPv6 addresses.
    let addresses = addresses(host, link.index)?;
    let before = indices(target)?;
    set_up(host, link.index, false, name)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(namespace);
    let request = Request::new(format!("RTM_NEWLINK {name}"), libc::RTM_NEWLINK, 0, &link_header(link.index, 0, 0))
        .string(libc::IFLA_IFNAME, new_name)
        .attribute(IFLA_NET_NS_FD, &fd.to_ne_bytes());
    if let Err(error) = host.request(request) {
        // The host goes on with the device as it was; its own trouble is the one to report.
        if link.is_up {
            let _ = set_up(host, link.index, true, name);
            let _ = addresses.iter().try_for_each(|address| address.add(host, link.index));
        }
        return Err(error);
    }
    // Name and index may both have changed on the way: it is the one that was not there.
    let index = indices(target)?.into_iter().find(|index| !before.contains(index)).ok_or_else(absent)?;
    addresses.iter().try_for_each(|address| address.add(target, index))?;
    set_up(target, index, true, new_name)
}

struct Link {
    index: i32,
    is_up: bool,
}

fn find(route: &mut Route, name: &str) -> Result<Option<Link>> {
    let request = Request::new(format!("RTM_GETLINK {name}"), libc::RTM_GETLINK, 0, &link_header(0, 0, 0))
        .string(libc::IFLA_IFNAME, name)
        .attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    Ok(route.get(request)?.as_ref().and_then(link_of))
}

fn link_of(message: &Message) -> Option<Link> {
    let header = message.fixed::<LINK>().filter(|_| message.kind == libc::RTM_NEWLINK)?;
    Some(Link { index: word(&header, 4)? as i32, is_up: word(&header, 8)? & libc::IFF_UP as u32 != 0 })
}

fn indices(route: &mut Route) -> Result<Vec<i32>> {
    let request = Request::new("RTM_GETLINK".into(), libc::RTM_GETLINK, 0, &link_header(0, 0, 0))
        .attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    Ok(route.dump(request)?.iter().filter_map(link_of).map(|link| link.index).collect())
}

fn set_up(route: &mut Route, index: i32, up: bool, name: &str) -> Result<()> {
    let (flag, flags) = (libc::IFF_UP as u32, if up { libc::IFF_UP as u32 } else { 0 });
    let state = if up { "up" } else { "down" };
    let header = link_header(index, flags, flag);
    route.request(Request::new(format!("RTM_NEWLINK {name} {state}"), libc::RTM_NEWLINK, 0, &header))
}

/// `struct ifinfomsg`: family and type, which stay 0, index, flags, which flags change.
fn link_header(index: i32, flags: u32, change: u32) -> [u8; LINK] {
    let mut header = [0; LINK];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// An address of a device.
struct Address {
    family: u8,
    prefix: u8,
    /// `IFA_LOCAL`, `IFA_ADDRESS` and `IFA_BROADCAST`, as far as it has them; the label names the device, and goes.
    parts: Vec<(u16, Vec<u8>)>,
}

impl Address {
    fn add(&self, route: &mut Route, index: i32) -> Result<()> {
        let mut header = [0; ADDRESS];
        (header[0], header[1]) = (self.family, self.prefix);
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let name = format!("RTM_NEWADDR {}", self.parts.first().map_or(String::new(), |(_, bytes)| numbers(bytes)));
        // A device that keeps its addresses when it goes down may have this one still.
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let request = Request::new(name, libc::RTM_NEWADDR, flags, &header);
        route.request(self.parts.iter().fold(request, |request, (kind, value)| request.attribute(*kind, value)))
    }
}

/// The permanent global addresses of a device; others hold only where they were given.
fn addresses(route: &mut Route, index: i32) -> Result<Vec<Address>> {
    let request = Request::new("RTM_GETADDR".into(), libc::RTM_GETADDR, 0, &[0; ADDRESS]);
    Ok(route.dump(request)?.iter().filter_map(|message| address_of(message, index)).collect())
}

fn address_of(message: &Message, index: i32) -> Option<Address> {
    let header = message.fixed::<ADDRESS>().filter(|_| message.kind == libc::RTM_NEWADDR)?;
    let [family, prefix, flags, scope, ..] = header;
    let mut flags = u32::from(flags);
    let mut parts = Vec::new();
    for (kind, value) in message.attributes(ADDRESS) {
        match kind {
            // The flags that do not fit the header's byte.
            libc::IFA_FLAGS => flags = word(value, 0)?,
            libc::IFA_LOCAL | libc::IFA_ADDRESS | libc::IFA_BROADCAST => parts.push((kind, value.to_vec())),
            _ => {}
        }
    }
    let is_kept =
        word(&header, 4)? as i32 == index && flags & libc::IFA_F_PERMANENT != 0 && scope == libc::RT_SCOPE_UNIVERSE;
    is_kept.then_some(Address { family, prefix, parts })
}

/// An address for a message: of IPv4 or IPv6, by its length.
fn numbers(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(bytes).map_or_else(|_| "address".into(), |v6| std::net::Ipv6Addr::from(v6).to_string())
}
