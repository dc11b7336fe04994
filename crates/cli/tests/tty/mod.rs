//! A terminal on which a test calls a command, as a person does. Not by script(1), which types an end of its own into it.

#![allow(dead_code)] // Each test file uses a part of it.

use offshoot_sys::event::{self, POLLHUP, POLLIN};
use offshoot_sys::libc::{O_NOCTTY, O_RDWR};
use offshoot_sys::path;
use offshoot_sys::tty::{self, Size};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Terminal {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Terminal {
        let master = path::open("/dev/ptmx", O_RDWR | O_NOCTTY, 0).unwrap();
        tty::unlock(&master).unwrap();
        let peer = tty::peer(&master).unwrap();
        tty::set_size(&peer, Size { rows, columns }).unwrap();
        Terminal { master, peer }
    }

    /// Starts a command that has it for all of its streams.
    pub fn start(&self, mut command: Command) -> Child {
        let stream = || self.peer.try_clone().unwrap();
        command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap()
    }

    pub fn types(&self, text: &str) {
        path::write_all(&self.master, text.as_bytes()).unwrap();
    }

    /// Waits for the end of a command; what it has shown.
    pub fn shows(&self, child: &mut Child) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        let (mut shown, mut chunk, mut status) = (Vec::new(), [0; 4096], None);
        loop {
            let mut fds = [(self.master.as_fd(), POLLIN, 0)];
            event::poll(&mut fds, Some(Duration::from_millis(20))).unwrap();
            if fds[0].2 & (POLLIN | POLLHUP) != 0 {
                let length = path::read(&self.master, &mut chunk).unwrap();
                shown.extend_from_slice(&chunk[..length]);
            } else if let Some(status) = status {
                // Nothing has come since it ended.
                return (status, String::from_utf8_lossy(&shown).replace('\r', ""));
            } else {
                status = child.try_wait().unwrap();
                assert!(Instant::now() < end, "it does not end: {}", String::from_utf8_lossy(&shown));
            }
        }
    }
}
