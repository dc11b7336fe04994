//! What a machine does now, for `list`, `show` and `top`.

use crate::definition::Machine;
use crate::error::{Error, Kind, Result};
use crate::machines::{Machines, Outcome};
use crate::network::Attachment;
use crate::supervisor::Last;
use offshoot_runtime::{Init, Status, notify, process};
use serde::Serialize;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Ticks a second of the times in `/proc`, on every architecture (man 5 proc).
const TICKS: f64 = 100.0;
/// Between two looks at a machine that boots.
const LOOK: Duration = Duration::from_millis(50);

/// A machine and what it uses.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// As written down.
    #[serde(flatten)]
    pub machine: Machine,
    /// `running`, `paused`, `created` or `stopped`.
    pub state: String,
    /// Whether it has booted, where its init says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Its init's number on the host, 0 when it does not run.
    pub pid: i32,
    /// Its addresses in networks of ours.
    pub addresses: Vec<Ipv4Addr>,
    /// Memory in bytes, page cache included.
    pub memory: u64,
    /// Processor time in nanoseconds since its start.
    pub cpu: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Seconds since its start.
    pub uptime: f64,
    /// Its snapshots, the oldest first, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<String>>,
    /// How it last ended, and what was done about that, where the supervisor knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

impl Machines {
    /// What a machine does now, and its snapshots.
    ///
    /// # Errors
    /// As [`Machines::figures`], or its clone cannot be read.
    pub fn all_of(&self, name: &str) -> Result<Figures> {
        let figures = self.figures(name)?;
        let store = self.store()?;
        let clone = store.find_clone(name)?;
        let snapshots = clone.snapshots().map(|(name, _)| name.to_owned()).collect();
        Ok(Figures { snapshots: Some(snapshots), ..figures })
    }

    /// What a machine does now.
    ///
    /// # Errors
    /// There is none of that name, or its state cannot be read.
    pub fn figures(&self, name: &str) -> Result<Figures> {
        let machine = self.home.load(name)?;
        let addresses = machine.networks.iter().filter_map(|network| match network {
            Attachment::Network { address, .. } => Some(*address),
            _ => None,
        });
        let mut figures = Figures {
            addresses: addresses.collect(),
            machine,
            state: Status::Stopped.to_string(),
            ready: None,
            pid: 0,
            memory: 0,
            cpu: 0,
            processes: 0,
            uptime: 0.0,
            snapshots: None,
            last: Last::load(&self.run(), name),
        };
        let Some(container) = self.container(name)? else { return Ok(figures) };
        let status = container.status()?;
        figures.state = status.to_string();
        if status == Status::Stopped || status == Status::Creating {
            return Ok(figures);
        }
        if container.state.init == Some(Init::Systemd) {
            figures.ready = notify::is_ready(&container.dir);
        }
        figures.pid = container.state.init_process_pid;
        figures.uptime = age(container.state.init_process_start);
        // A cgroup that goes while it is read has nothing to tell.
        if let Ok(stats) = container.cgroup()?.stats() {
            figures.memory = stats.memory.usage.usage;
            figures.cpu = stats.cpu.usage.total;
            figures.processes = stats.pids.current;
        }
        if figures.processes == 0 && process::is_alive(figures.pid, container.state.init_process_start) {
            figures.processes = self.runtime.processes(name).map_or(0, |pids| pids.len() as u64);
        }
        Ok(figures)
    }
}

impl Machines {
    /// Waits until machines have booted, for those whose init says so, within `patience`.
    pub fn wait(&self, names: &[String], patience: Duration, report: &mut dyn FnMut(&str, &Result<()>)) -> Outcome {
        let end = Instant::now() + patience;
        let mut outcome = Outcome::default();
        let mut left: Vec<_> = names.iter().collect();
        loop {
            left.retain(|name| {
                let wrong = |what: &str| Err(Error::new(Kind::State, format!("machine {name:?} {what}")));
                let result = match self.figures(name) {
                    Err(error) => Err(error),
                    Ok(figures) if figures.pid == 0 => wrong("does not run"),
                    Ok(figures) if figures.ready != Some(false) => Ok(()),
                    Ok(_) if Instant::now() < end => return true,
                    Ok(_) => wrong("is still booting"),
                };
                report(name, &result);
                outcome.add(name, result);
                false
            });
            if left.is_empty() {
                return outcome;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Seconds since a process started at `start` ticks after boot.
pub(crate) fn age(start: u64) -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let now: Option<f64> = uptime.and_then(|text| text.split(' ').next()?.parse().ok());
    now.map_or(0.0, |now| (now - start as f64 / TICKS).max(0.0))
}
