//! Which machine has which address: one file a network, changed under the lock of all networks.

use super::range::Range;
use crate::error::{Error, Kind, Result};
use crate::home::{self, VERSION};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The addresses that are given away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    version: u32,
    /// Machines by address.
    pub leases: BTreeMap<Ipv4Addr, String>,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases { version: VERSION, leases: BTreeMap::new() }
    }
}

impl Leases {
    fn file(networks: &Path, network: &str) -> PathBuf {
        networks.join(network).join("leases.json")
    }

    /// Those of a network.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(networks: &Path, network: &str) -> Result<Leases> {
        Ok(home::read(&Leases::file(networks, network))?.unwrap_or_default())
    }

    /// Writes them down, on disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, networks: &Path, network: &str) -> Result<()> {
        home::write(&Leases::file(networks, network), self, true)
    }

    /// Gives each of `machines` an address of `range`: the `wanted` one, or the lowest that is free. All or none.
    ///
    /// # Errors
    /// The wanted address is another's or not of the range, or there are not enough.
    pub fn take(&mut self, range: Range, machines: &[String], wanted: Option<Ipv4Addr>) -> Result<Vec<Ipv4Addr>> {
        if let Some(address) = wanted {
            let [machine] = machines else {
                return Err(Error::request(format!("address {address}: only one machine can have it")));
            };
            if !range.has_machine(address) {
                return Err(Error::request(format!("address {address}: machines of {range} cannot have it")));
            }
            return match self.leases.get(&address).filter(|holder| *holder != machine) {
                Some(holder) => Err(Error::new(Kind::Exists, format!("address {address} is that of {holder:?}"))),
                None => {
                    self.leases.insert(address, machine.clone());
                    Ok(vec![address])
                }
            };
        }
        let free: Vec<_> =
            range.machines().filter(|address| !self.leases.contains_key(address)).take(machines.len()).collect();
        if free.len() < machines.len() {
            let message = format!("{range} has {} free addresses, {} are needed", free.len(), machines.len());
            return Err(Error::new(Kind::State, message)
                .hint("offshoot network create NAME --range 10.84.0.0/16 has room for 65,533 machines"));
        }
        self.leases.extend(free.iter().copied().zip(machines.iter().cloned()));
        Ok(free)
    }

    /// Takes back what `machine` has; says whether there was something.
    pub fn give_back(&mut self, machine: &str) -> bool {
        let before = self.leases.len();
        self.leases.retain(|_, holder| holder != machine);
        self.leases.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_lowest_free_address_is_taken_and_given_back() {
        let range = Range::parse("10.0.0.0/29").unwrap();
        let mut leases = Leases::default();
        let given = leases.take(range, &names(&["a", "b", "c"]), None).unwrap();
        assert_eq!(given, [[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 4]].map(Ipv4Addr::from));
        assert!(leases.give_back("b") && !leases.give_back("b"));
        assert_eq!(leases.take(range, &names(&["d"]), None).unwrap(), [Ipv4Addr::from([10, 0, 0, 3])]);
        let before = leases.clone();
        let error = leases.take(range, &names(&["e", "f", "g"]), None).unwrap_err();
        assert!(error.to_string().contains("2 free addresses, 3 are needed") && error.advice().is_some());
        assert_eq!(leases, before, "all or none");
    }

    #[test]
    fn a_wanted_address_is_taken_where_it_is_free() {
        let range = Range::parse("10.0.0.0/24").unwrap();
        let mut leases = Leases::default();
        let nine = Some(Ipv4Addr::from([10, 0, 0, 9]));
        assert!(leases.take(range, &names(&["a"]), nine).is_ok());
        assert!(leases.take(range, &names(&["a"]), nine).is_ok(), "it has it already");
        for (machines, address) in [
            (&["b"][..], [10, 0, 0, 9]),
            (&["b"], [10, 0, 0, 1]),
            (&["b"], [10, 0, 1, 9]),
            (&["b", "c"], [10, 0, 0, 8]),
        ] {
            assert!(leases.take(range, &names(machines), Some(address.into())).is_err(), "{machines:?} {address:?}");
        }
    }

    #[test]
    fn leases_survive_the_disk() {
        let scratch = Scratch::new("leases");
        std::fs::create_dir(scratch.path().join("net")).unwrap();
        let mut leases = Leases::load(scratch.path(), "net").unwrap();
        leases.take(Range::parse("10.0.0.0/24").unwrap(), &names(&["a"]), None).unwrap();
        leases.save(scratch.path(), "net").unwrap();
        assert_eq!(Leases::load(scratch.path(), "net").unwrap(), leases);
    }
}
