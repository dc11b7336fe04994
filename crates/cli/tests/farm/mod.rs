//! A store and a root directory for the machines of one test, and what a caller does with them.

#![allow(dead_code)] // Each test file uses a part of it.

use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The command under test: the one named by `OFFSHOOT`, or that of this build.
pub fn program() -> OsString {
    std::env::var_os("OFFSHOOT").unwrap_or_else(|| env!("CARGO_BIN_EXE_offshoot").into())
}

/// Busybox's init takes some seconds to go down.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Farm {
    pub dir: PathBuf,
    /// What names begin with: cgroups are the whole host's.
    pub tag: String,
    /// A process that keeps the network namespace that commands run in, where not the host's.
    pub network: Option<Child>,
}

impl Farm {
    pub fn new(test: &str) -> Option<Farm> {
        if fs::metadata("/proc/self").map(|meta| meta.uid()).ok() != Some(0) {
            println!("skipped: needs root");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            println!("skipped: no /bin/busybox");
            return None;
        }
        let dir = Path::new("/var/tmp").join(format!("offshoot-machine-{test}-{}", std::process::id()));
        let farm = Farm { tag: format!("ot-{}-{test}", std::process::id()), dir, network: None };
        farm.make_image();
        Some(farm)
    }

    pub fn make_image(&self) {
        let root = self.dir.join("image");
        for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "echo", "cat", "hostname", "sleep", "ps", "ip", "nslookup", "nc", "touch", "true"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        for applet in ["init", "reboot", "poweroff"] {
            symlink("../bin/busybox", root.join("sbin").join(applet)).unwrap();
        }
        fs::write(
            root.join("etc/inittab"),
            "::sysinit:/bin/echo booted\nconsole::respawn:/bin/sh\n::shutdown:/bin/echo bye\n",
        )
        .unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        self.ok(&["image", "import", "--quiet", "--name", "box", root.to_str().unwrap()]);
    }

    /// Has all commands run in a network namespace of their own.
    pub fn go_apart(&mut self) {
        // Nobody reads what it says, and a test that fails must not wait for its end.
        let mut unshare = Command::new("unshare");
        let silent =
            unshare.args(["-n", "sleep", "1000"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = silent.spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        while fs::read_link(format!("/proc/{}/ns/net", holder.id())).unwrap() == own {
            sleep(Duration::from_millis(5));
        }
        self.network = Some(holder);
        // As on any host: what it says to itself goes this way.
        let up = Command::new("nsenter")
            .arg(format!("--net={}", self.network()))
            .args(["ip", "link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
    }

    /// The namespace of [`Farm::go_apart`].
    pub fn network(&self) -> String {
        format!("/proc/{}/ns/net", self.network.as_ref().unwrap().id())
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match &self.network {
            Some(_) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", self.network())).arg(program());
                command
            }
            None => Command::new(program()),
        };
        command.arg("--root").arg(self.dir.join("root")).args(words).stdin(Stdio::null());
        // Options stand after the verb; what belongs to another program comes after them.
        command.env("OFFSHOOT_STORE", self.dir.join("store"));
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn fails(&self, words: &[&str], says: &str) {
        let output = self.run(words);
        assert!(!output.status.success() && text(&output).contains(says), "{words:?}: {}", text(&output));
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    pub fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.ok(&["machine", "show", name])).unwrap()
    }

    pub fn wait(&self, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let shown = self.show(name);
            if what(&shown) {
                return shown;
            }
            assert!(Instant::now() < end, "still {shown}");
            sleep(Duration::from_millis(50));
        }
    }

    /// The supervisor's number.
    pub fn supervisor(&self) -> u32 {
        // Its workers are copies of it.
        *self.supervisors(false).first().expect("no supervisor")
    }

    /// The supervisor with its workers, or the keeper of consoles, by number.
    pub fn supervisors(&self, keeper: bool) -> Vec<u32> {
        let root = self.dir.join("root");
        let is_ours = |pid: &u32| {
            let is_keeper =
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "offshoot-keeper\n");
            if is_keeper != keeper {
                return false;
            }
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).collect();
            words.contains(&root.to_str().unwrap().as_bytes()) && words.contains(&&b"supervise"[..])
        };
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut found: Vec<u32> = pids.filter(is_ours).collect();
        found.sort_unstable();
        found
    }

    /// Kills a process and waits until it is gone.
    pub fn kill(&self, pid: u32) {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let end = Instant::now() + PATIENCE;
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < end, "{pid} is still there");
            sleep(Duration::from_millis(10));
        }
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "{what}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Types into a console and waits until the log has the answer.
    pub fn types(&self, name: &str, line: &str, answer: &str) {
        let mut child = self
            .command(&["machine", "console", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // What is typed before the shell is there goes when that sets the terminal up.
        let mut at = Instant::now();
        stdin.write_all(line.as_bytes()).unwrap();
        let end = at + PATIENCE;
        while !self.ok(&["machine", "logs", name]).contains(answer) {
            assert!(Instant::now() < end, "{}", self.ok(&["machine", "logs", name]));
            if at.elapsed() > Duration::from_secs(2) {
                at = Instant::now();
                if stdin.write_all(line.as_bytes()).is_err() {
                    panic!("it has ended: {}", text(&child.wait_with_output().unwrap()));
                }
            }
            sleep(Duration::from_millis(50));
        }
        stdin.write_all(&[0x1d]).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && text(&output).contains(answer), "{}", text(&output));
    }

    pub fn assert_nothing_left(&self) {
        let empty = |dir: &str| assert_eq!(fs::read_dir(self.dir.join(dir)).map_or(0, Iterator::count), 0, "{dir}");
        empty("root");
        empty("store/machines");
        empty("store/clones");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for parent in [hierarchy.path().join("offshoot"), PathBuf::from("/sys/fs/cgroup/offshoot")] {
                let left = fs::read_dir(parent).into_iter().flatten().flatten();
                let ours: Vec<_> =
                    left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&self.tag)).collect();
                assert!(ours.is_empty(), "{ours:?}");
            }
        }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.run(&["machine", "rm", "--all", "--force"]);
        for network in fs::read_dir(self.dir.join("store/networks")).into_iter().flatten().flatten() {
            self.run(&["network", "rm", &network.file_name().to_string_lossy()]);
        }
        if fs::metadata(self.dir.join("root.machines/supervisor.sock")).is_ok() {
            let pid = self.supervisor().to_string();
            let _ = Command::new("kill").arg(pid).status();
        }
        if let Some(holder) = &mut self.network {
            let _ = holder.kill().and_then(|()| holder.wait());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}
