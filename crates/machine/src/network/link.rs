//! Bridges and the two ends of a veth, by rtnetlink. man 7 rtnetlink

use super::range::{Range, hardware};
use crate::error::{Error, Kind, Result};
use offshoot_engine::netlink::{Request, Route, word};
use offshoot_sys::{Errno, libc, path, process, socket};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

/// `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg`, in bytes.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;

const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
/// A veth uses one of each unless told otherwise; that it need not make one for each processor has to be said, or it waits twice
/// for all processors (RCU) until it has given up the others, with the lock of all that configure networks (drivers/net/veth.c).
const QUEUES: [u16; 2] = [IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES];
/// No counters, which make up most of a link's description.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
/// Hardware addresses that a bridge remembers at most, of what comes in at its ports: a guest can make up as many as it sends
/// packets, and each takes the kernel's memory for five minutes. Frames for others go to all ports. Since Linux 6.7; before,
/// it is passed over.
const IFLA_BR_FDB_MAX_LEARNED: u16 = 49;
const LEARNED: u32 = 16_384;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
/// The machines on one parent reach each other.
const MACVLAN_MODE_BRIDGE: u32 = 4;
/// A bridge that has 1,023 ports has no number for another.
const FULL: Errno = Errno::EXFULL;

/// A link as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// What its maker wrote on it.
    pub alias: String,
    /// The number of the bridge that it is a port of.
    pub master: Option<u32>,
}

/// A place in the routing tables of one network namespace.
pub struct Links(Route);

impl Links {
    /// Of the caller's namespace.
    ///
    /// # Errors
    /// The kernel has no rtnetlink.
    pub fn open() -> Result<Links> {
        Ok(Links(Route::open()?))
    }

    /// Of the namespace `namespace`. A socket belongs to the namespace that it was made in: this process goes there and comes
    /// back, so it has to have a single thread, as the workers have that call this.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub(super) fn open_in(namespace: &OwnedFd) -> Result<Links> {
        let own = path::open("/proc/thread-self/ns/net", libc::O_RDONLY, 0)?;
        process::setns(namespace, libc::CLONE_NEWNET)?;
        let made = socket::netlink(libc::NETLINK_ROUTE);
        process::setns(&own, libc::CLONE_NEWNET)?;
        Ok(Links(Route::from(made?)))
    }

    /// The link of that name.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        let request = Request::new(format!("RTM_GETLINK {name}"), libc::RTM_GETLINK, 0, &header(0, 0))
            .string(libc::IFLA_IFNAME, name)
            .attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let Some(answer) = self.0.get(request)? else { return Ok(None) };
        let Some(fixed) = answer.fixed::<LINK>() else { return Ok(None) };
        let alias = answer.attributes(LINK).find(|(kind, _)| *kind == libc::IFLA_IFALIAS);
        let alias = alias.map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        let master = answer.attributes(LINK).find(|(kind, _)| *kind == libc::IFLA_MASTER);
        let master = master.and_then(|(_, number)| word(number, 0));
        Ok(word(&fixed, 4).map(|index| Link { index, alias: alias.unwrap_or_default(), master }))
    }

    /// The number of the link of that name, which has to be there.
    ///
    /// # Errors
    /// It is not, or the kernel's answer.
    pub fn index(&mut self, name: &str) -> Result<u32> {
        let found = self.find(name)?;
        found
            .map(|link| link.index)
            .ok_or_else(|| Error::new(Kind::NotFound, format!("there is no interface {name:?}")))
    }

    /// Makes a bridge and brings it up, with `address` as hardware address so that it keeps one while ports come and go.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn add_bridge(&mut self, name: &str, alias: &str, address: Ipv4Addr) -> Result<u32> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let data = nested(&[(IFLA_BR_FDB_MAX_LEARNED, &LEARNED.to_ne_bytes())]);
        let kind = nested(&[(IFLA_INFO_KIND, b"bridge"), (IFLA_INFO_DATA, &data)]);
        let request = Request::new(format!("RTM_NEWLINK {name}"), libc::RTM_NEWLINK, flags, &header(0, up()))
            .string(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_ADDRESS, &hardware(address))
            .attribute(libc::IFLA_LINKINFO, &kind);
        self.0.request(request)?;
        let index = self.index(name)?;
        let request = Request::new(format!("RTM_SETLINK {name}"), libc::RTM_SETLINK, 0, &header(index, 0))
            .string(libc::IFLA_IFALIAS, alias);
        self.0.request(request)?;
        Ok(index)
    }

    /// Makes a pair: `name` here, a port of the bridge number `bridge`, and `peer` in a namespace of its own, which has to
    /// be brought up. It is made there, not moved: a move waits until no processor uses the device. Returns whether the bridge
    /// had room. Where the bridge has a port of that name, its other end is in a namespace that has ended, of which the kernel
    /// has not yet disposed: it goes.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn add_veth(&mut self, name: &str, bridge: u32, peer: &Peer) -> Result<bool> {
        let made = self.new_veth(name, bridge, peer);
        if made.is_ok() {
            return made;
        }
        match self.find(name)? {
            Some(other) if other.master != Some(bridge) => made,
            Some(left) => {
                // The kernel may be faster.
                let _ = self.remove(left.index, name);
                self.new_veth(name, bridge, peer)
            }
            None => self.new_veth(name, bridge, peer),
        }
    }

    fn new_veth(&mut self, name: &str, bridge: u32, peer: &Peer) -> Result<bool> {
        let mut other = header(0, 0).to_vec();
        push(&mut other, libc::IFLA_IFNAME, &[peer.name.as_bytes(), &[0]].concat());
        if let Some(hardware) = peer.hardware {
            push(&mut other, libc::IFLA_ADDRESS, &hardware);
        }
        if let Some(namespace) = peer.namespace {
            push(&mut other, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        }
        QUEUES.iter().for_each(|queues| push(&mut other, *queues, &1_u32.to_ne_bytes()));
        let data = nested(&[(VETH_INFO_PEER, &other)]);
        let info = nested(&[(IFLA_INFO_KIND, b"veth"), (IFLA_INFO_DATA, &data)]);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let request = Request::new(format!("RTM_NEWLINK {name}"), libc::RTM_NEWLINK, flags, &header(0, up()))
            .string(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes())
            .attribute(libc::IFLA_LINKINFO, &info);
        let request = QUEUES.iter().fold(request, |request, queues| request.attribute(*queues, &1_u32.to_ne_bytes()));
        Ok(self.0.request_or(request, FULL)?)
    }

    /// Brings a link up; with `bridge`, as a port of the bridge of that number. Returns whether that had room.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_up(&mut self, index: u32, bridge: Option<u32>) -> Result<bool> {
        let mut request = Request::new(format!("RTM_SETLINK {index} up"), libc::RTM_SETLINK, 0, &header(index, up()));
        if let Some(bridge) = bridge {
            request = request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        }
        Ok(self.0.request_or(request, FULL)?)
    }

    /// Moves the link number `index` to the namespace `there`; one that is gone meanwhile is fine.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn move_to(&mut self, index: u32, name: &str, there: &OwnedFd) -> Result<()> {
        let request = Request::new(format!("RTM_SETLINK {name}"), libc::RTM_SETLINK, 0, &header(index, 0))
            .attribute(IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes());
        self.0.request_or(request, Errno::ENODEV)?;
        Ok(())
    }

    /// Makes `name` in the namespace `there`, with a hardware address of its own on the wire of the host's `parent`.
    ///
    /// # Errors
    /// There is no such parent, or the kernel's answer.
    pub fn add_macvlan(&mut self, name: &str, parent: &str, there: &OwnedFd) -> Result<()> {
        let parent_index = self.index(parent)?;
        let data = nested(&[(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes())]);
        let info = nested(&[(IFLA_INFO_KIND, b"macvlan"), (IFLA_INFO_DATA, &data)]);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let request = Request::new(format!("RTM_NEWLINK {name} on {parent}"), libc::RTM_NEWLINK, flags, &header(0, 0))
            .string(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_LINK, &parent_index.to_ne_bytes())
            .attribute(IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes())
            .attribute(libc::IFLA_LINKINFO, &info);
        Ok(self.0.request(request)?)
    }

    /// Gives the link number `index` the address `address` of `range`.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, range: Range) -> Result<()> {
        let mut fixed = [0; ADDRESS];
        (fixed[0], fixed[1]) = (libc::AF_INET as u8, range.prefix);
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        // An address that is there already is as wanted.
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let request = Request::new(format!("RTM_NEWADDR {address}"), libc::RTM_NEWADDR, flags, &fixed)
            .attribute(libc::IFA_LOCAL, &address.octets())
            .attribute(libc::IFA_ADDRESS, &address.octets())
            .attribute(libc::IFA_BROADCAST, &range.broadcast().octets());
        Ok(self.0.request(request)?)
    }

    /// Sends what is for elsewhere to `gateway`.
    fn add_default_route(&mut self, gateway: Ipv4Addr) -> Result<()> {
        let mut fixed = [0; ROUTE];
        fixed[0] = libc::AF_INET as u8;
        (fixed[4], fixed[5]) = (libc::RT_TABLE_MAIN, libc::RTPROT_BOOT);
        (fixed[6], fixed[7]) = (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let request = Request::new(format!("RTM_NEWROUTE default via {gateway}"), libc::RTM_NEWROUTE, flags, &fixed)
            .attribute(libc::RTA_GATEWAY, &gateway.octets());
        Ok(self.0.request(request)?)
    }

    /// Removes a link.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn remove(&mut self, index: u32, name: &str) -> Result<()> {
        Ok(self.0.request(Request::new(format!("RTM_DELLINK {name}"), libc::RTM_DELLINK, 0, &header(index, 0)))?)
    }
}

/// The other end of a veth.
#[derive(Debug, Default)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address, where not the kernel's choice.
    pub hardware: Option<[u8; 6]>,
    /// The namespace that it is in, where not the caller's.
    pub namespace: Option<&'a OwnedFd>,
}

/// Gives the interface `name` in the namespace `there` its address, and with
/// `route` the way to elsewhere.
///
/// # Errors
/// The namespace cannot be entered, or the kernel's answer.
pub fn configure(there: &OwnedFd, name: &str, address: Ipv4Addr, range: Range, route: bool) -> Result<()> {
    let mut links = Links::open_in(there)?;
    let index = links.index(name)?;
    links.set_up(index, None)?;
    links.add_address(index, address, range)?;
    if route { links.add_default_route(range.gateway()) } else { Ok(()) }
}

const fn up() -> u32 {
    libc::IFF_UP as u32
}

/// `struct ifinfomsg`: family and type, which stay 0, index, flags, which flags change.
fn header(index: u32, flags: u32) -> [u8; LINK] {
    let mut header = [0; LINK];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn nested(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    attributes.iter().for_each(|(kind, value)| push(&mut bytes, *kind, value));
    bytes
}

/// Adds an attribute. None is near the 64 KiB that a length can say.
fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = nested(&[(1, b"veth\0")]);
        assert_eq!(inner, [9u16.to_ne_bytes().as_slice(), &1u16.to_ne_bytes(), b"veth\0\0\0\0"].concat());
        assert_eq!(nested(&[(2, &inner)]).len(), 4 + inner.len());
    }

    #[test]
    fn the_loopback_is_found_and_others_are_not() {
        let mut links = Links::open().unwrap();
        assert_eq!(links.find("lo").unwrap().unwrap().index, 1);
        assert_eq!(links.find("offshoot-none").unwrap(), None);
        assert!(links.index("offshoot-none").unwrap_err().to_string().contains("no interface"));
    }
}
