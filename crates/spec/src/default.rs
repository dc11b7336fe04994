//! The configuration that `spec` writes: a start to be edited, with the same choices as runc's, which callers and
//! test suites edit in turn.

/// Who the starter file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A caller with root's rights.
    Root,
    /// A caller without: its own ids become root's in the container, which then shares the network and has no
    /// limits of its own.
    User {
        /// The caller's user id.
        uid: u32,
        /// The caller's group id.
        gid: u32,
    },
}

/// The text of a starter `config.json`. With `cgroup2` the container gets a cgroup namespace; on a host with cgroup
/// v1 many images do not expect one.
pub fn config(whose: For, cgroup2: bool) -> String {
    let (sys, pts_group, linux) = match whose {
        For::Root => (SYS, ",\n\t\t\t\t\"gid=5\"", RESOURCES.to_owned()),
        For::User { uid, gid } => (SYS_OF_HOST, "", mappings(uid, gid)),
    };
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    match whose {
        For::Root => namespaces.insert(1, "network"),
        For::User { .. } => namespaces.push("user"),
    }
    if cgroup2 {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<_> =
        namespaces.iter().map(|kind| format!("\t\t\t{{\n\t\t\t\t\"type\": \"{kind}\"\n\t\t\t}}")).collect();
    let namespaces = namespaces.join(",\n");
    let version = crate::OCI_VERSION;
    format!(
        "{{\n\t\"ociVersion\": \"{version}\",\n{PROCESS}{MOUNTS}{pts_group}{MORE_MOUNTS}{sys}{CGROUP}\t\"linux\": \
         {{\n{linux}\t\t\"namespaces\": [\n{namespaces}\n\t\t],\n{PATHS}\t}}\n}}"
    )
}

fn mappings(uid: u32, gid: u32) -> String {
    let map = |key: &str, id: u32| {
        format!(
            "\t\t\"{key}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\t\t\t\t\"size\": \
             1\n\t\t\t}}\n\t\t],\n"
        )
    };
    map("uidMappings", uid) + &map("gidMappings", gid)
}

const PROCESS: &str = r#"	"process": {
		"terminal": true,
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"effective": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"permitted": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			]
		},
		"rlimits": [
			{
				"type": "RLIMIT_NOFILE",
				"hard": 1024,
				"soft": 1024
			}
		],
		"noNewPrivileges": true
	},
	"root": {
		"path": "rootfs",
		"readonly": true
	},
	"hostname": "offshoot",
"#;

const MOUNTS: &str = r#"	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev",
			"type": "tmpfs",
			"source": "tmpfs",
			"options": [
				"nosuid",
				"strictatime",
				"mode=755",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/pts",
			"type": "devpts",
			"source": "devpts",
			"options": [
				"nosuid",
				"noexec",
				"newinstance",
				"ptmxmode=0666",
				"mode=0620""#;

const MORE_MOUNTS: &str = r#"
			]
		},
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
"#;

const SYS: &str = r#"		{
			"destination": "/sys",
			"type": "sysfs",
			"source": "sysfs",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
"#;

/// Without a network namespace of its own a user namespace may not mount sysfs.
const SYS_OF_HOST: &str = r#"		{
			"destination": "/sys",
			"type": "none",
			"source": "/sys",
			"options": [
				"rbind",
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
"#;

const CGROUP: &str = r#"		{
			"destination": "/sys/fs/cgroup",
			"type": "cgroup",
			"source": "cgroup",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"relatime",
				"ro"
			]
		}
	],
"#;

const RESOURCES: &str = r#"		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},
"#;

const PATHS: &str = r#"		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/sys/firmware",
			"/proc/scsi"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Spec, from_slice};

    fn read(whose: For, cgroup2: bool) -> Spec {
        from_slice(config(whose, cgroup2).as_bytes()).unwrap()
    }

    fn namespaces(spec: &Spec) -> Vec<&str> {
        spec.linux.as_ref().unwrap().namespaces.iter().map(|namespace| namespace.kind.as_str()).collect()
    }

    #[test]
    fn root_s_has_a_network_and_denies_devices() {
        let spec = read(For::Root, false);
        assert_eq!(namespaces(&spec), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(namespaces(&read(For::Root, true)).last(), Some(&"cgroup"));
        assert!(!spec.linux.unwrap().resources.unwrap().devices[0].allow);
        assert_eq!(spec.mounts[2].options.last().unwrap(), "gid=5");
        let process = spec.process.unwrap();
        assert!(process.terminal && process.no_new_privileges && spec.root.unwrap().readonly);
    }

    #[test]
    fn a_user_s_maps_one_id_and_binds_sys() {
        let spec = read(For::User { uid: 1000, gid: 100 }, true);
        assert_eq!(namespaces(&spec), ["pid", "ipc", "uts", "mount", "user", "cgroup"]);
        assert_eq!(spec.mounts[2].options.last().unwrap(), "mode=0620");
        assert_eq!((spec.mounts[5].source.as_str(), spec.mounts[5].options[0].as_str()), ("/sys", "rbind"));
        let linux = spec.linux.unwrap();
        assert_eq!((linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id), (1000, 100));
        assert!(linux.resources.is_none());
    }
}
