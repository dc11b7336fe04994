//! Consoles: what machines print goes to a file each, of which the last two halves are kept, and to whoever looks on.

use crate::error::Result;
use crate::home::Home;
use offshoot_sys::{Errno, path, tty};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Bytes of a log before it becomes the old one.
const LONGEST: u64 = 256 << 10;
/// Bytes read at once.
const CHUNK: usize = 4096;
/// What one machine may print before the others get their turn.
const TURN: usize = 16;

/// A machine's console.
#[derive(Debug)]
pub struct Console {
    master: OwnedFd,
    /// Held open: a terminal that nobody in the machine has open at the moment would count as hung up, for good.
    _peer: Option<OwnedFd>,
    viewers: Vec<OwnedFd>,
}

/// The file with what a machine printed lately, and the one with what it printed before.
pub fn logs(home: &Home, name: &str) -> [PathBuf; 2] {
    ["console.log", "console.log.1"].map(|file| home.machine(name).join(file))
}

impl Console {
    /// Of this terminal.
    pub fn new(master: OwnedFd) -> Result<Console> {
        // Its own description: nobody else waits on it.
        nonblocking(&master)?;
        // Of what is no terminal there is none, as in tests.
        let peer = tty::peer(&master).ok();
        Ok(Console { master, _peer: peer, viewers: Vec::new() })
    }

    /// The terminal.
    pub fn master(&self) -> &OwnedFd {
        &self.master
    }

    /// Who looks on.
    pub fn viewers(&self) -> &[OwnedFd] {
        &self.viewers
    }

    /// Lets one more look on.
    pub fn add(&mut self, viewer: OwnedFd) -> Result<()> {
        nonblocking(&viewer)?;
        self.viewers.push(viewer);
        Ok(())
    }

    /// Passes on what the machine printed; `false` when its end is closed for good.
    pub fn read(&mut self, home: &Home, name: &str) -> bool {
        let mut chunk = [0; CHUNK];
        let mut printed = Vec::new();
        let mut open = true;
        for _ in 0..TURN {
            match path::read(&self.master, &mut chunk) {
                Ok(0) => open = false,
                Ok(length) => {
                    printed.extend_from_slice(&chunk[..length]);
                    continue;
                }
                Err(error) if error.errno() == Errno::EAGAIN => {}
                // EIO, once the machine is gone.
                Err(_) => open = false,
            }
            break;
        }
        if !printed.is_empty() {
            // A full disk must stop neither the machine nor the supervisor.
            let _ = keep(home, name, &printed);
            // A viewer that does not read loses what it does not read, or is gone.
            self.viewers.retain(|viewer| match path::write(viewer, &printed) {
                Err(error) => error.errno() == Errno::EAGAIN,
                Ok(_) => true,
            });
        }
        open
    }

    /// Passes on what the viewer number `at` typed, or lets it go.
    pub fn typed(&mut self, at: usize) {
        let mut chunk = [0; CHUNK];
        let keep = match path::read(&self.viewers[at], &mut chunk) {
            Ok(0) => false,
            // What the terminal does not take now is lost, as on any serial line.
            Ok(length) => path::write(&self.master, &chunk[..length]).is_ok(),
            Err(error) => error.errno() == Errno::EAGAIN,
        };
        if !keep {
            self.viewers.swap_remove(at);
        }
    }
}

fn keep(home: &Home, name: &str, printed: &[u8]) -> std::io::Result<()> {
    let [new, old] = logs(home, name);
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&new)?;
    if file.metadata()?.len() + printed.len() as u64 > LONGEST {
        fs::rename(&new, &old)?;
        file = OpenOptions::new().create(true).append(true).mode(0o600).open(&new)?;
    }
    file.write_all(printed)
}

fn nonblocking(fd: &OwnedFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(drop)
        .map_err(|errno| offshoot_sys::Error::new("fcntl(F_SETFL, O_NONBLOCK)", errno).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_printed_is_kept_and_shown_and_what_is_typed_arrives() {
        let scratch = Scratch::new("console");
        let home = Home::new(scratch.path());
        fs::create_dir_all(home.machine("x")).unwrap();
        let (mut machine, master) = UnixStream::pair().unwrap();
        let mut console = Console::new(master.into()).unwrap();
        let (mut person, viewer) = UnixStream::pair().unwrap();
        console.add(viewer.into()).unwrap();
        machine.write_all(b"login: ").unwrap();
        assert!(console.read(&home, "x"));
        let mut shown = [0; 7];
        std::io::Read::read_exact(&mut person, &mut shown).unwrap();
        assert_eq!(&shown, b"login: ");
        person.write_all(b"root\n").unwrap();
        console.typed(0);
        let mut typed = [0; 5];
        std::io::Read::read_exact(&mut machine, &mut typed).unwrap();
        assert_eq!(&typed, b"root\n");
        drop(person);
        console.typed(0);
        assert!(console.viewers().is_empty());
        for _ in 0..12 {
            machine.write_all(&[b'x'; 32 << 10]).unwrap();
            assert!(console.read(&home, "x"));
        }
        let sizes = logs(&home, "x").map(|file| fs::metadata(file).unwrap().len());
        assert_eq!(sizes[0] + sizes[1], 7 + 12 * (32 << 10));
        assert!(sizes[0] <= LONGEST && sizes[1] <= LONGEST);
        drop(machine);
        assert!(!console.read(&home, "x"));
    }
}
