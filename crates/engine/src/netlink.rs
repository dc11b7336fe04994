//! rtnetlink, man 7 rtnetlink: the few requests that a container needs, and a parser that trusts no length.

use crate::error::{Error, Result};
use offshoot_sys::{Errno, errno_text, libc, path, socket};
use std::os::fd::OwnedFd;

/// Longest datagram: the kernel's dumps come in pieces of at most 32 KiB.
const DATAGRAM: usize = 65536;
/// Attempts at a dump that changes come in between.
const ATTEMPTS: usize = 16;

const HEADER: usize = 16;
/// `struct nlmsgerr`: an error number and the header of the request.
const ERROR_HEADER: usize = 20;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request to the kernel, made piece by piece.
pub struct Request {
    /// For messages, such as `RTM_NEWLINK eth0`.
    name: String,
    bytes: Vec<u8>,
    /// A refusal that is an answer.
    expected: Option<Errno>,
}

impl Request {
    /// A request of this type, with the fixed structure that follows the header.
    pub fn new(name: String, kind: u16, flags: i32, body: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend(body);
        Request { name, bytes, expected: None }.padded()
    }

    /// With an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        // Names and addresses: none is near the 64 KiB that a length can say.
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.padded()
    }

    /// With a string attribute.
    pub fn string(self, kind: u16, value: &str) -> Request {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn padded(mut self) -> Request {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn failed(&self, cause: impl std::fmt::Display) -> Error {
        Error::new(format!("{}: {cause}", self.name))
    }
}

/// One answer: its type and what follows the header.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// `RTM_…`
    pub kind: u16,
    /// The fixed structure of that type, and attributes.
    pub body: Vec<u8>,
}

impl Message {
    /// The fixed structure at the start, of `N` bytes.
    pub fn fixed<const N: usize>(&self) -> Option<[u8; N]> {
        self.body.first_chunk().copied()
    }

    /// The attributes after a fixed structure of `skip` bytes.
    pub fn attributes(&self, skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(skip.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// A socket to the routing tables of one network namespace.
pub struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    /// Of the caller's network namespace.
    ///
    /// # Errors
    /// The kernel has no rtnetlink, or the limit of open files is reached.
    pub fn open() -> Result<Route> {
        Ok(Route::from(socket::netlink(libc::NETLINK_ROUTE)?))
    }

    /// Sends a request and waits until the kernel has done it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn request(&mut self, request: Request) -> Result<()> {
        self.exchange(&request, libc::NLM_F_ACK).map(drop)
    }

    /// Sends a request; returns whether the kernel has done it, or refused with `expected`.
    ///
    /// # Errors
    /// Any other answer of the kernel.
    pub fn request_or(&mut self, request: Request, expected: Errno) -> Result<bool> {
        let request = Request { expected: Some(expected), ..request };
        Ok(matches!(self.exchange(&request, libc::NLM_F_ACK)?, Answer::Messages(..)))
    }

    /// Sends a request and returns its one answer; `None` where the thing asked for does not exist.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn get(&mut self, request: Request) -> Result<Option<Message>> {
        match self.exchange(&request, 0)? {
            Answer::Messages(messages, _) => Ok(messages.into_iter().next()),
            Answer::Absent => Ok(None),
        }
    }

    /// Sends a request for a list and returns all of it, as it was at one moment.
    ///
    /// # Errors
    /// The kernel's answer, or the list never stood still.
    pub fn dump(&mut self, request: Request) -> Result<Vec<Message>> {
        for _ in 0..ATTEMPTS {
            if let Answer::Messages(messages, true) = self.exchange(&request, libc::NLM_F_DUMP)? {
                return Ok(messages);
            }
        }
        Err(request.failed("the list changed all the time"))
    }

    fn exchange(&mut self, request: &Request, flags: i32) -> Result<Answer> {
        self.sequence += 1;
        let mut bytes = request.bytes.clone();
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) | flags as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        path::write_all(&self.socket, &bytes)?;
        let mut buffer = vec![0; DATAGRAM];
        let mut reader = Reader { sequence: self.sequence, messages: Vec::new(), consistent: true };
        loop {
            let length = socket::netlink_recv(&self.socket, &mut buffer)?;
            let datagram = buffer.get(..length).unwrap_or_default();
            match reader.read(datagram).map_err(|cause| request.failed(cause))? {
                None => {}
                Some(End::Done) => return Ok(Answer::Messages(reader.messages, reader.consistent)),
                Some(End::Failed(errno, _)) if Some(errno) == request.expected => return Ok(Answer::Absent),
                Some(End::Failed(Errno::ENODEV, _)) if flags & libc::NLM_F_ACK as u16 == 0 => {
                    return Ok(Answer::Absent);
                }
                Some(End::Failed(errno, text)) if text.is_empty() => return Err(request.failed(errno_text(errno))),
                Some(End::Failed(errno, text)) => {
                    return Err(request.failed(format!("{} ({text})", errno_text(errno))));
                }
            }
        }
    }
}

impl From<OwnedFd> for Route {
    /// The socket may be that of another network namespace.
    fn from(socket: OwnedFd) -> Route {
        Route { socket, sequence: 0 }
    }
}

enum Answer {
    /// What the kernel sent, and whether nothing changed while it did.
    Messages(Vec<Message>, bool),
    Absent,
}

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed(Errno, String),
}

/// Collects the messages that answer one request.
struct Reader {
    sequence: u32,
    messages: Vec<Message>,
    consistent: bool,
}

impl Reader {
    /// Reads a datagram; `None` where more follows.
    fn read(&mut self, mut bytes: &[u8]) -> std::result::Result<Option<End>, &'static str> {
        const CUT: &str = "the kernel's answer is cut short";
        while !bytes.is_empty() {
            let length = word(bytes, 0).ok_or(CUT)? as usize;
            let (kind, flags) = (half(bytes, 4).ok_or(CUT)?, half(bytes, 6).ok_or(CUT)?);
            let sequence = word(bytes, 8).ok_or(CUT)?;
            let body = bytes.get(HEADER..length).ok_or(CUT)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            // The rest of a list that was given up.
            if sequence != self.sequence {
                continue;
            }
            self.consistent &= flags & libc::NLM_F_DUMP_INTR as u16 == 0;
            match i32::from(kind) {
                libc::NLMSG_NOOP => {}
                libc::NLMSG_DONE => return Ok(Some(End::Done)),
                libc::NLMSG_ERROR => return Ok(Some(failure(body, flags).ok_or(CUT)?)),
                _ => {
                    self.messages.push(Message { kind, body: body.to_vec() });
                    if flags & libc::NLM_F_MULTI as u16 == 0 {
                        return Ok(Some(End::Done));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// An acknowledgement is an error 0.
fn failure(body: &[u8], flags: u16) -> Option<End> {
    let code = word(body, 0)? as i32;
    if code == 0 {
        return Some(End::Done);
    }
    let request = if flags & NLM_F_CAPPED == 0 { word(body, 4)? as usize } else { HEADER };
    let start =
        if flags & NLM_F_ACK_TLVS == 0 { body.len() } else { ERROR_HEADER - HEADER + request.next_multiple_of(4) };
    let mut found = attributes(body.get(start..).unwrap_or_default());
    let text = found.find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map(|(_, text)| text_of(text));
    Some(End::Failed(Errno::from_raw(code.wrapping_neg()), text.unwrap_or_default()))
}

/// A string attribute without its NUL.
fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        // The two top bits say "nested" and "network byte order".
        let kind = half(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// The 32-bit number at this place.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i32, flags: i32, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend((kind as u16).to_ne_bytes());
        bytes.extend((flags as u16).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn reader() -> Reader {
        Reader { sequence: 7, messages: Vec::new(), consistent: true }
    }

    #[test]
    fn a_list_in_two_datagrams() {
        let mut reader = reader();
        let multi = libc::NLM_F_MULTI;
        let stale = message(16, multi, 6, b"stale");
        assert_eq!(reader.read(&[stale, message(16, multi, 7, b"one")].concat()), Ok(None));
        let end = [message(16, multi, 7, b"three"), message(libc::NLMSG_DONE, multi, 7, &[0; 4])].concat();
        assert_eq!(reader.read(&end), Ok(Some(End::Done)));
        let bodies: Vec<&[u8]> = reader.messages.iter().map(|message| message.body.as_slice()).collect();
        assert_eq!(bodies, [&b"one"[..], b"three"]);
        assert!(reader.consistent);
        reader.read(&message(16, multi | libc::NLM_F_DUMP_INTR, 7, b"")).unwrap();
        assert!(!reader.consistent);
    }

    #[test]
    fn errors_carry_the_kernels_words() {
        let request = [0; HEADER];
        let text = b"Unknown device\0\0";
        let attribute = [&20u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), text].concat();
        let body = [&(-(libc::EINVAL)).to_ne_bytes()[..], &request, &attribute].concat();
        let flags = i32::from(NLM_F_CAPPED | NLM_F_ACK_TLVS);
        let bytes = message(libc::NLMSG_ERROR, flags, 7, &body);
        assert_eq!(reader().read(&bytes), Ok(Some(End::Failed(Errno::EINVAL, "Unknown device".into()))));
        let plain = message(libc::NLMSG_ERROR, 0, 7, &[&(-1i32).to_ne_bytes()[..], &request].concat());
        assert_eq!(reader().read(&plain), Ok(Some(End::Failed(Errno::EPERM, String::new()))));
        let done = message(libc::NLMSG_ERROR, 0, 7, &[0; ERROR_HEADER]);
        assert_eq!(reader().read(&done), Ok(Some(End::Done)));
    }

    /// Every answer cut at every place, and with every byte of its headers wrong, is an error or nothing: never a panic.
    #[test]
    fn no_length_is_trusted() {
        let attribute = [&9u16.to_ne_bytes()[..], &3u16.to_ne_bytes(), b"eth0\0"].concat();
        let link = message(16, 0, 7, &[&[0; 16][..], &attribute].concat());
        let error = message(libc::NLMSG_ERROR, 0x300, 7, &[&[0xff; 4][..], &[0; HEADER], &attribute].concat());
        for whole in [link, error] {
            let length = word(&whole, 0).unwrap() as usize;
            for end in 0..length {
                let mut reader = reader();
                let _ = reader.read(&whole[..end]);
                assert!(reader.messages.is_empty());
            }
            for at in 0..whole.len() {
                for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.clone();
                    bytes[at] = value;
                    let mut reader = reader();
                    let _ = reader.read(&bytes);
                    assert!(reader.messages.iter().all(|message| message.attributes(16).count() < 8));
                }
            }
        }
    }
}
