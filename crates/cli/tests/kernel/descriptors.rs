//! What reaches the process, and what the caller gets: descriptors, sockets, files with pids.

use crate::place::{self, Place};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Runs the container from a shell that holds some descriptors open.
fn from_shell(place: &Place, before: &str, options: &str, environment: &[(&str, &str)]) -> String {
    let script = format!("{before} exec {} --root root run {options} {}", place::program().display(), place.id);
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(&place.dir).envs(environment.iter().copied());
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn descriptors_are_passed_when_asked() {
    let Some(place) = Place::new("pass", &[]) else { return };
    let set = |script: &str| place.edit(|c| c["process"]["args"] = json!(["/bin/sh", "-c", script]));
    fs::write(place.dir.join("three"), "three").unwrap();
    fs::write(place.dir.join("four"), "four").unwrap();
    const OPEN: &str = "exec 3<three 4<four 5</etc/passwd 77</etc/passwd;";
    set("cat <&3; cat <&4; test -e /proc/self/fd/5 || echo -no; test -e /proc/self/fd/77 || echo no");
    assert_eq!(from_shell(&place, OPEN, "--preserve-fds 2", &[]), "threefour-no\nno\n");
    set("cat <&3; cat <&4; echo; echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; test -e /proc/self/fd/5 || echo no");
    let listen = [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b")];
    assert_eq!(from_shell(&place, &format!("{OPEN} export LISTEN_PID=$$;"), "", &listen), "threefour\n2 1 a:b\nno\n");
    let errors = from_shell(&place, "", "--preserve-fds 3", &[]);
    assert!(errors.contains("file descriptor") || errors.contains("fd "), "{errors}");
    place.assert_nothing_left();
}

#[test]
fn readiness_is_passed_on() {
    let Some(place) = Place::new("notify", &[]) else { return };
    if Command::new("python3").arg("-V").output().is_err() {
        println!("skipped: needs python3");
        return;
    }
    let path = place.dir.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let script = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
        s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'READY=1\\nSTATUS=up')";
    place.edit(|c| c["process"]["args"] = json!(["/usr/bin/python3", "-c", script]));
    if !fs::exists("/usr/bin/python3").unwrap() {
        println!("skipped: needs /usr/bin/python3");
        return;
    }
    let output = place.command(&["run", &place.id]).env("NOTIFY_SOCKET", &path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut buffer = [0; 256];
    let mut texts = String::new();
    while !texts.contains("READY=1") {
        let count = socket.recv(&mut buffer).expect("READY=1 does not come");
        texts += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    place.assert_nothing_left();
}

/// A server that takes one message with one descriptor, and prints what the descriptor is.
const RECEIVE: &str = "import array, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1); print('up', flush=True)
c, _ = s.accept(); data, fds, _, _ = socket.recv_fds(c, 4096, 4)
print(data.decode(errors='replace').strip('\\0')); print(len(fds), os.readlink(f'/proc/self/fd/{fds[0]}'))
for line in open(f'/proc/self/fdinfo/{fds[0]}'):
    if line.startswith('Pid:'): print(line.split()[1])
sys.stdout.flush()
if sys.argv[2:]:
    out = b''
    while b'done' not in out: out += os.read(fds[0], 999)
    print(out.decode().replace('\\r', ''))
";

struct Receiver {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Receiver {
    /// Returns when it listens.
    fn new(place: &Place, socket: &str, more: &[&str]) -> Option<Receiver> {
        let mut command = Command::new("python3");
        command.args(["-c", RECEIVE, socket]).args(more).current_dir(&place.dir).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            println!("skipped: needs python3");
            return None;
        };
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Some(Receiver { child, output })
    }

    fn text(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

#[test]
fn a_pidfd_and_a_file_with_the_pid() {
    let Some(place) = Place::new("pidfd", &["/bin/sleep", "100"]) else { return };
    let Some(server) = Receiver::new(&place, "pidfd.sock", &[]) else { return };
    place.ok(&["create"], &["--pidfd-socket", "pidfd.sock", "--pid-file", "pid"]);
    let pid = fs::read_to_string(place.dir.join("pid")).unwrap();
    let state: Value = serde_json::from_slice(&place.output(&["state"], &[]).stdout).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    let text = server.text();
    assert!(text.lines().any(|line| line == pid) && text.contains("pidfd"), "{text}");
    place.ok(&["start"], &[]);
    let Some(server) = Receiver::new(&place, "exec.sock", &[]) else { return };
    place.ok(&["exec", "--detach", "--pidfd-socket", "exec.sock", "--pid-file", "exec.pid"], &["/bin/sleep", "50"]);
    let pid = fs::read_to_string(place.dir.join("exec.pid")).unwrap();
    let text = server.text();
    assert!(text.lines().any(|line| line == pid), "{text}");
}

#[test]
fn a_console_goes_to_its_socket() {
    let Some(place) = Place::new("console", &[]) else { return };
    place.edit(|c| {
        c["process"]["terminal"] = true.into();
        c["process"]["consoleSize"] = json!({"width": 90, "height": 20});
        c["process"]["args"] = json!(["/bin/sh", "-c", "stty size; tty; echo x >/dev/console; echo done; sleep 100"]);
    });
    let Some(server) = Receiver::new(&place, "console.sock", &["read"]) else { return };
    place.ok(&["run", "--detach"], &["--console-socket", "console.sock"]);
    let text = server.text();
    assert!(text.contains("1 /dev/pts/ptmx\n") || text.contains("1 /dev/ptmx\n") || text.contains("/ptmx\n"), "{text}");
    assert!(text.ends_with("20 90\n/dev/pts/0\nx\ndone\n\n"), "{text}");
    // A terminal that nobody takes, and a socket that nobody asked for.
    place.ok(&["delete", "--force"], &[]);
    assert!(
        place
            .on(&["run", "--detach"], &[])
            .1
            .contains("cannot allocate tty if runc will detach without setting console socket")
    );
    place.edit(|c| c["process"]["terminal"] = false.into());
    let listener = UnixListener::bind(place.dir.join("unused.sock")).unwrap();
    assert!(
        place.on(&["run", "--detach"], &["--console-socket", "unused.sock"]).1.contains("cannot use console socket")
    );
    drop(listener);
    place.assert_nothing_left();
}

#[test]
fn a_device_moves_into_the_container() {
    let Some(place) = Place::new("netdev", &[]) else { return };
    place.edit(|c| {
        c["linux"]["netDevices"] = json!({"test0": {"name": "inside0"}});
        let script =
            "cd /sys/class/net && echo *; cat inside0/mtu inside0/address; cat /proc/net/fib_trie | grep -c 10.77.0.1";
        c["process"]["args"] = json!(["/bin/sh", "-c", script]);
    });
    let make = "ip link add test0 address 02:00:00:00:00:07 mtu 1400 type dummy || ip link add test0 address 02:00:00:00:00:07 mtu 1400 type veth";
    let script = format!(
        "{make} || exit 77; ip addr add 10.77.0.1/24 dev test0 && {} --root root run {}",
        place::program().display(),
        place.id
    );
    let output = Command::new("unshare").args(["-n", "sh", "-c", &script]).current_dir(&place.dir).output().unwrap();
    if output.status.code() == Some(77) {
        println!("skipped: the kernel makes no network device: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.starts_with("inside0 lo\n1400\n02:00:00:00:00:07\n") && !printed.ends_with("\n0\n"), "{output:?}");
    place.assert_nothing_left();
}
