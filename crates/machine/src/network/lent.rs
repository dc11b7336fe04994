//! Interfaces of the host that a machine has while it runs. The kernel returns those of hardware when their namespace ends, and
//! destroys all others (VLANs, ends of a veth): so a machine's namespace is held until they are back.

use super::{Attachment, Links};
use crate::definition::Machine;
use crate::error::Result;
use offshoot_sys::{libc, path};
use std::os::fd::OwnedFd;

/// What a machine has to give back.
#[derive(Debug)]
pub struct Lent {
    namespace: OwnedFd,
    devices: Vec<String>,
}

/// The interfaces of the host that a machine gets.
pub fn devices(machine: &Machine) -> Vec<String> {
    let device = |network: &Attachment| match network {
        Attachment::Device { device } => Some(device.clone()),
        _ => None,
    };
    machine.networks.iter().filter_map(device).collect()
}

impl Lent {
    /// Of the machine whose init is `pid`, which the caller knows to live; none where it has no interface of the host's.
    ///
    /// # Errors
    /// The namespace cannot be opened.
    pub fn hold(devices: Vec<String>, pid: i32) -> Result<Option<Lent>> {
        if devices.is_empty() {
            return Ok(None);
        }
        let namespace = path::open(format!("/proc/{pid}/ns/net"), libc::O_RDONLY, 0)?;
        Ok(Some(Lent { namespace, devices }))
    }

    /// Moves them back to the caller's namespace, down and without addresses. What is back already is fine.
    ///
    /// # Errors
    /// The kernel's answer, such as that the host has another of that name.
    pub fn give_back(&self) -> Result<()> {
        let own = path::open("/proc/thread-self/ns/net", libc::O_RDONLY, 0)?;
        let mut links = Links::open_in(&self.namespace)?;
        for device in &self.devices {
            if let Some(found) = links.find(device)? {
                links.move_to(found.index, device, &own)?;
            }
        }
        Ok(())
    }
}
