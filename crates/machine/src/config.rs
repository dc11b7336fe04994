//! A machine's `config.json`: what any caller of a runtime could write, so that the machine is an ordinary bundle. What
//! makes it a whole system is the runtime's business, by the annotation.

use crate::definition::Machine;
use crate::error::{Error, Result};
use crate::filter;
use crate::home::Home;
use crate::network::Attachment;
use crate::volume::Volume;
use offshoot_spec::Resources;
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where an init finds programs, and is found if its name is no path.
pub(crate) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A systemd as pid 1 takes its arguments for a kernel's command line. Newer ones (262) ask a terminal without these for its size,
/// twice, and wait a third of a second each time for an answer that nobody gives. A console that is attached to sets its own.
const CONSOLE: [&str; 2] = ["systemd.tty.rows.console=24", "systemd.tty.columns.console=80"];
/// The name of its host, before `/etc/hostname`: an image has the name of the host that it was made on, or none.
const HOSTNAME: &str = "systemd.hostname=";

impl Home {
    /// The text of a machine's `config.json`.
    ///
    /// # Errors
    /// A device is not there.
    pub fn config(&self, machine: &Machine) -> Result<Vec<u8>> {
        let mut env = vec![format!("PATH={SEARCH}"), "TERM=linux".to_owned()];
        env.extend(machine.env.iter().cloned());
        let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
        let devices: Vec<Value> = machine.devices.iter().map(|path| device(Path::new(path))).collect::<Result<_>>()?;
        let mut resources = resources(&machine.limits.resources());
        if !devices.is_empty() {
            let rules = devices.iter().map(|device| {
                json!({"allow": true, "type": device["type"], "major": device["major"], "minor": device["minor"], "access": "rwm"})
            });
            resources.insert("devices".into(), rules.collect());
        }
        let moved: Map<String, Value> = machine.networks.iter().filter_map(moved).collect();
        let mut linux = json!({
            "cgroupsPath": format!("/offshoot/{}", machine.name),
            "namespaces": namespaces,
            "devices": devices,
            "resources": resources,
        });
        if !moved.is_empty() {
            linux["netDevices"] = moved.into();
        }
        if let Some(profile) = machine.seccomp.profile() {
            linux["seccomp"] = filter::written(&profile)?;
        }
        let config = json!({
            "ociVersion": offshoot_spec::OCI_VERSION,
            "hostname": machine.name,
            "process": {
                "terminal": true,
                "user": {"uid": 0, "gid": 0},
                "args": args(machine),
                "env": env,
                "cwd": "/",
                // The supervisor's own is its service's, to be the last that goes.
                "oomScoreAdj": 0,
            },
            "root": {"path": "rootfs"},
            "mounts": self.mounts(machine),
            "annotations": {
                "org.offshoot.system": "true",
                "org.offshoot.rootfs": format!("image={},keep=true", machine.image),
            },
            "linux": linux,
        });
        let mut text = serde_json::to_vec_pretty(&config).map_err(|error| Error::failed("write config.json", error))?;
        text.push(b'\n');
        Ok(text)
    }

    fn mounts(&self, machine: &Machine) -> Vec<Value> {
        let bind = |source: PathBuf, destination: &str| json!({"type": "bind", "source": source, "destination": destination, "options": ["rbind", "ro", "nosuid", "nodev"]});
        let mut mounts = Vec::new();
        let is_set = |network: &Attachment| matches!(network, Attachment::Network { dhcp: false, .. });
        if machine.networks.iter().any(is_set) {
            mounts.push(bind(self.machine(&machine.name).join("resolv.conf"), "/etc/resolv.conf"));
        }
        // To another init it would mean nothing.
        if machine.lean && machine.notify {
            mounts.extend(self.lean_mounts().map(|(source, destination)| bind(source, destination)));
        }
        mounts.extend(machine.volumes.iter().map(Volume::mount));
        mounts
    }
}

/// Pid 1. Another program than an image's init might take more arguments for something else; another init takes no notice.
fn args(machine: &Machine) -> Vec<String> {
    let mut args: Vec<_> = machine.init.split_whitespace().map(String::from).collect();
    let is_init = machine.init == "/sbin/init" || machine.init.ends_with("/systemd");
    if machine.notify && is_init {
        args.extend(CONSOLE.map(String::from));
        args.push(format!("{HOSTNAME}{}", machine.name));
    }
    args
}

/// A host's interface, for the runtime to move. spec: config-linux.md#network-devices
fn moved(network: &Attachment) -> Option<(String, Value)> {
    match network {
        Attachment::Device { device } => Some((device.clone(), json!({}))),
        _ => None,
    }
}

/// spec: config-linux.md#devices
fn device(path: &Path) -> Result<Value> {
    let what = || format!("look at device {}", path.display());
    let meta = fs::metadata(path).map_err(|error| Error::io(what(), &error))?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Err(Error::failed(what(), "it is no device")),
    };
    let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
    Ok(
        json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": meta.mode() & 0o777, "uid": 0, "gid": 0}),
    )
}

/// Only what is set: people read the file.
fn resources(limits: &Resources) -> Map<String, Value> {
    let mut found = Map::new();
    if let Some(cpu) = &limits.cpu {
        let mut map = Map::new();
        let numbers = [
            ("shares", cpu.shares.map(Value::from)),
            ("quota", cpu.quota.map(Value::from)),
            ("period", cpu.period.map(Value::from)),
        ];
        map.extend(numbers.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        if !cpu.cpus.is_empty() {
            map.insert("cpus".into(), cpu.cpus.clone().into());
        }
        found.insert("cpu".into(), map.into());
    }
    if let Some(limit) = limits.memory.as_ref().and_then(|memory| memory.limit) {
        found.insert("memory".into(), json!({"limit": limit}));
    }
    if let Some(limit) = limits.pids.as_ref().and_then(|pids| pids.limit) {
        found.insert("pids".into(), json!({"limit": limit}));
    }
    if let Some(weight) = limits.block_io.as_ref().and_then(|io| io.weight) {
        found.insert("blockIO".into(), json!({"weight": weight}));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Limits;
    use crate::filter::Filter;

    fn config(machine: &Machine) -> Value {
        serde_json::from_slice(&Home::new("/h").config(machine).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_is_a_bundle_that_says_what_it_is() {
        let limits = Limits { shares: Some(256), memory: Some(1 << 20), ..Limits::default() };
        let machine = Machine { name: "web".into(), image: "debian:12".into(), limits, ..Machine::default() };
        let config = config(&machine);
        assert_eq!(config["annotations"]["org.offshoot.rootfs"], "image=debian:12,keep=true");
        assert_eq!(config["annotations"]["org.offshoot.system"], "true");
        assert_eq!(config["linux"]["resources"], json!({"cpu": {"shares": 256}, "memory": {"limit": 1 << 20}}));
        assert_eq!(config["mounts"], json!([]));
        let text = serde_json::to_vec(&config).unwrap();
        let spec: offshoot_spec::Spec = offshoot_spec::from_slice(&text).unwrap();
        assert_eq!((spec.hostname.as_str(), spec.process.unwrap().args), ("web", vec!["/sbin/init".to_owned()]));
    }

    #[test]
    fn a_filter_is_part_of_the_bundle() {
        let of = |seccomp| config(&Machine { seccomp, ..Machine::default() })["linux"]["seccomp"].clone();
        assert_eq!(of(Filter::Unconfined), Value::Null);
        let found = of(Filter::Default);
        assert_eq!(found["defaultAction"], "SCMP_ACT_ALLOW");
        assert_eq!(found["syscalls"][0]["args"], Value::Null, "what is not said is not written");
        let profile: offshoot_spec::Seccomp = serde_json::from_value(found).unwrap();
        assert_eq!(Some(profile), Filter::Default.profile());
    }

    #[test]
    fn a_systemd_is_told_the_size_of_its_console_and_its_name() {
        let of = |init: &str, notify| {
            let machine = Machine { name: "web".into(), init: init.into(), notify, ..Machine::default() };
            args(&machine).join(" ")
        };
        assert_eq!(of("/sbin/init", true), format!("/sbin/init {} {} systemd.hostname=web", CONSOLE[0], CONSOLE[1]));
        assert!(of("/usr/lib/systemd/systemd", true).ends_with("=80 systemd.hostname=web"));
        assert_eq!(of("/bin/sh", true), "/bin/sh");
        assert_eq!(of("/sbin/init", false), "/sbin/init", "no systemd in the image");
    }

    #[test]
    fn init_networks_devices_and_lean_show() {
        let networks = vec![
            Attachment::Network { network: "n".into(), address: [10, 0, 0, 2].into(), dhcp: false },
            Attachment::Device { device: "eth7".into() },
        ];
        let machine = Machine {
            name: "a".into(),
            init: "/usr/bin/s6-svscan  /etc/s6".into(),
            networks,
            lean: true,
            notify: true,
            devices: vec!["/dev/null".into()],
            ..Machine::default()
        };
        let config = config(&machine);
        assert_eq!(config["process"]["args"], json!(["/usr/bin/s6-svscan", "/etc/s6"]));
        assert_eq!(config["linux"]["netDevices"], json!({"eth7": {}}));
        assert_eq!(
            (&config["linux"]["devices"][0]["major"], &config["linux"]["devices"][0]["minor"]),
            (&json!(1), &json!(3))
        );
        let mounts: Vec<_> =
            config["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].clone()).collect();
        let lean = ["system.control", "system-generators", "journald.conf.d", "system.conf.d"];
        assert_eq!(mounts[0], "/etc/resolv.conf");
        assert_eq!(mounts[1..], lean.map(|name| format!("/run/systemd/{name}")));
        let other = Machine { notify: false, networks: Vec::new(), ..machine.clone() };
        assert_eq!(self::config(&other)["mounts"], json!([]), "no systemd, nothing to tell it");
        let wrong = Machine { devices: vec!["/etc/passwd".into()], ..machine };
        assert!(Home::new("/h").config(&wrong).unwrap_err().to_string().contains("it is no device"));
    }
}
