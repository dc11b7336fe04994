//! D-Bus messages as bytes. spec: D-Bus Specification, "Marshaling (Wire Format)" and "Message Protocol".
//!
//! What is read comes from a bus daemon or systemd; still no length in it is believed before it is checked.

use super::Failure;
use offshoot_plan::cgroup::systemd::Value;

/// Far above any answer of systemd (the protocol allows 128 MiB), and no harm to allocate.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// The part of a header before its fields.
pub(super) const FIXED_HEADER: usize = 16;

const LITTLE: u8 = b'l';
const BIG: u8 = b'B';
const VERSION: u8 = 1;

/// Message types.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// `NO_REPLY_EXPECTED`
pub(super) const NO_REPLY: u8 = 1;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Little-endian bytes, aligned as the message wants them.
#[derive(Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend_from_slice(&bytes);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.number(number.to_le_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(super) fn str(&mut self, text: &str) {
        // No longer than MAX_MESSAGE when it is sent: `message` sees to it.
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// The length of an array leaves out the padding before its first element.
    fn array(&mut self, element: &str, fill: impl FnOnce(&mut Encoder)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment(element));
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn structure(&mut self, fill: impl FnOnce(&mut Encoder)) {
        self.align(8);
        fill(self);
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(v) => self.bool(*v),
            Value::Byte(v) => self.0.push(*v),
            Value::I16(v) => self.number(v.to_le_bytes()),
            Value::U16(v) => self.number(v.to_le_bytes()),
            Value::I32(v) => self.number(v.to_le_bytes()),
            Value::U32(v) => self.number(v.to_le_bytes()),
            Value::I64(v) => self.number(v.to_le_bytes()),
            Value::U64(v) => self.number(v.to_le_bytes()),
            Value::Double(v) => self.number(v.to_le_bytes()),
            Value::Str(v) | Value::ObjectPath(v) => self.str(v),
            Value::Signature(v) => self.signature(v),
            Value::Array(element, list) => self.array(element, |e| list.iter().for_each(|v| e.value(v))),
            Value::Struct(fields) => self.structure(|e| fields.iter().for_each(|v| e.value(v))),
            Value::Variant(inner) => self.variant(inner),
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }

    /// `a(sv)`: the properties of a unit.
    pub(super) fn properties<'v>(&mut self, list: impl Iterator<Item = (&'v str, &'v Value)>) {
        self.array("(sv)", |e| {
            for (name, value) in list {
                e.structure(|e| {
                    e.str(name);
                    e.variant(value);
                });
            }
        });
    }
}

/// A method call.
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) signature: &'a str,
    pub(super) body: Encoder,
}

impl Call<'_> {
    pub(super) fn message(&self, serial: u32, flags: u8) -> Result<Vec<u8>, Failure> {
        let mut message = Encoder(vec![LITTLE, CALL, flags, VERSION]);
        message.u32(self.body.0.len() as u32);
        message.u32(serial);
        message.array("(yv)", |fields| {
            let mut field = |code, value: Value| {
                fields.structure(|f| {
                    f.0.push(code);
                    f.variant(&value);
                });
            };
            field(PATH, Value::ObjectPath(self.path.into()));
            field(DESTINATION, Value::str(self.destination));
            field(INTERFACE, Value::str(self.interface));
            field(MEMBER, Value::str(self.member));
            if !self.signature.is_empty() {
                field(SIGNATURE, Value::Signature(self.signature.into()));
            }
        });
        message.align(8);
        message.0.extend_from_slice(&self.body.0);
        if message.0.len() > MAX_MESSAGE {
            return Err(Failure::Protocol(format!("the message of {} bytes is too long", message.0.len())));
        }
        Ok(message.0)
    }
}

/// A received message.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) reply_serial: Option<u32>,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error_name: String,
    pub(super) sender: String,
    signature: String,
    little: bool,
    body: Vec<u8>,
}

impl Message {
    /// How long the message is that begins with `header`.
    pub(super) fn length(header: &[u8; FIXED_HEADER]) -> Result<usize, Failure> {
        let little = is_little(header[0])?;
        if header[3] != VERSION {
            return Err(Failure::Protocol(format!("message of protocol version {}", header[3])));
        }
        let word = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            (if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }) as usize
        };
        let (body, fields) = (word(4), word(12));
        if body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(Failure::Protocol("received a message that is too long".into()));
        }
        Ok((FIXED_HEADER + fields).next_multiple_of(8) + body)
    }

    /// `bytes` is one whole message, of the length that [`Message::length`] told.
    pub(super) fn parse(bytes: &[u8]) -> Result<Message, Failure> {
        let mut reader = Reader { bytes, at: 0, little: true };
        let little = is_little(reader.byte()?)?;
        reader.little = little;
        let mut message = Message { kind: reader.byte()?, little, ..Message::default() };
        reader.take(2)?;
        let body = reader.u32()? as usize;
        let _serial = reader.u32()?;
        let fields = reader.u32()? as usize;
        let end = reader.at.checked_add(fields).filter(|end| *end <= bytes.len()).ok_or_else(short)?;
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let signature = reader.signature()?;
            // Every field that the protocol has is of a basic type; unknown ones are to be ignored.
            match (code, signature) {
                (REPLY_SERIAL, "u") => message.reply_serial = Some(reader.u32()?),
                (SIGNATURE, "g") => message.signature = reader.signature()?.to_owned(),
                (_, "s" | "o") => {
                    let text = reader.str()?.to_owned();
                    match code {
                        INTERFACE => message.interface = text,
                        MEMBER => message.member = text,
                        ERROR_NAME => message.error_name = text,
                        SENDER => message.sender = text,
                        _ => {}
                    }
                }
                (_, "u" | "i") => drop(reader.take_aligned(4)?),
                (_, "g") => drop(reader.signature()?),
                (_, other) => return Err(Failure::Protocol(format!("received header field {code} of type {other:?}"))),
            }
        }
        reader.align(8)?;
        message.body = reader.take(body)?.to_vec();
        Ok(message)
    }

    /// The body, which must begin with values of the types `signature`.
    pub(super) fn body(&self, signature: &str) -> Result<Reader<'_>, Failure> {
        if !self.signature.starts_with(signature) {
            return Err(Failure::Protocol(format!(
                "received an answer of type {:?}, not {signature:?}",
                self.signature
            )));
        }
        Ok(Reader { bytes: &self.body, at: 0, little: self.little })
    }
}

fn is_little(mark: u8) -> Result<bool, Failure> {
    match mark {
        LITTLE => Ok(true),
        BIG => Ok(false),
        other => Err(Failure::Protocol(format!("received byte order mark {other:#x}"))),
    }
}

fn short() -> Failure {
    Failure::Protocol("received a message shorter than it says".into())
}

/// Values out of bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let end = self.at.checked_add(count).ok_or_else(short)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Failure> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn take_aligned(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        self.align(count)?;
        self.take(count)
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Failure> {
        let bytes = self.take_aligned(4)?.try_into().map_err(|_| short())?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A string or an object path.
    pub(super) fn str(&mut self) -> Result<&'a str, Failure> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    pub(super) fn signature(&mut self) -> Result<&'a str, Failure> {
        let length = self.byte()? as usize;
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Failure> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 {
            return Err(Failure::Protocol("received a string without its NUL".into()));
        }
        std::str::from_utf8(bytes).map_err(|_| Failure::Protocol("received a string that is not UTF-8".into()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a server would send.
    pub(crate) fn encode(kind: u8, fields: &[(u8, Value)], signature: &str, body: &[Value]) -> Vec<u8> {
        let mut content = Encoder::default();
        body.iter().for_each(|v| content.value(v));
        let mut message = Encoder(vec![LITTLE, kind, NO_REPLY, VERSION]);
        message.u32(content.0.len() as u32);
        message.u32(77);
        message.array("(yv)", |out| {
            let signature = (SIGNATURE, Value::Signature(signature.into()));
            for (code, value) in fields.iter().chain([&signature]) {
                out.structure(|f| {
                    f.0.push(*code);
                    f.variant(value);
                });
            }
        });
        message.align(8);
        message.0.extend_from_slice(&content.0);
        message.0
    }

    pub(crate) fn reply(to: u32, signature: &str, body: &[Value]) -> Vec<u8> {
        encode(RETURN, &[(REPLY_SERIAL, Value::U32(to)), (SENDER, Value::str(":1.1"))], signature, body)
    }

    pub(crate) fn error(to: u32, name: &str, text: &str) -> Vec<u8> {
        let fields = [(REPLY_SERIAL, Value::U32(to)), (ERROR_NAME, Value::str(name)), (SENDER, Value::str(":1.1"))];
        encode(ERROR, &fields, "s", &[Value::str(text)])
    }

    pub(crate) fn signal(sender: &str, member: &str, signature: &str, body: &[Value]) -> Vec<u8> {
        let fields = [
            (PATH, Value::ObjectPath("/org/freedesktop/systemd1".into())),
            (INTERFACE, Value::str("org.freedesktop.systemd1.Manager")),
            (MEMBER, Value::str(member)),
            (SENDER, Value::str(sender)),
        ];
        encode(SIGNAL, &fields, signature, body)
    }

    #[test]
    fn a_call_byte_by_byte() {
        let call = Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            signature: "",
            body: Encoder::default(),
        };
        let mut expected = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6e\x00\x00\x00".to_vec();
        expected.extend_from_slice(b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00");
        expected.extend_from_slice(b"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        expected.extend_from_slice(b"\x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        expected.extend_from_slice(b"\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00");
        assert_eq!(call.message(1, 0).unwrap(), expected);
    }

    #[test]
    fn values_are_aligned() {
        let mut out = Encoder::default();
        out.value(&Value::Byte(1));
        out.value(&Value::Array("t".into(), vec![]));
        assert_eq!(out.0, [1, 0, 0, 0, 0, 0, 0, 0], "padding before the element stands even when there is none");
        let mut out = Encoder::default();
        out.value(&Value::string_pairs(vec![("a".into(), "b".into())]));
        assert_eq!(out.0, b"\x0e\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0");
        let mut out = Encoder::default();
        out.value(&Value::Variant(Box::new(Value::U64(5))));
        assert_eq!(out.0, b"\x01t\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
    }

    #[test]
    fn messages_come_back() {
        let bytes = signal(":1.1", "JobRemoved", "us", &[Value::U32(9), Value::str("done")]);
        let header: &[u8; 16] = bytes[..16].try_into().unwrap();
        assert_eq!(Message::length(header).unwrap(), bytes.len());
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str(), message.sender.as_str()), (SIGNAL, "JobRemoved", ":1.1"));
        let mut body = message.body("us").unwrap();
        assert_eq!((body.u32().unwrap(), body.str().unwrap()), (9, "done"));
        assert!(body.u32().is_err());
        assert!(message.body("o").is_err());
    }

    /// Cut short anywhere, or with any byte changed to anything: a message or an error, and no panic.
    #[test]
    fn broken_messages_are_errors() {
        let bytes = error(3, "org.freedesktop.systemd1.UnitExists", "Unit x.scope already exists.");
        let read = |bytes: &[u8]| {
            if let Some(header) = bytes.first_chunk::<FIXED_HEADER>() {
                let _ = Message::length(header);
            }
            Message::parse(bytes).and_then(|m| m.body("s")?.str().map(str::to_owned))
        };
        assert_eq!(read(&bytes).unwrap(), "Unit x.scope already exists.");
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            for byte in 0..=255 {
                let mut broken = bytes.clone();
                broken[at] = byte;
                let _ = read(&broken);
            }
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let mut header = *b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6e\x00\x00\x00";
        assert_eq!(Message::length(&header).unwrap(), 128);
        header[7] = 0x7f;
        assert!(Message::length(&header).is_err());
        header[7] = 0;
        header[15] = 0xff;
        assert!(Message::length(&header).is_err());
        header[0] = b'x';
        assert!(Message::length(&header).is_err());
    }
}
