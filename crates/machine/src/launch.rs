//! `launch` up to where machines start: addresses, clones and definitions, all or none.

use crate::definition::Machine;
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::home::{self, Held, VERSION};
use crate::machines::Machines;
use crate::network::{Attachment, DEFAULT, Wanted};
use crate::valid;
use offshoot_snapshot::{Choice, CloneOptions, Name, Store};
use offshoot_spec::time::rfc3339;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The snapshot of a machine that runs, of which an image is made.
const MOMENT: &str = "being-cloned";

/// Machines that are being made, as a file has them meanwhile.
#[derive(Serialize, Deserialize)]
struct Making {
    version: u32,
    names: Vec<String>,
    /// Whether all of them are on disk, and only their names are to be given: whoever finds it so goes on with that. Before, what
    /// there is of them is taken back.
    #[serde(default)]
    whole: bool,
}

/// Machines to be made.
#[derive(Clone, Debug)]
pub struct NewMachines {
    /// Their names.
    pub names: Vec<String>,
    /// What they have in common; name, image name, networks, time and filter are filled in.
    pub like: Machine,
    /// Which system calls they are refused; `None` is what fits the image.
    pub seccomp: Option<Filter>,
    /// What they are connected to; `None` is the network `default` where there is one.
    pub networks: Option<Vec<Wanted>>,
    /// The address of the only machine in its first network.
    pub address: Option<Ipv4Addr>,
    /// Whether guests ask for their addresses by DHCP.
    pub dhcp: bool,
    /// The storage driver of the clones.
    pub driver: Choice,
}

impl Machines {
    /// Makes machines; they do not run yet.
    ///
    /// # Errors
    /// The image is not there, a name is taken, or something of them cannot be made. Then none of them is there.
    pub fn define(&self, wanted: &NewMachines) -> Result<()> {
        valid::networks(wanted.networks.as_deref().unwrap_or_default())?;
        self.make(wanted)
    }

    fn make(&self, wanted: &NewMachines) -> Result<()> {
        let held = self.home.lock_machines()?;
        self.recover(&held)?;
        let store = self.store()?;
        let image = store.image(&wanted.like.image).map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            let error = Error::from(error);
            hint.map_or(error.clone(), |hint| error.hint(hint))
        })?;
        valid::machine(&wanted.like, &store, &image)?;
        // Devices are looked at as it is written.
        self.home.config(&wanted.like)?;
        self.check_names(&wanted.names, &store)?;
        let mut options = CloneOptions { keep: true, driver: wanted.driver, size: None };
        options.driver = Choice::Fixed(store.choose(&options)?);
        let notify = ["usr/lib/systemd/systemd", "lib/systemd/systemd"]
            .iter()
            .any(|program| matches!(store.resolve_file(&image, Path::new(program)), Ok(Some(_))));
        match (wanted.like.lean, notify) {
            (true, true) => self.home.make_lean()?,
            (true, false) => {
                let image = &wanted.like.image;
                self.runtime.log.warn(format_args!("image {image:?} has no systemd, so --lean changes nothing"));
            }
            _ => {}
        }
        let seccomp = wanted.seccomp.clone().unwrap_or_else(|| {
            let fitting = Filter::fitting(&store, &image);
            if fitting == Filter::Compat {
                let image = &wanted.like.image;
                self.runtime.log.info(format_args!("image {image:?} has 32-bit programs, so --seccomp is compat"));
            }
            fitting
        });
        let making = self.making();
        let note =
            |whole| home::write(&making, &Making { version: VERSION, names: wanted.names.clone(), whole }, false);
        note(false)?;
        let given = self.networks(wanted);
        let made = given.and_then(|networks| {
            let clones: std::result::Result<Vec<_>, _> =
                store.clone_many(&image, &wanted.names, &options).into_iter().collect();
            clones?;
            let like = Machine { notify, seccomp, ..wanted.like.clone() };
            self.write_down(&wanted.names, &like, &networks)?;
            note(true)?;
            self.home.show(&wanted.names)
        });
        let undone = match made {
            Ok(()) => Ok(()),
            Err(_) => note(false)
                .and_then(|()| self.home.take_back(&wanted.names))
                .and_then(|()| Ok(store.delete_clones(&wanted.names)?))
                .and_then(|()| self.home.give_back_addresses(&self.network_run(), &wanted.names)),
        };
        // What could not be undone is tried again by the next that has the lock. What led here is what to tell.
        let gone = undone.and_then(|()| home::remove(&making));
        made.and(gone)
    }

    /// Checks that nobody has these names.
    fn check_names(&self, names: &[String], store: &Store) -> Result<()> {
        self.home.check_new(names)?;
        // Others may have something that is not a machine's.
        for name in names {
            let exists = |what| Error::new(Kind::Exists, format!("there is a {what} {name:?} already"));
            if self.container(name)?.is_some() {
                return Err(exists("container").hint(format!("offshoot delete {name}, or choose another name")));
            }
            if store.find_clone(name).is_ok() {
                return Err(exists("clone").hint(format!("offshoot clone rm {name}, or choose another name")));
            }
        }
        Ok(())
    }

    /// Takes back what a process that was killed has begun to make or to remove, or ends what it had all but done.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub fn recover(&self, _held: &Held) -> Result<()> {
        let making: Option<Making> = home::read(&self.making())?;
        if let Some(Making { names, whole: true, .. }) = &making {
            self.home.show(names)?;
            home::remove(&self.making())?;
        }
        for name in home::names(&self.home.machines())?.iter().filter(|name| name.starts_with('.')) {
            home::remove_dir(&self.home.machines().join(name))?;
        }
        let Some(Making { names, whole: false, .. }) = making else { return Ok(()) };
        // An earlier version gave each its name at once.
        let names: Vec<_> = names.into_iter().filter(|name| !self.home.machine(name).exists()).collect();
        self.store()?.delete_clones(&names)?;
        self.home.give_back_addresses(&self.network_run(), &names)?;
        home::remove(&self.making())
    }

    /// [`Machines::recover`], where a process was killed that had begun to make machines and nobody has it by now.
    pub(crate) fn recover_left(&self) -> Result<()> {
        if !self.making().exists() {
            return Ok(());
        }
        // Another makes them, or sees to it.
        self.home.try_lock_machines()?.map_or(Ok(()), |held| self.recover(&held))
    }

    /// The names of machines that are being made: what has them is nobody else's.
    fn making(&self) -> PathBuf {
        self.home.path.join("machines.making")
    }

    /// Makes machines of another one: what its file system has changed becomes an image, `machine/NAME`. One that runs stands
    /// still for a snapshot only, of which the image is made.
    ///
    /// # Errors
    /// As [`Machines::snapshot`] and [`Machines::define`].
    pub fn copy(&self, source: &str, names: &[String]) -> Result<()> {
        let what = format!("clone machine {source:?}");
        let lock = self.home.lock(source)?;
        let like = self.home.load(source)?;
        let store = self.store()?;
        self.check_names(names, &store)?;
        let driver = store.find_clone(source)?.driver();
        self.commit(source).map_err(|error| error.during(what))?;
        drop(lock);
        let networks = like.networks.iter().map(|network| match network {
            Attachment::Network { network, .. } => Wanted::Network(network.clone()),
            Attachment::Macvlan { parent } => Wanted::Macvlan(parent.clone()),
            Attachment::Device { device } => Wanted::Device(device.clone()),
        });
        // An interface may be in the machine that is cloned.
        self.make(&NewMachines {
            names: names.to_vec(),
            networks: Some(networks.collect()),
            address: None,
            dhcp: like.networks.iter().any(|network| matches!(network, Attachment::Network { dhcp: true, .. })),
            driver: Choice::Fixed(driver),
            seccomp: Some(like.seccomp.clone()),
            like: Machine { image: format!("machine/{source}"), ..like },
        })
    }

    /// Makes an image of a machine that is locked.
    fn commit(&self, source: &str) -> Result<()> {
        let store = self.store()?;
        let names = [Name::parse(&format!("machine/{source}"))?];
        let mut clone = store.find_clone(source)?;
        if !self.is_running(source)? {
            store.commit(&clone, &names, &mut |_| {})?;
            return Ok(());
        }
        // That of a process that was killed.
        match clone.delete_snapshot(MOMENT) {
            Err(error) if error.kind() != offshoot_snapshot::Kind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.snapshot_locked(source, MOMENT)?;
        let committed = clone.at(MOMENT).and_then(|then| store.commit(&then, &names, &mut |_| {}));
        let deleted = clone.delete_snapshot(MOMENT);
        committed?;
        Ok(deleted?)
    }

    /// Takes the machines' addresses: for each network, one for each machine.
    fn networks(&self, wanted: &NewMachines) -> Result<Vec<Vec<Attachment>>> {
        let chosen = match &wanted.networks {
            Some(chosen) => chosen.clone(),
            None if self.home.network(DEFAULT).is_ok() => vec![Wanted::Network(DEFAULT.to_owned())],
            None => Vec::new(),
        };
        if (wanted.address.is_some() || wanted.dhcp) && !matches!(chosen.first(), Some(Wanted::Network(_))) {
            return Err(Error::request("an address is wanted, but the first network is none of ours"));
        }
        let count = wanted.names.len();
        if count > 1 && chosen.iter().any(|network| matches!(network, Wanted::Device(_))) {
            return Err(Error::request("an interface of the host can move into one machine only"));
        }
        let mut all = vec![Vec::new(); count];
        for (number, network) in chosen.into_iter().enumerate() {
            match network {
                Wanted::Network(name) => {
                    let network = self.home.network(&name)?;
                    let address = wanted.address.filter(|_| number == 0);
                    let given = self.home.take_addresses(&network, &wanted.names, address)?;
                    for (machine, address) in all.iter_mut().zip(given) {
                        machine.push(Attachment::Network { network: name.clone(), address, dhcp: wanted.dhcp });
                    }
                }
                Wanted::Macvlan(parent) => {
                    all.iter_mut().for_each(|machine| machine.push(Attachment::Macvlan { parent: parent.clone() }));
                }
                Wanted::Device(device) => {
                    all.iter_mut().for_each(|machine| machine.push(Attachment::Device { device: device.clone() }));
                }
            }
        }
        Ok(all)
    }

    fn write_down(&self, names: &[String], like: &Machine, networks: &[Vec<Attachment>]) -> Result<()> {
        let created = rfc3339(SystemTime::now());
        let one = |(name, networks): (&String, &Vec<Attachment>)| Machine {
            name: name.clone(),
            created: created.clone(),
            networks: networks.clone(),
            ..like.clone()
        };
        self.home.prepare(&names.iter().zip(networks).map(one).collect::<Vec<_>>())
    }
}
