//! Names and DHCP of one bridge: a dnsmasq that knows our leases and nothing else. man 8 dnsmasq
//!
//! It reads three files that we write: who has which address, for names; which hardware address that is, for guests that
//! ask by DHCP; and who knows the names of other networks. All are read again on SIGHUP. It goes into the background by itself, so it needs nobody; the supervisor
//! starts it again should it end.

use super::Network;
use super::lease::Leases;
use super::range::{hardware, written};
use crate::error::{Error, Result};
use crate::home;
use offshoot_sys::libc::{SIGHUP, SIGTERM};
use offshoot_sys::{Errno, pidfd};
use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the server's files are, of one network.
#[derive(Clone, Debug)]
pub struct Server {
    dir: PathBuf,
}

impl Server {
    /// Of the network `name`, with files below `run`.
    pub fn new(run: &Path, name: &str) -> Server {
        Server { dir: run.join(name) }
    }

    /// Whether the program is there.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Writes what the server reads, and tells it or, with `start`, starts it where it does not run. It passes on what is asked
    /// for the names of `others`: a machine in several networks asks one server.
    ///
    /// # Errors
    /// A file cannot be written, or the server does not start.
    pub fn set_up(&self, network: &Network, leases: &Leases, others: &[Network], start: bool) -> Result<()> {
        let failed = |error: &std::io::Error| Error::io(format_args!("make {}", self.dir.display()), error);
        // The server has given up root's rights when it reads the files again.
        DirBuilder::new().recursive(true).mode(0o755).create(&self.dir).map_err(|error| failed(&error))?;
        let (hosts, reserved) = tables(network, leases);
        self.write("hosts", &hosts)?;
        self.write("reserved", &reserved)?;
        self.write("servers", &servers(network, others))?;
        if let Some(process) = self.process()? {
            return signal(&process, SIGHUP);
        }
        if !start {
            return Ok(());
        }
        self.write("dnsmasq.conf", &self.configuration(network))?;
        self.start()
    }

    fn start(&self) -> Result<()> {
        let what = "start dnsmasq";
        let Some(program) = program() else {
            return Err(Error::failed(what, "it is not installed")
                .hint("install dnsmasq-base, or make the network with --no-names"));
        };
        let mut option = std::ffi::OsString::from("--conf-file=");
        option.push(self.dir.join("dnsmasq.conf"));
        let output = Command::new(program).arg(option).stdin(Stdio::null()).output();
        let output = output.map_err(|error| Error::io(what, &error))?;
        let text = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::failed(what, text.trim().lines().next_back().unwrap_or("it failed without a word"))),
        }
    }

    /// Whether the server was set up, and does not run.
    ///
    /// # Errors
    /// It cannot be looked for.
    pub fn is_down(&self) -> Result<bool> {
        Ok(self.dir.join("dnsmasq.conf").exists() && self.process()?.is_none())
    }

    /// Starts a server again that [`Server::is_down`].
    ///
    /// # Errors
    /// It does not start.
    pub fn revive(&self) -> Result<()> {
        self.start()
    }

    /// Ends the server and removes its files.
    ///
    /// # Errors
    /// It cannot be signalled, or a file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        if let Some(process) = self.process()? {
            signal(&process, SIGTERM)?;
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove {}", self.dir.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// The server's process, if it runs: what has the number in its pid file and was started with our configuration.
    fn process(&self) -> Result<Option<OwnedFd>> {
        let Ok(text) = fs::read_to_string(self.dir.join("pid")) else { return Ok(None) };
        let Ok(pid) = text.trim().parse::<i32>() else { return Ok(None) };
        let process = match pidfd::open(pid) {
            Err(error) if error.errno() == Errno::ESRCH => return Ok(None),
            process => process?,
        };
        // After opening: the number cannot have come to mean another process since.
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = self.dir.join("dnsmasq.conf");
        let is_ours = words.split(|byte| *byte == 0).any(|word| word.ends_with(ours.as_os_str().as_encoded_bytes()));
        Ok(is_ours.then_some(process))
    }

    fn configuration(&self, network: &Network) -> String {
        let dir = self.dir.display();
        let (range, name) = (network.range, &network.name);
        format!(
            "# Written by offshoot; changes are lost.\n\
             pid-file={dir}/pid\n\
             interface={bridge}\nexcept-interface=lo\nbind-interfaces\nlisten-address={gateway}\n\
             no-hosts\naddn-hosts={dir}/hosts\ndomain-needed\nbogus-priv\n\
             domain={name}.internal\nlocal=/{name}.internal/\nexpand-hosts\n\
             dhcp-range={first},static,{mask},1h\ndhcp-authoritative\ndhcp-hostsfile={dir}/reserved\nleasefile-ro\n\
             servers-file={dir}/servers\n\
             dhcp-ignore=tag:!known\ndhcp-no-override\n",
            bridge = network.bridge(),
            gateway = range.gateway(),
            first = range.machines().next().unwrap_or(range.gateway()),
            mask = range.mask(),
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.dir.join(name);
        home::write_text(&file, text.as_bytes(), false)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))
            .map_err(|error| Error::io(format_args!("open {} for the name server", file.display()), &error))
    }
}

/// The hosts file and the reservations.
fn tables(network: &Network, leases: &Leases) -> (String, String) {
    let mut hosts = format!("{} gateway\n", network.range.gateway());
    let mut reserved = String::new();
    for (address, machine) in &leases.leases {
        hosts.push_str(&format!("{address} {machine}\n"));
        reserved.push_str(&format!("{},{address},{machine}\n", written(hardware(*address))));
    }
    (hosts, reserved)
}

/// Who answers for the names of other networks.
fn servers(network: &Network, others: &[Network]) -> String {
    let others = others.iter().filter(|other| other.names && other.name != network.name);
    others.map(|other| format!("server=/{}.internal/{}\n", other.name, other.range.gateway())).collect()
}

fn signal(process: &OwnedFd, signal: i32) -> Result<()> {
    match pidfd::send_signal(process, signal) {
        Err(error) if error.errno() != Errno::ESRCH => Err(error.into()),
        _ => Ok(()),
    }
}

/// It lies where an administrator's PATH may not lead.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir: PathBuf| dir.join("dnsmasq")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::super::range::Range;
    use super::*;

    #[test]
    fn names_and_reservations_follow_the_leases() {
        let network = Network::new("web", Range::parse("10.1.0.0/24").unwrap());
        let mut leases = Leases::default();
        leases.take(network.range, &["a".to_owned(), "b".to_owned()], None).unwrap();
        let (hosts, reserved) = tables(&network, &leases);
        assert_eq!(hosts, "10.1.0.1 gateway\n10.1.0.2 a\n10.1.0.3 b\n");
        assert_eq!(reserved, "02:0f:0a:01:00:02,10.1.0.2,a\n02:0f:0a:01:00:03,10.1.0.3,b\n");
        let others = [network.clone(), Network::new("db", Range::parse("10.2.0.0/24").unwrap())];
        assert_eq!(servers(&network, &others), "server=/db.internal/10.2.0.1\n");
        let text = Server::new(Path::new("/run/x"), "web").configuration(&network);
        for line in ["interface=os-web", "dhcp-range=10.1.0.2,static,255.255.255.0,1h", "addn-hosts=/run/x/web/hosts"] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
