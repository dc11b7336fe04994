//! One machine comes up. In a process of the supervisor's, whose child its init becomes.

use crate::definition::{Machine, MachineLock};
use crate::error::{Error, Kind, Result};
use crate::home;
use crate::machines::Machines;
use crate::network::{self, Attachment, Links, Server};
use crate::supervisor::{Given, Hand};
use crate::valid;
use offshoot_runtime::create::New;
use offshoot_runtime::notify::Notify;
use offshoot_runtime::{Init, Launch, Status};
use offshoot_sys::{libc, path};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// What has a cgroup's name, where it is no container of ours.
const TAKEN: &str =
    "cgroups are the whole host's: a machine of that name runs from another store, so choose another name";

/// Where the host's own resolver listens; of no use inside a machine.
const LOOPBACK: &str = "127.";

impl Machines {
    /// Makes what machines need before they start: `config.json` anew where `machine.json` was changed by hand, and once for all
    /// of them what their networks need on the host. Those that cannot start for want of it, with why.
    pub(crate) fn prepare(&self, names: &[String]) -> BTreeMap<String, Error> {
        let (mut unready, mut users) = (BTreeMap::new(), BTreeMap::<String, Vec<&String>>::new());
        for name in names {
            match self.take_up(name) {
                Ok(machine) => {
                    for network in machine.networks {
                        if let Attachment::Network { network, .. } = network {
                            users.entry(network).or_default().push(name);
                        }
                    }
                }
                Err(error) => drop(unready.insert(name.clone(), error)),
            }
        }
        let run = self.network_run();
        for (network, users) in users {
            if let Err(error) = self.home.bring_up(&run, &network) {
                unready.extend(users.into_iter().map(|name| (name.clone(), error.clone())));
            }
        }
        unready
    }

    /// A machine as it is written down, with what follows from that made anew if somebody has changed it by hand.
    fn take_up(&self, name: &str) -> Result<Machine> {
        let machine = self.home.load(name)?;
        if !self.home.is_edited(name) {
            return Ok(machine);
        }
        let _lock = self.home.lock(name)?;
        // Another may have been faster.
        let machine = self.home.load(name)?;
        if self.home.is_edited(name) {
            valid::definition(&machine)?;
            self.home.settle_addresses(&machine)?;
            self.home.save(&machine)?;
        }
        Ok(machine)
    }

    /// Starts a machine, if it is still the one of that `birth`, and hands its process and console to the supervisor.
    pub(crate) fn start_one(&self, name: &str, birth: Option<&String>, hand: &Hand) -> Result<()> {
        let lock = self.home.lock(name)?;
        if birth.is_some_and(|birth| *birth != self.home.birth(name)) {
            return Err(home::absent("machine", name));
        }
        self.start_locked(name, &lock, hand)
    }

    pub(crate) fn start_locked(&self, name: &str, _lock: &MachineLock, hand: &Hand) -> Result<()> {
        let machine = self.home.load(name)?;
        if self.home.is_closed(name) {
            return Err(Error::new(Kind::State, format!("machine {name:?} is being removed"))
                .hint("machine rm removes it, if whoever began that has ended"));
        }
        if let Some(container) = self.container(name)? {
            match container.status()? {
                // What a host's reboot, or a supervisor that was not there, has left.
                Status::Stopped | Status::Creating => self.runtime.delete(name, true)?,
                status => return Err(Error::new(Kind::State, format!("machine {name:?} is {status}"))),
            }
        }
        self.write_resolver(&machine)?;
        let launch = Launch {
            id: name.to_owned(),
            bundle: self.home.machine(name),
            store: Some(self.home.path.clone()),
            ready: machine.notify.then_some(Duration::ZERO),
            ..Launch::default()
        };
        let created = self.runtime.create(&launch).map_err(|error| {
            // Runc's words, which callers of the runtime match.
            let taken = error.to_string().contains("cgroup is not empty");
            let error = Error::from(error);
            if taken { error.hint(TAKEN) } else { error }
        });
        let New { container, pidfd, master } = created?;
        let pid = container.state.init_process_pid;
        // Of another init than systemd nothing would come.
        let tells = machine.notify && container.state.init == Some(Init::Systemd);
        let dir = container.dir.clone();
        // `start` takes the lock itself; the machine's own keeps others away.
        drop(container);
        let notify = if tells { Notify::listen(&dir) } else { Ok(None) };
        let started = notify
            .map_err(Error::from)
            .and_then(|notify| self.connect(&machine, pid).map(|()| notify))
            .and_then(|notify| {
                let notify = notify.as_ref().map(Notify::as_fd);
                let devices = network::devices(&machine);
                let given = Given { name: name.to_owned(), pid, devices, ..Given::default() };
                hand.give(given, pidfd.as_fd(), master.as_ref().map(AsFd::as_fd), notify)
            })
            .and_then(|()| Ok(self.runtime.start(name)?));
        started.inspect_err(|_| {
            if let Err(error) = self.runtime.delete(name, true) {
                self.runtime.log.warn(error);
            }
        })
    }

    /// Connects a machine whose init waits to be started.
    fn connect(&self, machine: &Machine, pid: i32) -> Result<()> {
        if machine.networks.is_empty() {
            return Ok(());
        }
        let namespace = path::open(format!("/proc/{pid}/ns/net"), libc::O_RDONLY, 0)?;
        for (number, network) in machine.networks.iter().enumerate() {
            let interface = format!("eth{number}");
            let connected = match network {
                Attachment::Network { network, address, dhcp } => self
                    .home
                    .network(network)
                    .and_then(|network| network.attach(&namespace, &interface, *address, !dhcp, number == 0)),
                Attachment::Macvlan { parent } => Links::open()?.add_macvlan(&interface, parent, &namespace),
                // The runtime has moved it.
                Attachment::Device { .. } => Ok(()),
            };
            connected.map_err(|error| error.during(format_args!("connect {interface}")))?;
        }
        Ok(())
    }

    /// Whom a machine asks for names whose address is set from outside: the server of its network, or the host's.
    fn write_resolver(&self, machine: &Machine) -> Result<()> {
        let set = |network: &Attachment| match network {
            Attachment::Network { network, dhcp: false, .. } => Some(self.home.network(network)),
            _ => None,
        };
        let networks: Vec<_> = machine.networks.iter().filter_map(set).collect::<Result<_>>()?;
        if networks.is_empty() {
            return Ok(());
        }
        let is_there = Server::is_installed();
        let named: Vec<_> = networks.iter().filter(|network| network.names && is_there).collect();
        let text = match named.first() {
            // It knows whom to ask for the names of the others.
            Some(first) => {
                let search: Vec<_> = named.iter().map(|network| format!("{}.internal", network.name)).collect();
                format!("nameserver {}\nsearch {}\n", first.range.gateway(), search.join(" "))
            }
            None => {
                let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
                let is_of_use = |line: &&str| {
                    line.strip_prefix("nameserver ").is_some_and(|address| !address.trim().starts_with(LOOPBACK))
                };
                host.lines().filter(is_of_use).map(|line| format!("{line}\n")).collect()
            }
        };
        let file = self.home.machine(&machine.name).join("resolv.conf");
        home::write_text(&file, text.as_bytes(), false)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))
            .map_err(|error| Error::io(format_args!("open {} for the machine", file.display()), &error))
    }
}
