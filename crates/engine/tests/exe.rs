//! `exe::protect` on a program of its own: this test executes itself, from several places and as several users, and then
//! attacks `/proc/PID/exe` of what it started. It has no test harness, since protecting a process wants its only thread.

#![forbid(unsafe_code)]
#![allow(clippy::type_complexity)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use offshoot_sys::{Errno, libc, path};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("victim") {
        return victim();
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to start programs as several users");
        return;
    }
    // What cargo left open would count among the descriptors of the programs below.
    offshoot_sys::process::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC).expect("close_range");
    let tests: [(&str, fn(&Place)); 4] = [
        ("root gets an overlay view", root_gets_a_view),
        ("a plain user gets a copy", a_user_gets_a_copy),
        ("a deleted program gets a copy", a_deleted_program_gets_a_copy),
        ("a sealed copy is executed once", a_copy_is_executed_once),
    ];
    for (name, test) in tests {
        test(&Place::new());
        println!("test {name} ... ok");
    }
}

/// The protected program: says what it is, then waits.
fn victim() {
    if let Err(error) = offshoot_engine::exe::protect(&offshoot_engine::log::Log::none()) {
        println!("{error}");
        return;
    }
    let exe = path::readlinkat(None, "/proc/self/exe").expect("exe");
    let args: Vec<String> = std::env::args().skip(2).collect();
    let name = std::fs::read_to_string("/proc/self/comm").expect("comm");
    let dumpable = offshoot_sys::process::dumpable().expect("dumpable");
    let env = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let fds = std::fs::read_dir("/proc/self/fd").expect("fds").count();
    println!("{} {args:?} {} {dumpable} {env} {fds}", exe.display(), name.trim());
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// A directory with a copy of this program.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("offshoot:exe-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        std::fs::copy("/proc/self/exe", dir.join("sprout")).expect("copy");
        Self(dir)
    }

    fn program(&self) -> PathBuf {
        self.0.join("sprout")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the program and reads its one line.
fn start(command: &mut Command) -> (Child, String) {
    command.arg("victim").args(["a b", ""]).env_clear().env("KEY", "a value");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("line");
    (child, line.trim().to_string())
}

/// What a container tries: open the program of a process for writing, now by its link, later by a descriptor of it.
fn attack(mut child: Child, program: &Path) {
    let before = std::fs::read(program).ok();
    let link = format!("/proc/{}/exe", child.id());
    // A sealed memfd can be opened for writing once nobody executes it, but not written.
    let refused = |opened: offshoot_sys::Result<_>| {
        let error = opened.and_then(|file| path::write(&file, b"#!")).expect_err("the program was written");
        assert!(matches!(error.errno(), Errno::EROFS | Errno::EPERM | Errno::ETXTBSY), "{error}");
    };
    refused(path::open(&link, libc::O_WRONLY, 0));
    refused(path::open(&link, libc::O_RDWR | libc::O_TRUNC, 0));
    let held = path::open(&link, libc::O_PATH, 0).expect("a descriptor of the program");
    child.stdin.take().expect("stdin").write_all(b"\n").expect("end");
    assert!(child.wait().expect("wait").success());
    refused(path::reopen(&held, libc::O_WRONLY));
    refused(path::reopen(&held, libc::O_RDWR | libc::O_TRUNC));
    assert_eq!(before, std::fs::read(program).ok());
}

/// The line of a victim: the same arguments, name and environment, and no descriptor but stdio and the directory it reads.
fn line(exe: &str) -> String {
    format!("{exe} [\"a b\", \"\"] sprout false KEY=a value 4")
}

fn root_gets_a_view(place: &Place) {
    let (child, said) = start(&mut Command::new(place.program()));
    assert_eq!(said, line("/sprout"));
    attack(child, &place.program());
}

const COPY: &str = "/memfd:runc_cloned:/proc/self/exe (deleted)";

fn a_user_gets_a_copy(place: &Place) {
    let (child, said) = start(Command::new(place.program()).uid(1000).gid(1000));
    assert_eq!(said, line(COPY));
    attack(child, &place.program());
}

fn a_deleted_program_gets_a_copy(place: &Place) {
    let held = path::open(place.program(), libc::O_PATH, 0).expect("open");
    std::fs::remove_file(place.program()).expect("remove");
    // Through a descriptor that the program inherits with this number, as the kernel's own path would be gone.
    let link = path::fd_path(&held);
    offshoot_sys::process::set_cloexec(&held, false).expect("inheritable");
    let (child, said) = start(Command::new(link).arg0("sprout"));
    assert_eq!(said, line(COPY).replace(" 4", " 5"));
    attack(child, &place.program());
}

/// What is protected already is not protected again: the memfd executed here is not copied, so its name stays.
fn a_copy_is_executed_once(place: &Place) {
    let file = offshoot_sys::memfd::memfd("own", offshoot_sys::memfd::MFD_ALLOW_SEALING).expect("memfd");
    path::copy(path::open(place.program(), libc::O_RDONLY, 0).expect("open"), &file).expect("copy");
    offshoot_sys::memfd::seal(&file, 0xf).expect("seal");
    offshoot_sys::process::set_cloexec(&file, false).expect("inheritable");
    let (child, said) = start(Command::new(path::fd_path(&file)).arg0("sprout"));
    assert_eq!(said, line("/memfd:own (deleted)").replace(" 4", " 5"));
    attack(child, &place.program());
}
