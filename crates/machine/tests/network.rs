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
    assert!(place.home.remove_network(&place.run(), "a").unwrap_err().to_string().contains("machine \"m\" is in it"));
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

/// What a guest's root may send that a host would take for the network's: the host must not.
const FORGED: &str = r#"
    use strict; use Socket;
    # All nodes, from the link: a router for half an hour, and a prefix to make addresses of.
    sub advertise {
        my $index = shift;
        socket(my $socket, 10, SOCK_RAW, 58) or die "socket: $!";
        setsockopt($socket, 41, 18, pack 'i', 255) or die; setsockopt($socket, 41, 17, pack 'i', $index) or die;
        my $prefix = pack 'CCCCNNN', 3, 4, 64, 0xc0, 3600, 3600, 0; $prefix .= pack 'n8', 0x2001, 0xdb8, 0, 0, 0, 0, 0, 0;
        my $message = pack('CCnCCnNN', 134, 0, 0, 64, 0, 1800, 0, 0) . $prefix;
        send($socket, $message, 0, pack('S n N n8 L', 10, 0, 0, 0xff02, (0) x 6, 1, $index)) or die "send: $!";
    }
    # As many senders as frames, to nobody.
    sub flood {
        my ($index, $count) = @_;
        socket(my $socket, 17, SOCK_RAW, 0) or die;
        my $to = pack 'S n i S C C a8', 17, 0x88b5, $index, 0, 0, 6, "\2\0\0\0\0\1";
        for my $number (1 .. $count) {
            my $frame = pack 'a6 n N n a46', "\2\0\0\0\0\1", 0x0200, $number, 0x88b5, '';
            send($socket, $frame, 0, $to) or select undef, undef, undef, 0.001;
        }
    }
"#;

/// A place with a network, and a guest in it that can send such.
fn place_of_a_forger(name: &str) -> Option<(Place, Guest)> {
    let place = Place::new(name)?;
    if !Path::new("/usr/bin/perl").exists() {
        println!("skipped: no perl, which sends for the guest");
        return None;
    }
    place.create("web", Some("10.99.0.0/24")).unwrap();
    let guest = Guest::new();
    let network = place.home.network("web").unwrap();
    network.attach(&guest.namespace(), "eth0", Ipv4Addr::new(10, 99, 0, 2), true, true).unwrap();
    Some((place, guest))
}

fn forges(guest: &Guest, what: &str) {
    let index = text(&guest.run(&["cat", "/sys/class/net/eth0/ifindex"]));
    // /sys is the host's; the list of the namespace is not.
    let links = text(&guest.run(&["ip", "-o", "link", "show", "eth0"]));
    let index = links.split(':').next().unwrap_or(&index).trim().to_owned();
    let output = guest.run(&["perl", "-e", &format!("{FORGED} my $index = {index}; {what}")]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_host_takes_nothing_from_a_machine_but_what_its_address_says() {
    let Some((_place, guest)) = place_of_a_forger("forged") else { return };
    let host = |words: &[&str]| text(&Command::new("ip").args(words).output().unwrap());

    // Router advertisements (CVE-2020-13401): a link-local address is usable once nobody else has it.
    let end = Instant::now() + Duration::from_secs(10);
    while text(&guest.run(&["ip", "-6", "address", "show", "dev", "eth0"])).contains("tentative") {
        assert!(Instant::now() < end, "no link-local address");
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..3 {
        forges(&guest, "advertise($index);");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(host(&["-6", "route", "show", "default"]), "", "the host has a guest for its router");
    assert_eq!(host(&["-6", "address", "show", "dev", "os-web"]), "");

    // An address that is not its network's.
    let udp = std::net::UdpSocket::bind("10.99.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let port = udp.local_addr().unwrap().port().to_string();
    assert!(guest.run(&["ip", "address", "add", "192.0.2.9/32", "dev", "lo"]).status.success());
    let says = |from: &str, word: &str| {
        let program = format!(
            "use IO::Socket::INET; IO::Socket::INET->new(Proto => 'udp', LocalAddr => '{from}', PeerAddr => '10.99.0.1:{port}')->send('{word}') or die"
        );
        assert!(guest.run(&["perl", "-e", &program]).status.success());
    };
    says("192.0.2.9", "forged");
    says("10.99.0.2", "own");
    let mut heard = [0; 16];
    let (length, from) = udp.recv_from(&mut heard).unwrap();
    assert_eq!((&heard[..length], from.ip().to_string().as_str()), (&b"own"[..], "10.99.0.2"));
}

#[test]
fn a_machine_that_makes_hardware_addresses_up_does_not_fill_the_host_s_memory() {
    let Some((_place, guest)) = place_of_a_forger("flood") else { return };
    forges(&guest, "flood($index, 20000);");
    let known = std::fs::read("/sys/class/net/os-web/brforward").map(|table| table.len()).unwrap_or(0);
    let shown = text(&Command::new("bridge").args(["fdb", "show", "br", "os-web"]).output().unwrap()).lines().count();
    assert!(known > 0 || shown > 1000, "nothing was learned");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|text| text.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        println!("skipped: Linux before 6.7 has no limit to what a bridge learns");
        return;
    }
    assert!(shown < 17_000, "{shown} addresses are learned");
}

#[test]
fn a_network_with_translation_is_entered_by_nobody_who_was_not_called() {
    let Some(place) = Place::new("entered") else { return };
    if Command::new("nft").arg("--version").output().is_err() || !Path::new("/usr/bin/perl").exists() {
        println!("skipped: no nft or no perl");
        return;
    }
    place.create("a", Some("10.99.0.0/24")).unwrap();
    place.create("b", Some("10.99.1.0/24")).unwrap();
    let [inner, other, outer] = [Guest::new(), Guest::new(), Guest::new()];
    let [a, b] = ["a", "b"].map(|name| place.home.network(name).unwrap());
    a.attach(&inner.namespace(), "eth0", Ipv4Addr::new(10, 99, 0, 2), true, true).unwrap();
    b.attach(&other.namespace(), "eth0", Ipv4Addr::new(10, 99, 1, 2), true, true).unwrap();
    assert!(inner.run(&["ip", "link", "set", "lo", "up"]).status.success());
    // A neighbour of the host's, with a route to its machines.
    let ip = |words: &str| assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
    ip(&format!("link add lan type veth peer name eth0 netns {}", outer.0.id()));
    ip("address add 172.30.0.1/24 dev lan");
    ip("link set lan up");
    for words in ["address add 172.30.0.2/24 dev eth0", "link set eth0 up", "route add default via 172.30.0.1"] {
        assert!(outer.run(&[&["ip"], &words.split(' ').collect::<Vec<_>>()[..]].concat()).status.success(), "{words}");
    }
    let server = "use IO::Socket::INET; my $own = IO::Socket::INET->new(LocalPort => 7, Listen => 9, ReuseAddr => 1) or die; \
        while (my $other = $own->accept) { print $other qq(here\n) }";
    let serve = |guest: &Guest| Guest(guest.command(&["perl", "-e", server]).stdout(Stdio::null()).spawn().unwrap());
    let servers = [serve(&inner), serve(&outer)];
    let asks = |guest: &Guest, whom: &str, wait: &str| text(&guest.run(&["timeout", wait, "busybox", "nc", whom, "7"]));
    let end = Instant::now() + Duration::from_secs(10);
    // Out, with the answer; then its server is there, too.
    while asks(&inner, "172.30.0.2", "5") != "here\n" || asks(&inner, "127.0.0.1", "5") != "here\n" {
        assert!(Instant::now() < end, "the machine does not get out");
        std::thread::sleep(Duration::from_millis(50));
    }
    let entered = [(&outer, "a neighbour of the host's"), (&other, "a machine of another network")]
        .into_iter()
        .filter(|(guest, _)| asks(guest, "10.99.0.2", "1") == "here\n");
    let entered: Vec<_> = entered.map(|(_, who)| who).collect();
    // By a port that somebody has sent there.
    let dnat = "add table ip other; add chain ip other in { type nat hook prerouting priority dstnat; }; \
        add rule ip other in ip daddr 172.30.0.1 tcp dport 7 dnat to 10.99.0.2";
    assert!(Command::new("nft").arg(dnat).status().unwrap().success());
    let by_port = asks(&outer, "172.30.0.1", "5");
    drop(servers);
    assert_eq!(entered, [""; 0]);
    assert_eq!(by_port, "here\n");
}
