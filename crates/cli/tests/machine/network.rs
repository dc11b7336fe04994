//! Interfaces, addresses and names.

use crate::edit;
use crate::farm::{Farm, PATIENCE, text};
use std::fs;
use std::process::Command;
use std::time::Instant;

#[test]
fn interfaces_of_the_host_come_back() {
    let Some(mut farm) = Farm::new("device") else { return };
    farm.go_apart();
    let network = farm.network();
    let ip = |words: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={network}")).arg("ip").args(words.split(' '));
        command.output().unwrap()
    };
    assert!(ip("link add v0 type veth peer name v1").status.success());
    assert!(ip("link set v1 up").status.success());
    let name = farm.name("a");
    let here = || ip("link show v0").status.success();
    let there = || text(&farm.run(&["machine", "exec", &name, "ip", "link"])).contains("v0@");
    farm.ok(&["machine", "launch", "box", &name, "--network", "device:v0,macvlan:v1"]);
    assert!(there() && !here());
    assert!(text(&farm.run(&["machine", "exec", &name, "ip", "link"])).contains("eth1@"));
    let before = farm.show(&name)["pid"].clone();
    farm.run(&["machine", "exec", &name, "/sbin/reboot"]);
    farm.wait(&name, |shown| shown["state"] == "running" && shown["pid"] != before);
    assert!(there() && !here());
    farm.ok(&["machine", "restart", "--force", &name]);
    assert!(there());
    farm.ok(&["machine", "stop", "--force", &name]);
    assert!(here());
    // Without a supervisor, too.
    farm.ok(&["machine", "start", &name]);
    let supervisor = farm.supervisor();
    assert!(Command::new("kill").arg(supervisor.to_string()).status().unwrap().success());
    farm.until("it does not end", || farm.supervisors(false).is_empty());
    assert!(!here());
    farm.ok(&["machine", "rm", "--force", &name]);
    assert!(here());
    farm.assert_nothing_left();
}

#[test]
fn machines_of_a_network_know_each_other() {
    let Some(mut farm) = Farm::new("net") else { return };
    farm.go_apart();
    let nat: &[&str] = if Command::new("nft").arg("--version").output().is_ok() { &[] } else { &["--no-nat"] };
    farm.ok(&[&["network", "create", "default", "--range", "10.98.0.0/24"], nat].concat());
    let (one, two) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &one, &two]);
    assert_eq!(farm.show(&two)["addresses"], serde_json::json!(["10.98.0.3"]));
    let shown = farm.ok(&["machine", "exec", &two, "ip", "address", "show", "eth0"]);
    assert!(shown.contains("10.98.0.3/24"), "{shown}");
    let server = "nc -l -p 7 -e echo here </dev/null >/dev/null 2>&1 &";
    farm.ok(&["machine", "exec", &one, "sh", "-c", server]);
    let target = if Command::new("dnsmasq").arg("--version").output().is_ok() { one.as_str() } else { "10.98.0.2" };
    let end = Instant::now() + PATIENCE;
    loop {
        let output = farm.run(&["machine", "exec", &two, "nc", target, "7"]);
        if text(&output).trim() == "here" {
            break;
        }
        assert!(Instant::now() < end, "{}", text(&output));
    }
    // A name server that ends comes back, even if some machine always has something to say.
    let server = || fs::read_to_string(farm.dir.join("root.networks/default/pid")).ok()?.trim().parse::<u32>().ok();
    if let Some(before) = server() {
        let talks = "while true; do echo x; busybox usleep 500000; done >/dev/console 2>&1 </dev/null &";
        farm.ok(&["machine", "exec", &one, "sh", "-c", talks]);
        farm.kill(before);
        farm.until("no name server", || server().is_some_and(|now| now != before));
        let status = fs::read_to_string(format!("/proc/{}/status", server().unwrap())).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "it could not be told to end: {status}");
    }
    // An address that is changed by hand is the machine's, for others too.
    farm.ok(&["machine", "stop", "--force", &two]);
    edit(&farm, &two, |machine| machine["networks"][0]["address"] = "10.98.0.2".into());
    farm.fails(&["machine", "start", &two], "is that of");
    edit(&farm, &two, |machine| machine["networks"][0]["address"] = "10.98.0.77".into());
    farm.ok(&["machine", "start", &two]);
    assert!(farm.ok(&["machine", "exec", &two, "ip", "address", "show", "eth0"]).contains("10.98.0.77/24"));
    let leases = farm.ok(&["network", "show", "default"]);
    assert!(leases.contains("10.98.0.77") && !leases.contains("10.98.0.3\""), "{leases}");
    // A network that does not come up keeps no machine of another from starting.
    let three = farm.name("c");
    farm.ok(&["network", "create", "other", "--no-nat", "--no-names"]);
    farm.ok(&["machine", "launch", "box", &three, "-n", "other", "--no-start"]);
    let file = farm.dir.join("store/networks/other/network.json");
    let network = fs::read(&file).unwrap();
    fs::write(&file, "{").unwrap();
    farm.ok(&["machine", "stop", "--force", &two]);
    let output = farm.run(&["machine", "start", &two, &three]);
    assert!(text(&output).contains("1 machine started in") && text(&output).contains("1 failed"), "{}", text(&output));
    fs::write(&file, network).unwrap();
    farm.fails(&["network", "rm", "default"], "2 machines are in it");
    // Of a machine in several networks one server is asked, which knows the names of all.
    if server().is_some() {
        farm.ok(&["network", "create", "third", "--no-nat"]);
        let [both, there] = ["d", "e"].map(|name| farm.name(name));
        farm.ok(&["machine", "launch", "box", &both, "-n", "default,third"]);
        farm.ok(&["machine", "launch", "box", &there, "-n", "third"]);
        for wanted in [&there, &one] {
            let end = Instant::now() + PATIENCE;
            // A server has not read the new names as soon as it is told of them.
            while !farm
                .run(&["machine", "exec", &both, "busybox", "ping", "-c", "1", "-W", "5", wanted])
                .status
                .success()
            {
                assert!(Instant::now() < end, "{}", text(&farm.run(&["machine", "exec", &both, "nslookup", wanted])));
            }
        }
    }
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.run(&["network", "rm", "third"]);
    farm.ok(&["network", "rm", "default", "other"]);
    farm.assert_nothing_left();
}
