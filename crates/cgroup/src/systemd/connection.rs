//! A connection to a bus: one thread, one call at a time, every wait bounded.

use super::Failure;
use super::address::Address;
use super::wire::{Call, ERROR, Encoder, FIXED_HEADER, Message, NO_REPLY, RETURN, SIGNAL};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, connect, send, setsockopt, socket, sockopt};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longer than systemd takes on a loaded machine; runc's figure.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The server's lines before messages begin are short.
const MAX_LINE: usize = 4096;

pub(super) struct Connection {
    stream: UnixStream,
    /// Received and not yet looked at.
    input: Vec<u8>,
    serial: u32,
}

impl Connection {
    pub(super) fn open(address: &Address) -> Result<Connection, Failure> {
        let wrong = |call: &'static str| move |errno| Failure::System(format!("{call} {}", address.display()), errno);
        let fd =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(wrong("socket for"))?;
        // Also bounds connect(2) to a listener whose queue is full. man 7 socket
        let patience = nix::sys::time::TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&fd, sockopt::SendTimeout, &patience).map_err(wrong("setsockopt for"))?;
        connect(fd.as_raw_fd(), &address.to_socket().map_err(wrong("connect"))?).map_err(wrong("connect"))?;
        Connection::authenticate(UnixStream::from(fd))
    }

    /// SASL `EXTERNAL` with an empty identity: the server takes ours from the socket. So it is right in a user
    /// namespace too, where the uid that the server sees is not the one that `getuid` tells.
    ///
    /// All in one message, as systemd's own library does it: a `BEGIN` that comes later may be read together with the
    /// first call, and systemd 257 then waits for more input with the whole call in its buffer.
    pub(super) fn authenticate(stream: UnixStream) -> Result<Connection, Failure> {
        let mut connection = Connection { stream, input: Vec::new(), serial: 0 };
        let deadline = Instant::now() + PATIENCE;
        connection.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for wanted in ["DATA", "OK "] {
            let line = connection.line(deadline)?;
            if !line.starts_with(wanted) {
                return Err(Failure::Protocol(format!("authentication was answered with {line:?}")));
            }
        }
        Ok(connection)
    }

    /// Calls, and gives the answer.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<Message, Failure> {
        let serial = self.next_serial();
        self.send(&call.message(serial, 0)?)?;
        let deadline = Instant::now() + PATIENCE;
        let answer = loop {
            let message = self.receive(deadline)?;
            // The serial belongs to this connection, and the bus passes on no answer that was not asked for.
            if message.reply_serial == Some(serial) && matches!(message.kind, RETURN | ERROR) {
                break message;
            }
        };
        if answer.kind == ERROR {
            let text = answer.body("s").and_then(|mut body| body.str().map(str::to_owned)).unwrap_or_default();
            return Err(Failure::Remote { name: answer.error_name, text });
        }
        Ok(answer)
    }

    /// Calls, and wants no answer.
    pub(super) fn tell(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        let serial = self.next_serial();
        self.send(&call.message(serial, NO_REPLY)?)
    }

    /// The first signal for which `wanted` has something to say.
    pub(super) fn wait_signal<T>(
        &mut self,
        mut wanted: impl FnMut(&Message) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            if message.kind == SIGNAL
                && let Some(found) = wanted(&message)?
            {
                return Ok(found);
            }
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match send(self.stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(nix::Error::EINTR) => {}
                // SO_SNDTIMEO ran out.
                Err(nix::Error::EAGAIN) => return Err(Failure::Timeout),
                Err(errno) => return Err(Failure::System("send to the bus".into(), errno)),
            }
        }
        Ok(())
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.input.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + 2);
                return Ok(line);
            }
            if self.input.len() > MAX_LINE {
                return Err(Failure::Protocol("authentication was answered at length".into()));
            }
            self.fill(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, Failure> {
        let length = loop {
            match self.input.first_chunk::<FIXED_HEADER>() {
                Some(header) => break Message::length(header)?,
                None => self.fill(deadline)?,
            }
        };
        while self.input.len() < length {
            self.fill(deadline)?;
        }
        let message = Message::parse(&self.input[..length])?;
        self.input.drain(..length);
        Ok(message)
    }

    /// Reads what there is, or waits for it until the deadline.
    fn fill(&mut self, deadline: Instant) -> Result<(), Failure> {
        let wrong = |call: &str, error: &std::io::Error| {
            Failure::System(call.into(), nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        };
        let mut chunk = [0; 4096];
        loop {
            // No time-out would be no limit at all; std refuses zero.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Timeout);
            }
            self.stream.set_read_timeout(Some(left)).map_err(|e| wrong("setsockopt for the bus", &e))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Failure::Protocol("the bus closed the connection".into())),
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(e) => return Err(wrong("read from the bus", &e)),
            }
        }
    }
}

/// A call without arguments, or with those in `body`.
pub(super) fn bus_call<'a>(member: &'a str, signature: &'a str, body: Encoder) -> Call<'a> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        signature,
        body,
    }
}
