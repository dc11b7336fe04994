//! System containers in a user namespace that an engine has made (`--userns`, `hostUsers: false`).

use crate::system;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Child, Command, Stdio};

/// A process that keeps a user namespace, until dropped.
struct Holder(Child);

impl Holder {
    fn new(map: &str) -> Holder {
        let holder =
            Holder(Command::new("unshare").args(["--user", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap());
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        while fs::read_link(holder.path("ns/user")).is_ok_and(|found| found == own) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for file in ["uid_map", "gid_map"] {
            fs::write(holder.path(file), map).unwrap();
        }
        holder
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Its root manages the container's cgroup, whether the engine sends the map along or not.
#[test]
fn the_cgroup_is_handed_to_its_root() {
    let Some(place) = system("guest-joined") else { return };
    let holder = Holder::new("0 100000 65536");
    chown(place.dir.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
    place.edit(|config| {
        config["process"]["args"] = json!(["/bin/sleep", "100"]);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user", "path": holder.path("ns/user")}));
    });
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    for sent in [json!(null), map] {
        place.edit(|config| {
            config["linux"]["uidMappings"] = sent.clone();
            config["linux"]["gidMappings"] = sent.clone();
        });
        place.ok(&["run", "--detach"], &[]);
        let owners: Vec<_> = place.cgroups().iter().map(|dir| fs::metadata(dir).unwrap().uid()).collect();
        assert!(owners.contains(&100_000), "{sent}: {owners:?}");
        let script = "mkdir /sys/fs/cgroup/own && rmdir /sys/fs/cgroup/own && tr -s ' ' </proc/self/uid_map";
        let output = place.output(&["exec"], &["/bin/sh", "-c", script]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), " 0 100000 65536\n", "{sent}: {output:?}");
        place.ok(&["delete", "--force"], &[]);
    }
    place.assert_nothing_left();
}
