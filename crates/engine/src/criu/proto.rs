//! Protocol buffers as far as CRIU's RPC needs them. spec: protobuf.dev/programming-guides/encoding
//!
//! Four message types do not pay for a code generator and its runtime.

/// A message being written, field by field.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    pub(super) fn u32(&mut self, field: u32, value: u32) {
        self.tag(field, VARINT);
        self.varint(value.into());
    }

    /// An `int32`: a negative one takes ten bytes.
    pub(super) fn i32(&mut self, field: u32, value: i32) {
        self.tag(field, VARINT);
        self.varint(i64::from(value).cast_unsigned());
    }

    pub(super) fn bool(&mut self, field: u32, value: bool) {
        self.u32(field, value.into());
    }

    /// A flag, left out where it is off: off is CRIU's default for all.
    pub(super) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.bool(field, true);
        }
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// A field's value as read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Option<u64> {
        if let Value::Number(number) = self { Some(number) } else { None }
    }

    /// An `int32`, of which the low 32 bits count.
    pub(super) fn i32(self) -> Option<i32> {
        self.number().map(|number| number as i32)
    }

    pub(super) fn bool(self) -> Option<bool> {
        self.number().map(|number| number != 0)
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        if let Value::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub(super) fn text(self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Calls `field` with every field of a message; `None` when the bytes are no message, or `field` says so.
pub(super) fn read<'a>(bytes: &'a [u8], mut field: impl FnMut(u32, Value<'a>) -> Option<()>) -> Option<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let tag = u32::try_from(take_varint(&mut rest)?).ok()?;
        let value = match tag & 7 {
            VARINT => Value::Number(take_varint(&mut rest)?),
            BYTES => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, length)?)
            }
            // No field that is read here has a fixed width; later versions may add some to skip.
            FIXED32 => Value::Bytes(take(&mut rest, 4)?),
            FIXED64 => Value::Bytes(take(&mut rest, 8)?),
            _ => return None,
        };
        field(tag >> 3, value)?;
    }
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
        let mut list = Vec::new();
        read(bytes, |field, value| {
            list.push((field, value));
            Some(())
        })?;
        Some(list)
    }

    /// The examples of the encoding's own documentation.
    #[test]
    fn documented_examples() {
        let mut out = Writer::default();
        out.u32(1, 150);
        out.bytes(2, b"testing");
        out.message(3, |inner| inner.u32(1, 150));
        out.i32(1, -2);
        let expected = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(out.0, expected);
        let list = fields(expected).unwrap();
        assert_eq!(list[0], (1, Value::Number(150)));
        assert_eq!(list[1].1.text().unwrap(), "testing");
        assert_eq!(fields(list[2].1.bytes().unwrap()).unwrap(), [(1, Value::Number(150))]);
        assert_eq!(list[3].1.i32(), Some(-2));
    }

    #[test]
    fn large_field_numbers() {
        let mut out = Writer::default();
        out.flag(68, true);
        out.flag(69, false);
        assert_eq!(out.0, [0xa0, 0x04, 0x01]);
    }

    #[test]
    fn broken_messages() {
        for bytes in [
            &b"\x08"[..],
            b"\x12\x07test",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b",
            b"\x0d\x01",
            b"\xff\xff\xff\xff\xff\xff\x01\x01",
        ] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
        assert_eq!(fields(b"\x0d1234\x09abcdefgh\x08\x01").unwrap().len(), 3);
    }
}
