//! What is asked of systemd: a unit by name, and D-Bus values by type.

mod unit;
mod variant;

pub use unit::expand_slice;

use serde::{Deserialize, Serialize};

/// A transient scope (or slice) that holds a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemdUnit {
    /// `PREFIX-NAME.scope`, or `NAME.slice`.
    pub name: String,
    /// The slice the unit is put in, not expanded: `machine-a.slice`, not `machine.slice/machine-a.slice`.
    pub slice: String,
    /// Properties of `StartTransientUnit`, in order, without `PIDs`: the process is known only later.
    pub properties: Vec<(String, Value)>,
}

/// A D-Bus value. spec: D-Bus Specification, "Type System".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Str(String),
    /// `o`
    ObjectPath(String),
    /// `g`
    Signature(String),
    /// `a…`: the signature of one element, and the elements; every element has that signature.
    Array(String, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// The value's D-Bus signature.
    #[must_use]
    pub fn signature(&self) -> String {
        let basic = match self {
            Value::Bool(_) => "b",
            Value::Byte(_) => "y",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Str(_) => "s",
            Value::ObjectPath(_) => "o",
            Value::Signature(_) => "g",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                return format!("({})", fields.iter().map(Value::signature).collect::<String>());
            }
        };
        basic.into()
    }

    /// `s`
    #[must_use]
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// `as`
    pub fn strings(list: impl IntoIterator<Item = impl Into<String>>) -> Value {
        Value::Array("s".into(), list.into_iter().map(Value::str).collect())
    }

    /// `ay`
    #[must_use]
    pub fn bytes(list: &[u8]) -> Value {
        Value::Array("y".into(), list.iter().copied().map(Value::Byte).collect())
    }

    /// `au`
    #[must_use]
    pub fn u32s(list: &[u32]) -> Value {
        Value::Array("u".into(), list.iter().copied().map(Value::U32).collect())
    }

    /// `a(ss)`
    #[must_use]
    pub fn string_pairs(list: Vec<(String, String)>) -> Value {
        let pair = |(a, b)| Value::Struct(vec![Value::Str(a), Value::Str(b)]);
        Value::Array("(ss)".into(), list.into_iter().map(pair).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_nest() {
        assert_eq!(Value::string_pairs(vec![]).signature(), "a(ss)");
        assert_eq!(Value::Struct(vec![Value::U32(1), Value::strings(["a"])]).signature(), "(uas)");
        assert_eq!(Value::Variant(Box::new(Value::Bool(true))).signature(), "v");
    }
}
