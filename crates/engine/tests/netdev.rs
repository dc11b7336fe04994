//! Moving network devices, between two network namespaces of the test's own. The modules are private to the engine, so they
//! are compiled into this test, which has no harness: they make a child, which wants a process with one thread.

#![forbid(unsafe_code)]
#![allow(dead_code, clippy::type_complexity)]

#[path = "../src/error.rs"]
mod error;
#[path = "../src/netdev.rs"]
mod netdev;
#[path = "../src/netlink.rs"]
mod netlink;

use offshoot_sys::fork::{Child, Exit, fork, wait};
use offshoot_sys::{event, libc, process};
use std::process::Command;

fn main() {
    if !nix::unistd::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: needs root and the command ip");
        return;
    }
    let tests: [(&str, fn(&Pair)); 5] = [
        ("a device keeps what it has", keeps),
        ("a name pattern gets a number", pattern),
        ("a taken name leaves the host alone", taken),
        ("no such device", absent),
        ("loopback comes up", loopback),
    ];
    for (name, test) in tests {
        let child = fork(libc::CLONE_NEWNET as u64, None, || {
            test(&Pair::new());
            0
        });
        match wait(child.expect("fork").pidfd).expect("wait") {
            Exit::Code(0) => println!("test {name} ... ok"),
            Exit::Code(SKIPPED) => {}
            ended => panic!("test {name} ... FAILED ({ended})"),
        }
    }
}

const SKIPPED: i32 = 77;

/// The namespace of the test, and that of a child which stands for a container.
struct Pair {
    container: Child,
}

impl Pair {
    fn new() -> Pair {
        let test = process::getpid();
        let container = fork(libc::CLONE_NEWNET as u64, None, || {
            // Until the test's end, which kills it, if that is not over already.
            let _ = process::set_pdeathsig(libc::SIGKILL);
            if process::getppid() != test {
                return 1;
            }
            let _ = event::poll(&mut [], None);
            1
        });
        Pair { container: container.expect("fork") }
    }

    /// Runs `ip` beside the container, or in it, and returns what it prints.
    fn ip(&self, inside: bool, words: &str) -> String {
        let pid = self.container.pid.to_string();
        let mut command = Command::new(if inside { "nsenter" } else { "ip" });
        if inside {
            command.args(["-t", &pid, "-n", "ip"]);
        }
        let output = command.args(words.split(' ')).output().expect("ip");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn device(&self) {
        let said = self.ip(false, "link add dev0 type veth peer name other0");
        if !said.is_empty() {
            println!("skipped: no device of type veth: {}", said.trim());
            process::exit(SKIPPED);
        }
    }

    fn move_as(&self, new_name: &str) -> Result<(), String> {
        let devices = [("dev0".to_owned(), new_name.to_owned())];
        netdev::move_all(self.container.pid, &devices).map_err(|error| error.to_string())
    }
}

fn keeps(pair: &Pair) {
    pair.device();
    for words in [
        "link set dev0 mtu 1789 address 00:11:22:33:44:55",
        "link property add dev dev0 altname second-name",
        "link set dev0 up",
        "address add 10.1.2.3/24 broadcast 10.1.2.255 dev dev0",
        "address add 10.9.9.9 peer 10.9.9.8/32 dev dev0 label dev0:label",
        "address add 127.0.0.33/8 scope host dev dev0",
        "address add 10.7.7.7/24 dev dev0 valid_lft 100 preferred_lft 100",
        "address add fd00::7/64 dev dev0 nodad",
    ] {
        assert_eq!(pair.ip(false, words), "", "{words}");
    }
    pair.move_as("eth0").unwrap();
    assert!(pair.ip(false, "link show dev0").contains("does not exist"));
    let said = pair.ip(true, "address show dev eth0");
    for kept in [
        "mtu 1789",
        "00:11:22:33:44:55",
        "altname second-name",
        "UP",
        "inet 10.1.2.3/24 brd 10.1.2.255 scope global eth0",
        "inet 10.9.9.9 peer 10.9.9.8/32 scope global eth0",
        "inet6 fd00::7/64 scope global",
    ] {
        assert!(said.contains(kept), "{kept:?} is not in {said}");
    }
    assert!(!said.contains("127.0.0.33") && !said.contains("10.7.7.7"), "{said}");
}

fn pattern(pair: &Pair) {
    pair.device();
    assert_eq!(pair.ip(true, "link add net0 type veth peer name net9"), "");
    pair.move_as("net%d").unwrap();
    let said = pair.ip(true, "link show dev net1");
    assert!(said.contains("UP"), "{said}");
}

fn taken(pair: &Pair) {
    pair.device();
    pair.ip(false, "link set dev0 up");
    pair.ip(false, "address add fd00::7/64 dev dev0 nodad");
    assert_eq!(pair.ip(true, "link add net0 type veth peer name net9"), "");
    let error = pair.move_as("net0").unwrap_err();
    let expected =
        "failed to move network device \"dev0\" into the container as \"net0\": RTM_NEWLINK net0: file exists";
    assert_eq!(error, expected);
    let said = pair.ip(false, "address show dev dev0");
    assert!(said.contains("UP") && said.contains("fd00::7"), "{said}");
}

fn absent(pair: &Pair) {
    let error = pair.move_as("").unwrap_err();
    let expected =
        "failed to move network device \"dev0\" into the container as \"dev0\": RTM_GETLINK dev0: no such device";
    assert_eq!(error, expected);
    // The loopback interface belongs to its namespace. The kernel says why.
    let error = netdev::move_all(pair.container.pid, &[("lo".into(), "lo2".into())]).unwrap_err().to_string();
    assert!(error.contains("RTM_NEWLINK lo: invalid argument"), "{error}");
}

fn loopback(pair: &Pair) {
    netdev::loopback_up().unwrap();
    assert!(pair.ip(false, "link show lo").contains("LOOPBACK,UP"));
    assert!(!pair.ip(true, "link show lo").contains("LOOPBACK,UP"));
}
