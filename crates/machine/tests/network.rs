//! Networks against the kernel, each test in a network namespace of its own.

#![forbid(unsafe_code)]

use offshoot_machine::Home;
use offshoot_machine::network::{Links, NewNetwork, Range};
use offshoot_sys::{libc, path, process};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A home in a directory of its own. The calling thread is in a network namespace of its own.
struct Place {
    dir: PathBuf,
    home: Home,
}

impl Place {
    fn new(name: &str) -> Option<Place> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        process::unshare(libc::CLONE_NEWNET).unwrap();
        let dir = std::env::temp_dir().join(format!("offshoot-network-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Some(Place { home: Home::new(dir.join("home")), dir })
    }

    fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn create(&self, name: &str, range: Option<&str>) -> offshoot_machine::Result<()> {
        let range = range.map(|range| Range::parse(range).unwrap());
        let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        let wanted = NewNetwork { name: name.to_owned(), range, nat: has("nft"), names: true };
        self.home.create_network(&self.run(), wanted).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for network in self.home.networks_all().unwrap_or_default() {
            let machines: Vec<_> = self.home.leases(&network.name).unwrap().leases.into_values().collect();
            self.home.give_back_addresses(&self.run(), &machines).unwrap();
            self.home.remove_network(&self.run(), &network.name).unwrap();
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// A process in a network namespace of its own, in the place of a machine.
struct Guest(Child);

impl Guest {
    fn new() -> Guest {
        let child = Command::new("unshare").args(["-n", "sleep", "100"]).spawn().unwrap();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::read_link(format!("/proc/{}/ns/net", child.id())).unwrap() == own {
            assert!(Instant::now() < end, "unshare did nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        Guest(child)
    }

    fn namespace(&self) -> std::os::fd::OwnedFd {
        path::open(format!("/proc/{}/ns/net", self.0.id()), libc::O_RDONLY, 0).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n"]).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_machine_reaches_the_host_and_is_known_by_name() {
    let Some(place) = Place::new("reach") else { return };
    place.create("web", Some("10.99.0.0/24")).unwrap();
    let network = place.home.network("web").unwrap();
    let names = ["one".to_owned(), "two".to_owned()];
    let addresses = place.home.take_addresses(&network, &names, None).unwrap();
    assert_eq!(addresses, [Ipv4Addr::new(10, 99, 0, 2), Ipv4Addr::new(10, 99, 0, 3)]);
    place.home.bring_up(&place.run(), "web").unwrap();
    place.home.bring_up(&place.run(), "web").unwrap();
    let guest = Guest::new();
    network.attach(&guest.namespace(), "eth0", addresses[0], true, true).unwrap();

    let shown = text(&guest.run(&["ip", "address", "show", "eth0"]));
    assert!(shown.contains("10.99.0.2/24") && shown.contains("02:0f:0a:63:00:02"), "{shown}");
    let details = text(&guest.run(&["ip", "-d", "link", "show", "eth0"]));
    assert!(details.contains("numtxqueues 1 numrxqueues 1"), "{details}");
    let routes = text(&guest.run(&["ip", "route"]));
    assert!(routes.contains("default via 10.99.0.1"), "{routes}");
    let listener = TcpListener::bind("10.99.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let sent = std::thread::spawn(move || {
        let mut heard = String::new();
        let (mut stream, peer) = listener.accept().unwrap();
        stream.read_to_string(&mut heard).unwrap();
        (heard, peer.ip().to_string())
    });
    let command = format!("echo hello | busybox nc 10.99.0.1 {port}");
    assert!(guest.run(&["timeout", "10", "sh", "-c", &command]).status.success());
    assert_eq!(sent.join().unwrap(), ("hello\n".to_owned(), "10.99.0.2".to_owned()));

    if !offshoot_machine::network::Server::is_installed() {
        println!("skipped: no dnsmasq: names");
        return;
    }
    let answer = text(&guest.run(&["timeout", "10", "busybox", "nslookup", "two.web.internal", "10.99.0.1"]));
    assert!(answer.contains("10.99.0.3"), "{answer}");
    // A guest that asks by DHCP gets the address that it has.
    let dhcp = ["timeout", "10", "busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", "/bin/true"];
    let answer = text(&guest.run(&dhcp));
    assert!(answer.contains("lease of 10.99.0.2 obtained"), "{answer}");
}

#[test]
fn a_network_comes_and_goes_whole() {
    let Some(place) = Place::new("whole") else { return };
    place.create("a", None).unwrap();
    place.create("b", None).unwrap();
    let ranges: Vec<_> = place.home.networks_all().unwrap().iter().map(|network| network.range.to_string()).collect();
    assert_eq!(ranges, ["10.83.0.0/24", "10.83.1.0/24"]);
    for (name, range, says) in [
        ("a", None, "there is one of that name"),
        ("c", Some("10.83.0.0/16"), "overlaps 10.83.0.0/24 of network \"a\""),
        ("toolonganame", None, "longer than"),
        ("A", None, "host name"),
    ] {
        let error = place.create(name, range).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    let network = place.home.network("a").unwrap();
    place.home.take_addresses(&network, &["m".to_owned()], None).unwrap();
    assert!(place.home.remove_network(&place.run(), "a").unwrap_err().to_string().contains("1 machines are in it"));
    place.home.give_back_addresses(&place.run(), &["m".to_owned()]).unwrap();
    place.home.remove_network(&place.run(), "a").unwrap();
    assert!(Links::open().unwrap().find("os-a").unwrap().is_none());
    assert!(Links::open().unwrap().find("os-b").unwrap().is_some());
    assert!(!place.run().join("a").exists());
    if let Ok(rules) = Command::new("nft").args(["list", "ruleset"]).output() {
        let rules = text(&rules);
        assert!(rules.contains("offshoot-b") && !rules.contains("offshoot-a"), "{rules}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let Some(place) = Place::new("foreign") else { return };
    let ip = |words: &str| assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
    ip("link add os-a type bridge");
    assert!(place.create("a", None).unwrap_err().to_string().contains("there is an interface \"os-a\" already"));
    ip("link add v0 type veth peer name v1");
    ip("address add 10.83.0.9/20 dev v0");
    ip("link set v0 up");
    let error = place.create("b", None).unwrap_err();
    assert!(error.to_string().contains("overlaps what the host reaches through v0"), "{error}");
    assert!(Links::open().unwrap().find("os-a").unwrap().is_some());
    assert!(!Path::new(&place.home.networks().join("b")).exists());
}

#[test]
fn machines_beyond_a_bridge_s_ports_are_on_another_that_is_joined() {
    let Some(place) = Place::new("full") else { return };
    place.create("big", Some("10.99.0.0/20")).unwrap();
    let network = place.home.network("big").unwrap();
    // The 1st machine and the 1,001st.
    let (near, far) = (Guest::new(), Guest::new());
    network.attach(&near.namespace(), "eth0", Ipv4Addr::new(10, 99, 0, 2), true, true).unwrap();
    network.attach(&far.namespace(), "eth0", Ipv4Addr::new(10, 99, 3, 234), true, true).unwrap();
    let mut links = Links::open().unwrap();
    let second = links.find("os-big-2").unwrap().unwrap().index;
    assert!(links.find("os-big-3").unwrap().is_none());
    let mut server =
        near.command(&["timeout", "20", "busybox", "nc", "-l", "-p", "7", "-e", "echo", "here"]).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while text(&far.run(&["timeout", "5", "busybox", "nc", "10.99.0.2", "7"])) != "here\n" {
        assert!(Instant::now() < end, "the machines do not reach each other");
    }
    server.wait().unwrap();
    // The kernel's own limit has a sentence.
    for number in 0..1021 {
        let (name, there) = (format!("p{number}"), format!("q{number}"));
        let peer = offshoot_machine::network::Peer { name: &there, ..Default::default() };
        assert!(links.add_veth(&name, second, &peer).unwrap(), "{number}");
    }
    let guest = Guest::new();
    let error = network.attach(&guest.namespace(), "eth0", Ipv4Addr::new(10, 99, 3, 235), true, true).unwrap_err();
    assert!(error.to_string().contains("no port left") && error.advice().is_some(), "{error}");
}
