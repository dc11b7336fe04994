//! systemd over D-Bus: transient units, their properties, their end.
//!
//! A client of our own, because a container starts by clone3 of this process: it must stay single-threaded, and what
//! it loads counts in every start. zbus runs an executor on its own thread; rustbus has no release since 2023. Five
//! methods and one signal are all that is needed.

mod address;
mod connection;
mod wire;

use crate::Error;
use address::Address;
use connection::{Connection, PATIENCE, bus_call};
use offshoot_plan::cgroup::systemd::{SystemdUnit, Value};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use wire::{Call, Encoder, Message};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const JOB_REMOVED: &str =
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Why systemd did not do as told; the cause in an [`Error`].
#[derive(Debug)]
enum Failure {
    /// A system call with its arguments, and what it gave.
    System(String, nix::Error),
    /// Nothing came within [`PATIENCE`].
    Timeout,
    /// What came was not what D-Bus or systemd promise.
    Protocol(String),
    /// The bus or systemd said no.
    Remote { name: String, text: String },
}

impl Failure {
    fn is_remote(&self, error: &str) -> bool {
        matches!(self, Failure::Remote { name, .. } if name.strip_prefix(SYSTEMD).and_then(|n| n.strip_prefix('.')) == Some(error))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::System(call, errno) => write!(f, "{call}: {}", errno.desc().to_lowercase()),
            Failure::Timeout => write!(f, "no answer within {} s", PATIENCE.as_secs()),
            Failure::Protocol(what) => f.write_str(what),
            Failure::Remote { name, text } if text.is_empty() => write!(f, "{name}"),
            Failure::Remote { name, text } => write!(f, "{text} ({name})"),
        }
    }
}

/// A connection to one systemd: the system's, or the user's.
pub struct Bus {
    connection: Connection,
    /// Whether a bus daemon stands between, which sends signals only to those who ask.
    daemon: bool,
}

impl Bus {
    /// Connects to the system's systemd, or with `user` to the systemd of the user: `$DBUS_SESSION_BUS_ADDRESS`, or
    /// what listens in `$XDG_RUNTIME_DIR`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(user: bool) -> Result<Bus, Error> {
        let mut failure = Failure::Protocol("no address to try".into());
        match addresses(user, |name| std::env::var_os(name)) {
            Err(wrong) => failure = wrong,
            Ok(list) => {
                for (address, daemon) in list {
                    match Connection::open(&address).and_then(|connection| Bus::over(connection, daemon)) {
                        Ok(bus) => return Ok(bus),
                        Err(wrong) => failure = wrong,
                    }
                }
            }
        }
        let (whose, hint) = if user {
            ("the user's systemd", "rootless containers need a user session with D-Bus (package dbus-user-session)")
        } else {
            ("systemd", "is systemd pid 1 of this host? without it, leave out --systemd-cgroup")
        };
        Err(Error::new(format!("failed to connect to {whose}: {failure}\nhint: {hint}")))
    }

    fn over(mut connection: Connection, daemon: bool) -> Result<Bus, Failure> {
        if daemon {
            connection.call(&bus_call("Hello", "", Encoder::default()))?;
        }
        Ok(Bus { connection, daemon })
    }

    /// Starts a transient unit with `pids` in it, and waits until they are.
    ///
    /// # Errors
    /// When systemd refuses, or the unit exists and is not a failed one left behind.
    pub fn start_unit(&mut self, unit: &SystemdUnit, pids: &[u32]) -> Result<(), Error> {
        let failed = |cause: String| Error::new(format!("failed to start systemd unit {:?}: {cause}", unit.name));
        let mut started = self.try_start(unit, pids);
        if started.as_ref().is_err_and(|failure| failure.is_remote("UnitExists")) {
            // A failed unit of that name may be left over; once reset, systemd forgets it.
            let _ = self.reset(&unit.name);
            started = self.try_start(unit, pids);
        }
        match started {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let _ = self.reset(&unit.name);
                Err(failed(format!("its job ended with {result:?}")))
            }
            Err(failure) => {
                if matches!(failure, Failure::Timeout) {
                    let _ = self.reset(&unit.name);
                }
                Err(failed(failure.to_string()))
            }
        }
    }

    fn try_start(&mut self, unit: &SystemdUnit, pids: &[u32]) -> Result<String, Failure> {
        self.watch_jobs()?;
        let pids = Value::u32s(pids);
        let mut body = Encoder::default();
        body.str(&unit.name);
        body.str("replace");
        body.properties(unit.properties.iter().map(|(name, value)| (name.as_str(), value)).chain([("PIDs", &pids)]));
        // Auxiliary units: none. `a(sa(sv))` is empty as `a(sv)` is.
        body.properties(std::iter::empty());
        let reply = self.connection.call(&manager_call("StartTransientUnit", "ssa(sv)a(sa(sv))", body))?;
        self.job_result(&reply)
    }

    /// Stops a unit and waits until it is gone. A unit that does not exist has stopped; one whose job ends badly has
    /// left processes, which the cgroup's removal finds.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub fn stop_unit(&mut self, name: &str) -> Result<(), Error> {
        let stopped = self.try_stop(name);
        // A failed unit stays until it is reset.
        let _ = self.reset(name);
        match stopped {
            Err(failure) if !failure.is_remote("NoSuchUnit") => {
                Err(Error::new(format!("failed to stop systemd unit {name:?}: {failure}")))
            }
            _ => Ok(()),
        }
    }

    fn try_stop(&mut self, name: &str) -> Result<String, Failure> {
        self.watch_jobs()?;
        let mut body = Encoder::default();
        body.str(name);
        body.str("replace");
        let reply = self.connection.call(&manager_call("StopUnit", "ss", body))?;
        self.job_result(&reply)
    }

    /// Sets properties of a unit until the next boot.
    ///
    /// # Errors
    /// When systemd refuses one; none is set then.
    pub fn set_properties(&mut self, name: &str, properties: &[(String, Value)]) -> Result<(), Error> {
        let mut body = Encoder::default();
        body.str(name);
        body.bool(true);
        body.properties(properties.iter().map(|(name, value)| (name.as_str(), value)));
        match self.connection.call(&manager_call("SetUnitProperties", "sba(sv)", body)) {
            Ok(_) => Ok(()),
            Err(failure) => Err(Error::new(format!("failed to set properties of systemd unit {name:?}: {failure}"))),
        }
    }

    /// Moves processes into the unit's cgroup, or a cgroup below it (`/init`), which systemd can do where a rootless
    /// caller cannot.
    ///
    /// # Errors
    /// When systemd refuses.
    pub fn attach(&mut self, name: &str, subcgroup: &str, pids: &[u32]) -> Result<(), Error> {
        let mut body = Encoder::default();
        body.str(name);
        body.str(subcgroup);
        body.value(&Value::u32s(pids));
        match self.connection.call(&manager_call("AttachProcessesToUnit", "ssau", body)) {
            Ok(_) => Ok(()),
            Err(failure) => Err(Error::new(format!("failed to attach {pids:?} to systemd unit {name:?}: {failure}"))),
        }
    }

    /// Makes systemd forget a failed unit.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn reset_failed(&mut self, name: &str) -> Result<(), Error> {
        self.reset(name)
            .map_err(|failure| Error::new(format!("failed to reset failed systemd unit {name:?}: {failure}")))
    }

    fn reset(&mut self, name: &str) -> Result<(), Failure> {
        let mut body = Encoder::default();
        body.str(name);
        self.connection.call(&manager_call("ResetFailedUnit", "s", body)).map(drop)
    }

    /// systemd's version: 252.
    ///
    /// # Errors
    /// When systemd does not tell.
    pub fn version(&mut self) -> Result<u32, Error> {
        let text = self
            .property(MANAGER_PATH, MANAGER, "Version")
            .and_then(|text| version(&text).ok_or_else(|| Failure::Protocol(format!("it says {text:?}"))));
        text.map_err(|failure| Error::new(format!("failed to read systemd's version: {failure}")))
    }

    /// The cgroup in which systemd keeps its units: empty for the system's, `/user.slice/…` for a user's.
    ///
    /// # Errors
    /// When systemd does not tell.
    pub fn manager_control_group(&mut self) -> Result<String, Error> {
        self.property(MANAGER_PATH, MANAGER, "ControlGroup")
            .map_err(|failure| Error::new(format!("failed to read systemd's own cgroup: {failure}")))
    }

    /// The cgroup of a running unit, from the root of the hierarchy; empty when it has none.
    ///
    /// # Errors
    /// When systemd does not tell.
    pub fn control_group(&mut self, name: &str) -> Result<String, Error> {
        let interface = if name.ends_with(".slice") { "Slice" } else { "Scope" };
        self.property(&unit_path(name), &format!("{SYSTEMD}.{interface}"), "ControlGroup")
            .map_err(|failure| Error::new(format!("failed to read the cgroup of systemd unit {name:?}: {failure}")))
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String, Failure> {
        let mut body = Encoder::default();
        body.str(interface);
        body.str(name);
        let call = Call {
            destination: SYSTEMD,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body,
        };
        let reply = self.connection.call(&call)?;
        let mut value = reply.body("v")?;
        match value.signature()? {
            "s" => Ok(value.str()?.to_owned()),
            other => Err(Failure::Protocol(format!("{name} is of type {other:?}, not a string"))),
        }
    }

    /// Asks for the signals that end a job. systemd sends them to whoever made the job, without `Subscribe`.
    fn watch_jobs(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.daemon) {
            let mut body = Encoder::default();
            body.str(JOB_REMOVED);
            self.connection.tell(&bus_call("AddMatch", "s", body))?;
        }
        Ok(())
    }

    /// How the job ends that `reply` tells of. systemd answers the call before it runs the job, and a bus keeps the
    /// order, so the signal cannot have passed already.
    fn job_result(&mut self, reply: &Message) -> Result<String, Failure> {
        let job = reply.body("o")?.str()?;
        self.connection.wait_signal(|signal| {
            // Any process may send a signal of that name to a connection of the system bus; the bus vouches for the sender.
            if signal.member != "JobRemoved" || signal.interface != MANAGER || signal.sender != reply.sender {
                return Ok(None);
            }
            let mut body = signal.body("uoss")?;
            body.u32()?;
            if body.str()? != job {
                return Ok(None);
            }
            body.str()?;
            body.str().map(|result| Some(result.to_owned()))
        })
    }
}

/// Whether the systemd to ask is an ordinary user's. For root of a user namespace, who may be such a user with a map
/// (Podman), or the administrator of a whole system in a container, who has a systemd as pid 1.
#[must_use]
pub fn is_users() -> bool {
    let manager = Bus::connect(true).and_then(|mut bus| bus.manager_control_group());
    manager.is_ok_and(|cgroup| owner(&cgroup) != 0)
}

/// Whose service manager is in this cgroup: `/user.slice/user-1000.slice/user@1000.service`. Ids would not tell: they
/// are mapped, the names of cgroups are not.
fn owner(cgroup: &str) -> u32 {
    let mut ids = cgroup.split('/').filter_map(|name| name.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok());
    ids.next_back().unwrap_or(0)
}

fn manager_call<'a>(member: &'a str, signature: &'a str, body: Encoder) -> Call<'a> {
    Call { destination: SYSTEMD, path: MANAGER_PATH, interface: MANAGER, member, signature, body }
}

/// The sockets to try, and whether a bus daemon is behind each. systemd's own socket comes before the daemon's: it
/// is there without a daemon, and spares every message a hop; systemctl does the same.
fn addresses(user: bool, var: impl Fn(&str) -> Option<OsString>) -> Result<Vec<(Address, bool)>, Failure> {
    let runtime_dir = var("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let named = if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" };
    if let Some(text) = var(named).filter(|text| !text.is_empty()) {
        let list = Address::parse_list(text.as_bytes(), runtime_dir.as_ref())?;
        return Ok(list.into_iter().map(|address| (address, true)).collect());
    }
    let path = |path: PathBuf| Address::Path(path);
    match (user, runtime_dir) {
        (false, _) => {
            Ok(vec![(path("/run/systemd/private".into()), false), (path("/run/dbus/system_bus_socket".into()), true)])
        }
        (true, Some(dir)) => {
            let dir = PathBuf::from(dir);
            Ok(vec![(path(dir.join("systemd/private")), false), (path(dir.join("bus")), true)])
        }
        (true, None) => Err(Failure::Protocol("neither $DBUS_SESSION_BUS_ADDRESS nor $XDG_RUNTIME_DIR is set".into())),
    }
}

/// `252.39-1~deb12u1`, `v245.4`, `257` begin with the number.
fn version(text: &str) -> Option<u32> {
    let number = text.trim_start_matches(['"', 'v']);
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

/// systemd's object path for a unit: all but letters and digits escaped, and a digit at the start.
fn unit_path(name: &str) -> String {
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests;
