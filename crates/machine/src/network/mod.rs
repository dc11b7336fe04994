//! Networks: a bridge with an address range, its translation, its names, and which machine has which address.
//!
//! The definition is a file; the bridge is made from it whenever a machine needs it, so it is there again after a reboot.
//! What carries another alias than ours is not ours and is left alone.

pub mod lease;
mod lent;
mod link;
mod names;
mod nat;
pub mod range;

pub use lease::Leases;
pub use lent::{Lent, devices};
pub use link::{Links, Peer};
pub use names::Server;
pub use range::Range;

use crate::definition::Machine;
use crate::error::{Error, Kind, Result};
use crate::home::{self, Home, VERSION, absent};
use crate::name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

/// The network of machines that were not told otherwise.
pub const DEFAULT: &str = "default";

/// An interface's name has 15 characters: `os-`, this, the number of a further bridge, and a letter for what joins it.
const LONGEST: usize = 8;

/// Machines on a bridge. The kernel has 1,023 ports (BR_PORT_BITS); those over join the first bridge with the others.
const PORTS: usize = 900;
/// Bridges of a network: room for 57,600 machines.
const BRIDGES: usize = 64;

/// A network, as `networks/NAME/network.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    version: u32,
    /// Its name.
    pub name: String,
    /// The addresses in it.
    pub range: Range,
    /// Whether its machines reach other networks under the host's address.
    pub nat: bool,
    /// Whether a dnsmasq answers for names and by DHCP.
    pub names: bool,
    /// When it was made, RFC 3339.
    pub created: String,
}

impl Network {
    /// With translation and names.
    pub fn new(name: &str, range: Range) -> Network {
        let created = offshoot_spec::time::rfc3339(SystemTime::now());
        Network { version: VERSION, name: name.to_owned(), range, nat: true, names: true, created }
    }

    /// The name of its bridge.
    pub fn bridge(&self) -> String {
        format!("os-{}", self.name)
    }

    fn further_bridge(&self, number: usize) -> String {
        if number == 1 { self.bridge() } else { format!("os-{}-{number}", self.name) }
    }

    fn alias(&self) -> String {
        format!("offshoot network {}", self.name)
    }

    fn table(&self) -> String {
        format!("offshoot-{}", self.name)
    }
}

impl Home {
    /// Adds a network and its bridge. Without a `range`, the first /24 from 10.83.0.0 on that no other network has.
    ///
    /// # Errors
    /// There is one of that name, its addresses are another's, or the bridge cannot be made.
    pub fn create_network(&self, run: &Path, wanted: NewNetwork) -> Result<Network> {
        let what = format!("create network {:?}", wanted.name);
        let _held = self.lock_networks()?;
        self.create_network_locked(run, wanted).map_err(|error| error.during(what))
    }

    fn create_network_locked(&self, run: &Path, wanted: NewNetwork) -> Result<Network> {
        name::check("network", &wanted.name)?;
        if wanted.name.len() > LONGEST {
            return Err(Error::request(format!(
                "the name is longer than {LONGEST} characters, which a bridge's cannot be"
            )));
        }
        let others = self.networks_locked()?;
        if others.iter().any(|other| other.name == wanted.name) {
            return Err(Error::new(Kind::Exists, "there is one of that name"));
        }
        let taken: Vec<_> = others.iter().map(|other| other.range).collect();
        let range = match wanted.range {
            Some(range) => range,
            None => {
                Range::free(&taken).ok_or_else(|| Error::request("no addresses are left: name some with --range"))?
            }
        };
        if let Some(other) = others.iter().find(|other| other.range.overlaps(range)) {
            let message = format!("{range} overlaps {} of network {:?}", other.range, other.name);
            return Err(Error::new(Kind::Exists, message));
        }
        let network = Network { nat: wanted.nat, names: wanted.names, ..Network::new(&wanted.name, range) };
        if Links::open()?.find(&network.bridge())?.is_some() {
            return Err(Error::new(Kind::Exists, format!("there is an interface {:?} already", network.bridge())));
        }
        if let Some(interface) = host_route(range) {
            let message = format!("{range} overlaps what the host reaches through {interface}");
            return Err(Error::new(Kind::Exists, message).hint("choose other addresses with --range"));
        }
        let dir = self.networks().join(&network.name);
        fs::create_dir_all(&dir).map_err(|error| Error::io(format_args!("make {}", dir.display()), &error))?;
        let made = home::write(&dir.join("network.json"), &network, true)
            .and_then(|()| network.bring_up(run, &Leases::default(), &others));
        if let Err(error) = made {
            // What was made of it goes again; the failure that led here is the one to tell.
            let _ = network.take_down(run);
            let _ = fs::remove_dir_all(&dir);
            return Err(error);
        }
        Ok(network)
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// A definition cannot be read.
    pub fn networks_all(&self) -> Result<Vec<Network>> {
        let _held = self.read_networks()?;
        self.networks_locked()
    }

    fn networks_locked(&self) -> Result<Vec<Network>> {
        let names = home::names(&self.networks())?;
        let read = |name: &String| home::read::<Network>(&self.networks().join(name).join("network.json")).transpose();
        names.iter().filter_map(read).collect()
    }

    /// The network of that name.
    ///
    /// # Errors
    /// There is none, or its definition cannot be read.
    pub fn network(&self, name: &str) -> Result<Network> {
        name::check("network", name)?;
        let found = home::read(&self.networks().join(name).join("network.json"))?;
        found.ok_or_else(|| absent("network", name).hint("offshoot network create makes one"))
    }

    /// The leases of a network.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn leases(&self, name: &str) -> Result<Leases> {
        Leases::load(&self.networks(), name)
    }

    /// Gives each machine an address of the network; see [`Leases::take`].
    ///
    /// # Errors
    /// As that, or the file cannot be written.
    pub fn take_addresses(
        &self,
        network: &Network,
        machines: &[String],
        wanted: Option<Ipv4Addr>,
    ) -> Result<Vec<Ipv4Addr>> {
        let _held = self.lock_networks()?;
        let mut leases = self.leases(&network.name)?;
        let given = leases
            .take(network.range, machines, wanted)
            .map_err(|error| error.during(format_args!("take addresses of network {:?}", network.name)))?;
        leases.save(&self.networks(), &network.name)?;
        Ok(given)
    }

    /// Has the leases say of a machine what its definition says, which somebody has changed.
    ///
    /// # Errors
    /// An address is another's or not of its network, there is no such network, or a file cannot be read or written.
    pub(crate) fn settle_addresses(&self, machine: &Machine) -> Result<()> {
        let _held = self.lock_networks()?;
        let names = [machine.name.clone()];
        let mut changed = Vec::new();
        for network in self.networks_locked()? {
            let mut leases = self.leases(&network.name)?;
            let before = leases.clone();
            leases.give_back(&machine.name);
            for address in machine.networks.iter().filter_map(|one| one.address_in(&network.name)) {
                let taken = leases.take(network.range, &names, Some(address));
                taken.map_err(|error| error.during(format_args!("take addresses of network {:?}", network.name)))?;
            }
            if leases != before {
                changed.push((network.name, leases));
            }
        }
        changed.into_iter().try_for_each(|(network, leases)| leases.save(&self.networks(), &network))
    }

    /// Takes back all addresses of machines that go. Servers are told.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn give_back_addresses(&self, run: &Path, machines: &[String]) -> Result<()> {
        if !self.networks().exists() {
            return Ok(());
        }
        let _held = self.lock_networks()?;
        let networks = self.networks_locked()?;
        for network in &networks {
            let mut leases = self.leases(&network.name)?;
            let gone = machines.iter().filter(|machine| leases.give_back(machine)).count();
            if gone > 0 {
                leases.save(&self.networks(), &network.name)?;
                if network.names {
                    Server::new(run, &network.name).set_up(network, &leases, &networks, false)?;
                }
            }
        }
        Ok(())
    }

    /// Makes what a network needs on the host where it is missing, as after a reboot.
    ///
    /// # Errors
    /// There is no such network, or the host refuses.
    pub fn bring_up(&self, run: &Path, name: &str) -> Result<Network> {
        let network = self.network(name)?;
        let _held = self.lock_networks()?;
        // One that cannot be read is for others to complain of.
        let others = home::names(&self.networks())?;
        let others: Vec<_> = others.iter().filter_map(|name| self.network(name).ok()).collect();
        let up = network.bring_up(run, &self.leases(name)?, &others);
        up.map_err(|error| error.during(format_args!("bring network {name:?} up")))?;
        Ok(network)
    }

    /// Removes a network that no machine has an address of.
    ///
    /// # Errors
    /// There is none, it is in use, or something of it cannot be removed.
    pub fn remove_network(&self, run: &Path, name: &str) -> Result<()> {
        let what = format!("remove network {name:?}");
        let _held = self.lock_networks()?;
        let network = self.network(name)?;
        let users: Vec<_> = self.leases(name)?.leases.into_values().collect();
        if let Some(first) = users.first() {
            let message = match users.len() {
                1 => format!("machine {first:?} is in it"),
                many => format!("{many} machines are in it: {first:?}…"),
            };
            return Err(Error::new(Kind::State, message).hint("machine rm removes machines").during(what));
        }
        let dir = self.networks().join(name);
        network.take_down(run).map_err(|error| error.during(&what))?;
        fs::remove_dir_all(&dir).map_err(|error| Error::io(what, &error))?;
        home::sync(&self.networks())
    }
}

/// A network to be made.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses, where not the next free ones.
    pub range: Option<Range>,
    /// Whether to translate.
    pub nat: bool,
    /// Whether to answer for names.
    pub names: bool,
}

impl Network {
    fn bring_up(&self, run: &Path, leases: &Leases, others: &[Network]) -> Result<()> {
        let mut links = Links::open()?;
        let index = self.ensure_bridge(&mut links, 1)?;
        // One that an earlier version made.
        fence(&self.bridge())?;
        links.add_address(index, self.range.gateway(), self.range)?;
        if self.nat {
            nat::set_up(&self.table(), self.range)?;
        }
        if self.names && Server::is_installed() {
            Server::new(run, &self.name).set_up(self, leases, others, true)?;
        }
        Ok(())
    }

    fn take_down(&self, run: &Path) -> Result<()> {
        Server::new(run, &self.name).remove()?;
        if self.nat {
            nat::remove(&self.table())?;
        }
        let mut links = Links::open()?;
        for number in 1.. {
            let name = self.further_bridge(number);
            match links.find(&name)? {
                Some(found) if found.alias == self.alias() => links.remove(found.index, &name)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// The number of a bridge of ours, made where it is missing. One after the first is joined to the first.
    fn ensure_bridge(&self, links: &mut Links, number: usize) -> Result<u32> {
        let name = self.further_bridge(number);
        match links.find(&name)? {
            Some(found) if found.alias == self.alias() => return Ok(found.index),
            Some(_) => return Err(Error::new(Kind::Exists, format!("interface {name:?} is there and is not ours"))),
            None => {}
        }
        let gateway = self.range.gateway();
        let [a, b, c, d] = gateway.octets();
        // The locally administered 02:0f is followed by the address, which is the first bridge's.
        let address =
            if number == 1 { gateway } else { Ipv4Addr::from([a ^ 0xff, b, c, d.wrapping_add(number as u8)]) };
        let index = links.add_bridge(&name, &self.alias(), address)?;
        fence(&name)?;
        if number > 1 {
            let first = self.ensure_bridge(links, 1)?;
            let (here, there) = (format!("{name}j"), format!("{name}k"));
            let peer = Peer { name: &there, ..Peer::default() };
            let joined = links.add_veth(&here, first, &peer)? && {
                let there = links.index(&there)?;
                links.set_up(there, Some(index))?
            };
            if !joined {
                links.remove(index, &name)?;
                let message = format!("bridge {:?} has no port left to join another", self.bridge());
                return Err(
                    Error::new(Kind::State, message).hint("stop one of its machines, and start it again afterwards")
                );
            }
        }
        Ok(index)
    }

    /// Connects the namespace `there` as the machine with `address`: an interface `name`, with the address set where
    /// `configured`, and as the way to elsewhere where it is the `first`.
    ///
    /// # Errors
    /// The bridge is not there, or the kernel's answer.
    pub fn attach(&self, there: &OwnedFd, name: &str, address: Ipv4Addr, configured: bool, first: bool) -> Result<()> {
        let mut links = Links::open()?;
        let port = format!("os{:08x}", address.to_bits());
        let peer = Peer { name, hardware: Some(range::hardware(address)), namespace: Some(there) };
        let bridge = self.ensure_bridge(&mut links, self.range.position(address) as usize / PORTS % BRIDGES + 1)?;
        if !links.add_veth(&port, bridge, &peer)? {
            let message = format!("bridge {:?} has no port left for {address}: the kernel has 1,023", self.bridge());
            return Err(
                Error::new(Kind::State, message).hint("take addresses that follow each other, or a second network")
            );
        }
        if configured { link::configure(there, name, address, self.range, first) } else { Ok(()) }
    }
}

/// Keeps the host from taking anything from its machines but what their addresses say. A guest that sends router
/// advertisements would give the host a route and addresses (CVE-2020-13401), so it has no IPv6 there, which passes between the
/// machines all the same; and a sender whom the host does not reach by this bridge has made its address up (RFC 3704).
fn fence(bridge: &str) -> Result<()> {
    for (file, value) in [
        (format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra"), "0"),
        (format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"), "1"),
        (format!("/proc/sys/net/ipv4/conf/{bridge}/rp_filter"), "1"),
    ] {
        match fs::read_to_string(&file) {
            Ok(text) if text.trim() != value => {
                fs::write(&file, value).map_err(|error| Error::io(format_args!("write {value} to {file}"), &error))?;
            }
            // A kernel without IPv6.
            _ => {}
        }
    }
    Ok(())
}

/// The interface through which the host reaches some of `range`, other than by its default route. `/proc/net/route` has
/// addresses as the memory has them.
fn host_route(range: Range) -> Option<String> {
    let table = fs::read_to_string("/proc/thread-self/net/route").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
        let (base, mask) = (number(1)?, number(7)?);
        let other = Range::parse(&format!("{}/{}", Ipv4Addr::from_bits(base), mask.count_ones())).ok()?;
        other.overlaps(range).then(|| fields[0].to_owned())
    })
}

/// What a machine is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Attachment {
    /// A bridge of ours.
    Network {
        /// Its network.
        network: String,
        /// The machine's address in it.
        address: Ipv4Addr,
        /// Whether the guest asks for it by DHCP instead of finding it set.
        dhcp: bool,
    },
    /// An interface of its own on the wire of a host's.
    Macvlan {
        /// The host's interface.
        parent: String,
    },
    /// A host's interface, which moves into the machine while it runs.
    Device {
        /// The interface.
        device: String,
    },
}

impl Attachment {
    /// The machine's address, if this is the network `name` of ours.
    fn address_in(&self, name: &str) -> Option<Ipv4Addr> {
        match self {
            Attachment::Network { network, address, .. } if network == name => Some(*address),
            _ => None,
        }
    }
}

/// What `--network` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A network of ours.
    Network(String),
    /// `macvlan:PARENT`
    Macvlan(String),
    /// `device:NAME`
    Device(String),
}

impl Wanted {
    /// The host's interface that it takes, by what it is called here.
    pub(crate) fn interface(&self) -> Option<(&'static str, &str)> {
        match self {
            Wanted::Network(_) => None,
            Wanted::Macvlan(parent) => Some(("macvlan", parent)),
            Wanted::Device(device) => Some(("device", device)),
        }
    }

    /// Takes `none`, or some of `NETWORK`, `macvlan:PARENT`, `device:NAME`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(words: &[&str]) -> Result<Vec<Wanted>> {
        if words == ["none"] {
            return Ok(Vec::new());
        }
        let one = |word: &&str| match word.split_once(':') {
            None if *word == "none" => Err(Error::request("network \"none\" stands alone")),
            None => name::check("network", word).map(|()| Wanted::Network((*word).to_owned())),
            Some(("macvlan", parent)) if is_interface(parent) => Ok(Wanted::Macvlan(parent.to_owned())),
            Some(("device", device)) if is_interface(device) => Ok(Wanted::Device(device.to_owned())),
            Some(_) => Err(Error::request(format!(
                "network {word:?}: it is NETWORK, macvlan:INTERFACE, device:INTERFACE or none"
            ))),
        };
        let all: Vec<_> = words.iter().map(one).collect::<Result<_>>()?;
        let mut seen = BTreeMap::new();
        match all.iter().find(|one| seen.insert(format!("{one:?}"), ()).is_some()) {
            Some(twice) => Err(Error::request(format!("{twice:?} is given twice"))),
            None => Ok(all),
        }
    }
}

/// The kernel's own rule, dev_valid_name().
fn is_interface(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 16
        && name != "."
        && name != ".."
        && !name.contains(['/', ':'])
        && !name.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_words() {
        assert_eq!(Wanted::parse(&["none"]).unwrap(), []);
        let all = Wanted::parse(&["web", "macvlan:eth0", "device:eth1"]).unwrap();
        assert_eq!(all, [Wanted::Network("web".into()), Wanted::Macvlan("eth0".into()), Wanted::Device("eth1".into())]);
        for wrong in [
            &["none", "web"][..],
            &["web", "web"],
            &["x:eth0"],
            &["macvlan:"],
            &["device:a/b"],
            &["device:1234567890123456"],
        ] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn interfaces_have_at_most_fifteen_characters() {
        let network = Network::new("12345678", Range::parse("10.0.0.0/8").unwrap());
        assert_eq!((network.bridge().as_str(), network.further_bridge(64).as_str()), ("os-12345678", "os-12345678-64"));
        assert!(network.further_bridge(64).len() < 15);
    }
}
