//! What a machine is: `machines/NAME/machine.json`, beside the `config.json` that is made from it.

use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::home::{self, Held, Home, VERSION, absent};
use crate::name;
use crate::network::Attachment;
use crate::volume::Volume;
use offshoot_spec::{BlockIo, Cpu, Memory, Pids, Resources};
use offshoot_sys::libc::LOCK_EX;
use offshoot_sys::path;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// Microseconds of a period in which a machine gets its share of processors. The kernel's default.
const PERIOD: u64 = 100_000;

/// A machine, as its file has it. docs/machines.md describes the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Machine {
    /// Of the file: see [`VERSION`].
    pub version: u32,
    /// Its name, which is that of its container, its clone and its host.
    pub name: String,
    /// The image that it was cloned from.
    pub image: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The program that is its pid 1, and its arguments, with spaces between them.
    pub init: String,
    /// What it is connected to; the first is `eth0`.
    pub networks: Vec<Attachment>,
    /// What it may use.
    pub limits: Limits,
    /// Whether `start --autostart`, which the host does at boot, starts it.
    pub autostart: bool,
    /// Lower ones start earlier, and stop later.
    pub order: i64,
    /// Whether a systemd in it runs without what a farm of test machines does not need.
    pub lean: bool,
    /// Whether its init says when it has booted, as systemd does.
    pub notify: bool,
    /// `KEY=value` of its init.
    pub env: Vec<String>,
    /// Devices of the host that it gets.
    pub devices: Vec<String>,
    /// What it sees of the host's files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Which system calls it is refused.
    pub seccomp: Filter,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            version: VERSION,
            name: String::new(),
            image: String::new(),
            created: String::new(),
            init: "/sbin/init".to_owned(),
            networks: Vec::new(),
            limits: Limits::default(),
            autostart: false,
            order: 0,
            lean: false,
            notify: false,
            env: Vec::new(),
            devices: Vec::new(),
            volumes: Vec::new(),
            seccomp: Filter::default(),
        }
    }
}

/// What a machine may use. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Processors, in thousandths: 1500 is one and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// Which processors, as `0-3,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// Processor time relative to others that want some, 2 to 262144; the default is 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Weight of block I/O, 10 to 1000; the default is 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<u16>,
}

/// A change of limits: for each, nothing, or the new value with `None` for no limit.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "as in Limits")]
pub struct Change {
    pub cpus: Option<Option<u64>>,
    pub cpuset: Option<String>,
    pub shares: Option<u64>,
    pub memory: Option<Option<u64>>,
    pub pids: Option<Option<u64>>,
    pub io: Option<u16>,
}

impl Change {
    /// The limits with this change.
    pub fn apply(&self, limits: &mut Limits) {
        fn set<T: Clone>(new: &Option<T>, old: &mut Option<T>) {
            if let Some(new) = new {
                *old = Some(new.clone());
            }
        }
        fn lift<T: Clone>(new: &Option<Option<T>>, old: &mut Option<T>) {
            if let Some(new) = new {
                old.clone_from(new);
            }
        }
        lift(&self.cpus, &mut limits.cpus);
        set(&self.cpuset, &mut limits.cpuset);
        set(&self.shares, &mut limits.shares);
        lift(&self.memory, &mut limits.memory);
        lift(&self.pids, &mut limits.pids);
        set(&self.io, &mut limits.io);
    }

    /// The change for a cgroup that has other limits now.
    pub fn resources(&self) -> Resources {
        let mut wanted = Limits::default();
        self.apply(&mut wanted);
        let mut resources = wanted.resources();
        if self.cpus == Some(None) {
            resources.cpu.get_or_insert_default().quota = Some(-1);
        }
        if self.memory == Some(None) {
            resources.memory = Some(Memory { limit: Some(-1), swap: Some(-1), ..Memory::default() });
        }
        if self.pids == Some(None) {
            resources.pids = Some(Pids { limit: Some(-1) });
        }
        resources
    }
}

impl Limits {
    /// As the runtime takes them. spec: config-linux.md#control-groups
    pub fn resources(&self) -> Resources {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let cpu = Cpu {
            quota: self.cpus.map(|thousandths| signed(thousandths.saturating_mul(PERIOD) / 1000)),
            period: self.cpus.map(|_| PERIOD),
            shares: self.shares,
            cpus: self.cpuset.clone().unwrap_or_default(),
            ..Cpu::default()
        };
        Resources {
            cpu: (cpu != Cpu::default()).then_some(cpu),
            memory: self.memory.map(|bytes| Memory { limit: Some(signed(bytes)), ..Memory::default() }),
            pids: self.pids.map(|number| Pids { limit: Some(signed(number)) }),
            block_io: self.io.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
            ..Resources::default()
        }
    }
}

/// Reads a number of processors: `2`, `0.5`; `max` is no limit. In thousandths.
///
/// # Errors
/// It is none.
pub fn parse_cpus(text: &str) -> Result<Option<u64>> {
    let bad = || Error::request(format!("cpus {text:?}: it is a number such as 2 or 0.5, or max"));
    if text == "max" {
        return Ok(None);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return Err(bad());
    }
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let thousandths = whole.parse::<u64>().map_err(|_| bad())? * 1000 + part.parse::<u64>().map_err(|_| bad())?;
    // The kernel's least quota is 1 ms of the period.
    if thousandths < 10 { Err(bad()) } else { Ok(Some(thousandths)) }
}

/// In the directory of a machine that is being removed.
const CLOSED: &str = "removing";
/// What a machine is, and what the runtime makes of that. The second is written after the first, so that an older one tells of a
/// change by hand.
const DEFINITION: &str = "machine.json";
const BUNDLE: &str = "config.json";

impl Home {
    /// The machine of that name.
    ///
    /// # Errors
    /// There is none, or its file cannot be read.
    pub fn load(&self, name: &str) -> Result<Machine> {
        name::check("machine", name)?;
        let file = self.machine(name).join(DEFINITION);
        let machine: Machine = home::read(&file)?.ok_or_else(|| absent("machine", name))?;
        // That of a directory that somebody has copied or renamed: its clone and its addresses are the other's.
        match machine.name == name {
            true => Ok(machine),
            false => Err(Error::failed(
                format_args!("read {}", file.display()),
                format_args!("it is of machine {:?}", machine.name),
            )
            .hint("machine clone makes another machine of one")),
        }
    }

    /// Whether a machine was changed by hand since what follows from that was made.
    pub(crate) fn is_edited(&self, name: &str) -> bool {
        let changed = |file| fs::metadata(self.machine(name).join(file)).and_then(|meta| meta.modified());
        match (changed(DEFINITION), changed(BUNDLE)) {
            (Ok(definition), Ok(bundle)) => definition > bundle,
            (definition, _) => definition.is_ok(),
        }
    }

    /// The names of all machines.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn machine_names(&self) -> Result<Vec<String>> {
        let names = home::names(&self.machines())?;
        // One that is being made or removed has another name.
        Ok(names.into_iter().filter(|name| name::check("machine", name).is_ok()).collect())
    }

    /// Writes a machine down that is there already.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, machine: &Machine) -> Result<()> {
        let dir = self.machine(&machine.name);
        if machine.lean {
            // An earlier version may have made less than the new file names.
            self.make_lean()?;
        }
        let config = self.config(machine)?;
        home::write(&dir.join(DEFINITION), machine, true)?;
        home::write_text(&dir.join(BUNDLE), &config, true)
    }

    /// Writes machines down, on disk when this returns, under names that no machine has: none is there before all are, whenever
    /// this process is killed. The caller has the lock of all.
    ///
    /// # Errors
    /// A file cannot be written; what is there by then is for [`Home::take_back`].
    pub(crate) fn prepare(&self, machines: &[Machine]) -> Result<()> {
        for machine in machines {
            let new = self.prepared(&machine.name);
            let failed = |error: &io::Error| Error::io(format_args!("make {}", new.display()), error);
            let _ = fs::remove_dir_all(&new);
            fs::create_dir(&new).map_err(|error| failed(&error))?;
            home::write(&new.join(DEFINITION), machine, false)?;
            home::write_text(&new.join(BUNDLE), &self.config(machine)?, false)?;
        }
        let dir = self.machines();
        let opened = File::open(&dir).map_err(|error| Error::io(format_args!("open {}", dir.display()), &error))?;
        // Once for all of them.
        Ok(offshoot_sys::fsattr::syncfs(&opened)?)
    }

    /// Gives machines that are prepared their names, on disk when this returns. Those that have them by now keep them.
    ///
    /// # Errors
    /// A name cannot be given.
    pub(crate) fn show(&self, names: &[String]) -> Result<()> {
        for name in names {
            let dir = self.machine(name);
            match fs::rename(self.prepared(name), &dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(format_args!("make {}", dir.display()), &error));
                }
                _ => {}
            }
        }
        home::sync(&self.machines())
    }

    /// Removes what [`Home::prepare`] and [`Home::show`] have made.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn take_back(&self, names: &[String]) -> Result<()> {
        let remove =
            |name: &String| home::remove_dir(&self.machine(name)).and_then(|()| home::remove_dir(&self.prepared(name)));
        names.iter().try_for_each(remove)
    }

    fn prepared(&self, name: &str) -> PathBuf {
        self.machine(&format!(".{name}"))
    }

    /// What tells a machine from an earlier or later one of the same name; empty where there is none.
    pub(crate) fn birth(&self, name: &str) -> String {
        let Ok(meta) = self.machine(name).metadata() else { return String::new() };
        // An inode's number alone is given out again at once. Not all file systems know the time.
        let born = meta.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
        format!("{}.{}", meta.ino(), born.map_or(0, |born| born.as_nanos()))
    }

    /// Waits until no other command starts, stops, changes or removes the machine.
    ///
    /// # Errors
    /// There is no such machine, or no longer.
    pub fn lock(&self, name: &str) -> Result<MachineLock> {
        name::check("machine", name)?;
        let dir = self.machine(name);
        let file = File::open(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => absent("machine", name),
            _ => Error::io(format_args!("open {}", dir.display()), &error),
        })?;
        path::flock(&file, LOCK_EX).map_err(|error| Error::failed(format_args!("lock machine {name:?}"), error))?;
        // Another may have removed it, and made a new one of that name, since it was opened.
        match dir.join(DEFINITION).exists() {
            true => Ok(MachineLock(file)),
            false => Err(absent("machine", name)),
        }
    }

    /// Removes the definition of a machine.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn forget(&self, name: &str, _held: &Held) -> Result<()> {
        let (dir, old) = (self.machine(name), self.prepared(name));
        let failed = |error: &io::Error| Error::io(format_args!("remove {}", dir.display()), error);
        let _ = fs::remove_dir_all(&old);
        match fs::rename(&dir, &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(|error| failed(&error))?,
        }
        fs::remove_dir_all(&old).map_err(|error| failed(&error))
    }

    /// Has no start of a machine succeed any more, since it is being removed: the caller holds its lock.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    pub fn close(&self, name: &str) -> Result<()> {
        let file = self.machine(name).join(CLOSED);
        match fs::write(&file, b"") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("write {}", file.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// Whether [`Home::close`] was called for a machine.
    pub fn is_closed(&self, name: &str) -> bool {
        self.machine(name).join(CLOSED).exists()
    }

    /// Checks that none of `names` is there.
    ///
    /// # Errors
    /// One is.
    pub fn check_new(&self, names: &[String]) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        names.iter().try_for_each(|name| {
            name::check("machine", name)?;
            if !seen.insert(name) {
                return Err(Error::request(format!("machine {name:?} is named twice")));
            }
            match self.machine(name).exists() {
                true => Err(Error::new(Kind::Exists, format!("there is a machine {name:?} already"))),
                false => Ok(()),
            }
        })
    }
}

/// The right to change one machine, until dropped.
#[derive(Debug)]
pub struct MachineLock(#[expect(dead_code, reason = "holds the lock")] File);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn machine(name: &str) -> Machine {
        Machine { name: name.to_owned(), image: "debian".to_owned(), ..Machine::default() }
    }

    fn home(scratch: &Scratch) -> Home {
        let home = Home::new(scratch.path());
        drop(home.lock_machines().unwrap());
        home
    }

    #[test]
    fn a_machine_survives_the_disk() {
        let scratch = Scratch::new("definition");
        let home = home(&scratch);
        let limits = Limits { cpus: Some(1500), memory: Some(1 << 30), ..Limits::default() };
        let network = Attachment::Network { network: "web".into(), address: [10, 83, 0, 2].into(), dhcp: false };
        let mut one = Machine { limits, networks: vec![network], ..machine("one") };
        home.prepare(&[one.clone(), machine("two")]).unwrap();
        assert!(home.machine_names().unwrap().is_empty());
        let names = ["one", "two"].map(str::to_owned);
        home.show(&names).unwrap();
        home.show(&names).unwrap();
        assert_eq!(home.machine_names().unwrap(), ["one", "two"]);
        let (birth, other) = (home.birth("one"), home.birth("two"));
        assert!(birth != other && home.birth("three").is_empty());
        assert_eq!(home.load("one").unwrap(), one);
        one.order = 5;
        home.save(&one).unwrap();
        assert_eq!(home.load("one").unwrap().order, 5);
        assert!(home.check_new(&["three".into()]).is_ok());
        assert!(home.check_new(&["two".into()]).is_err() && home.check_new(&["x".into(), "x".into()]).is_err());
        let held = home.lock_machines().unwrap();
        home.forget("one", &held).unwrap();
        home.forget("one", &held).unwrap();
        assert_eq!(home.machine_names().unwrap(), ["two"]);
        home.prepare(&[one.clone()]).unwrap();
        home.show(&names).unwrap();
        assert!(home.birth("one") != birth && home.birth("two") == other);
        home.forget("one", &held).unwrap();
        assert_eq!(home.load("one").unwrap_err().to_string(), "there is no machine \"one\"");
        assert_eq!(home.lock("one").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_machine_of_a_later_version_is_refused_and_an_earlier_one_read() {
        let scratch = Scratch::new("versions");
        let home = home(&scratch);
        let file = home.machine("x").join("machine.json");
        fs::create_dir(home.machine("x")).unwrap();
        fs::write(&file, r#"{"version":1,"name":"x","image":"i"}"#).unwrap();
        assert_eq!(home.load("x").unwrap(), Machine { name: "x".into(), image: "i".into(), ..Machine::default() });
        fs::write(&file, r#"{"version":9,"name":"x"}"#).unwrap();
        assert!(home.load("x").unwrap_err().to_string().contains("later version"));
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        for (text, value) in
            [("2", Some(2000)), ("0.5", Some(500)), ("1.25", Some(1250)), ("0.0101", Some(10)), ("max", None)]
        {
            assert_eq!(parse_cpus(text).unwrap(), value, "{text}");
        }
        for text in ["", ".", "-1", "0", "0.001", "x", "1.x", "1e3", "1.2.3"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_those_of_the_runtime_and_can_be_lifted() {
        let limits = Limits { cpus: Some(250), shares: Some(256), pids: Some(9), io: Some(10), ..Limits::default() };
        let resources = limits.resources();
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period, cpu.shares), (Some(25_000), Some(100_000), Some(256)));
        assert_eq!((resources.pids.unwrap().limit, resources.memory), (Some(9), None));
        assert_eq!(Limits::default().resources(), Resources::default());
        let change = Change { memory: Some(None), cpus: Some(None), pids: Some(Some(7)), ..Change::default() };
        let mut changed = Limits { memory: Some(5), shares: Some(3), ..limits };
        change.apply(&mut changed);
        assert_eq!((changed.memory, changed.cpus, changed.shares, changed.pids), (None, None, Some(3), Some(7)));
        let live = change.resources();
        assert_eq!((live.memory.unwrap().limit, live.cpu.unwrap().quota), (Some(-1), Some(-1)));
    }
}
