//! `org.systemd.property.*` annotations: GVariant text (`uint64 30000000`, `'inactive-or-failed'`, `['crio.service']`).
//!
//! spec: "GVariant Text Format" of `GLib`, less maybes and dictionaries: no unit property has such a type.

use super::Value;

/// Deeper than any unit property nests, shallow enough for any stack.
const MAX_DEPTH: usize = 16;

/// The value that `text` spells, with runc's defaults where no type is given: `int32`, `double`, `string`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, rest: text };
    let node = parser.node(0)?;
    parser.space();
    if !parser.rest.is_empty() {
        return Err(parser.unexpected());
    }
    let kind = node.known().or_else(|| node.default_type()).ok_or("cannot tell the type of an empty array")?;
    node.into_value(&kind)
}

/// A value as spelled: a number is not a `uint64` before something says so.
enum Node {
    Typed(Type, Box<Node>),
    Number(String),
    Text(String),
    Bool(bool),
    Bytes(Vec<u8>),
    Array(Vec<Node>),
    Tuple(Vec<Node>),
    Variant(Box<Node>),
}

#[derive(Clone, Debug, PartialEq)]
enum Type {
    /// One letter of `bynqiuxtdsogv`.
    Basic(char),
    Array(Box<Type>),
    Tuple(Vec<Type>),
}

impl Type {
    fn signature(&self) -> String {
        match self {
            Type::Basic(letter) => (*letter).to_string(),
            Type::Array(element) => format!("a{}", element.signature()),
            Type::Tuple(fields) => format!("({})", fields.iter().map(Type::signature).collect::<String>()),
        }
    }

    /// One complete type at the start of `signature`, and what follows it.
    fn take(signature: &str, depth: usize) -> Option<(Type, &str)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let first = signature.chars().next()?;
        let mut rest = &signature[first.len_utf8()..];
        match first {
            'a' => Type::take(rest, depth + 1).map(|(element, rest)| (Type::Array(Box::new(element)), rest)),
            '(' => {
                let mut fields = Vec::new();
                while !rest.starts_with(')') {
                    let (field, after) = Type::take(rest, depth + 1)?;
                    fields.push(field);
                    rest = after;
                }
                (!fields.is_empty()).then(|| (Type::Tuple(fields), &rest[1..]))
            }
            letter => "bynqiuxtdsogv".contains(letter).then_some((Type::Basic(letter), rest)),
        }
    }

    fn named(word: &str) -> Option<Type> {
        let letter = match word {
            "boolean" => 'b',
            "byte" => 'y',
            "int16" => 'n',
            "uint16" => 'q',
            "int32" => 'i',
            "uint32" => 'u',
            "int64" => 'x',
            "uint64" => 't',
            "double" => 'd',
            "string" => 's',
            "objectpath" => 'o',
            "signature" => 'g',
            _ => return None,
        };
        Some(Type::Basic(letter))
    }
}

fn is_fraction(number: &str) -> bool {
    !number.contains('x') && number.contains(['.', 'e', 'E'])
}

impl Node {
    /// The type, where the text leaves only one.
    fn known(&self) -> Option<Type> {
        match self {
            Node::Typed(kind, _) => Some(kind.clone()),
            Node::Number(number) => is_fraction(number).then_some(Type::Basic('d')),
            Node::Text(_) => None,
            Node::Bool(_) => Some(Type::Basic('b')),
            Node::Bytes(_) => Some(Type::Array(Box::new(Type::Basic('y')))),
            Node::Variant(_) => Some(Type::Basic('v')),
            Node::Array(list) => list.iter().find_map(Node::known).map(|t| Type::Array(Box::new(t))),
            Node::Tuple(list) => list.iter().map(Node::known).collect::<Option<_>>().map(Type::Tuple),
        }
    }

    /// The type that GVariant text means when nothing in it decides.
    fn default_type(&self) -> Option<Type> {
        match self {
            Node::Number(_) if self.known().is_none() => Some(Type::Basic('i')),
            Node::Text(_) => Some(Type::Basic('s')),
            Node::Array(list) => {
                let element = list.iter().find_map(Node::known).or_else(|| list.iter().find_map(Node::default_type))?;
                Some(Type::Array(Box::new(element)))
            }
            Node::Tuple(list) => {
                let fields = list.iter().map(|n| n.known().or_else(|| n.default_type())).collect::<Option<_>>()?;
                Some(Type::Tuple(fields))
            }
            _ => self.known(),
        }
    }

    fn into_value(self, kind: &Type) -> Result<Value, String> {
        let mismatch = |what: &str| Err(format!("{what} is not of type {:?}", kind.signature()));
        match (self, kind) {
            (Node::Typed(own, node), kind) if own == *kind => node.into_value(kind),
            (Node::Typed(own, _), _) => mismatch(&format!("a value of type {:?}", own.signature())),
            (Node::Number(number), Type::Basic(letter)) => number_value(&number, *letter),
            (Node::Text(text), Type::Basic('s')) => Ok(Value::Str(text)),
            (Node::Text(text), Type::Basic('o')) if is_object_path(&text) => Ok(Value::ObjectPath(text)),
            (Node::Text(text), Type::Basic('g')) if is_signature(&text) => Ok(Value::Signature(text)),
            (Node::Text(text), _) => mismatch(&format!("{text:?}")),
            (Node::Bool(value), Type::Basic('b')) => Ok(Value::Bool(value)),
            (Node::Bytes(bytes), Type::Array(element)) if **element == Type::Basic('y') => Ok(Value::bytes(&bytes)),
            (Node::Variant(node), Type::Basic('v')) => {
                let own = node.known().or_else(|| node.default_type()).ok_or("cannot tell the type in a variant")?;
                Ok(Value::Variant(Box::new(node.into_value(&own)?)))
            }
            (Node::Array(list), Type::Array(element)) => {
                let values = list.into_iter().map(|node| node.into_value(element)).collect::<Result<_, _>>()?;
                Ok(Value::Array(element.signature(), values))
            }
            (Node::Tuple(list), Type::Tuple(kinds)) if list.len() == kinds.len() => {
                let fields = list.into_iter().zip(kinds).map(|(node, kind)| node.into_value(kind));
                Ok(Value::Struct(fields.collect::<Result<_, _>>()?))
            }
            (Node::Number(number), _) => mismatch(&number),
            (Node::Bool(value), _) => mismatch(if value { "true" } else { "false" }),
            (Node::Bytes(_), _) => mismatch("a byte string"),
            (Node::Variant(_), _) => mismatch("a variant"),
            (Node::Array(_), _) => mismatch("an array"),
            (Node::Tuple(_), _) => mismatch("a tuple"),
        }
    }
}

fn number_value(number: &str, letter: char) -> Result<Value, String> {
    let wrong = || format!("{number:?} is not a number of type {letter:?}");
    if letter == 'd' {
        return number.parse().map(Value::Double).map_err(|_| wrong());
    }
    let (negative, digits) = match number.as_bytes().first() {
        Some(b'-') => (true, &number[1..]),
        Some(b'+') => (false, &number[1..]),
        _ => (false, number),
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        plain_digits(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        plain_digits(&digits[1..], 8)
    } else {
        plain_digits(digits, 10)
    };
    let value = magnitude.map(|m| if negative { -i128::from(m) } else { i128::from(m) }).ok_or_else(wrong)?;
    let typed = match letter {
        'y' => value.try_into().map(Value::Byte),
        'n' => value.try_into().map(Value::I16),
        'q' => value.try_into().map(Value::U16),
        'i' => value.try_into().map(Value::I32),
        'u' => value.try_into().map(Value::U32),
        'x' => value.try_into().map(Value::I64),
        't' => value.try_into().map(Value::U64),
        _ => return Err(wrong()),
    };
    typed.map_err(|_| wrong())
}

/// `from_str_radix` alone would take a second sign.
fn plain_digits(digits: &str, radix: u32) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { u64::from_str_radix(digits, radix).ok() } else { None }
}

fn is_object_path(text: &str) -> bool {
    let element = |e: &str| !e.is_empty() && e.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(element))
}

fn is_signature(mut text: &str) -> bool {
    while !text.is_empty() {
        match Type::take(text, 0) {
            Some((_, rest)) => text = rest,
            None => return false,
        }
    }
    true
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self) -> String {
        match self.rest.chars().next() {
            Some(c) => format!("unexpected {c:?} at byte {}", self.text.len() - self.rest.len()),
            None => "unexpected end".into(),
        }
    }

    fn eat(&mut self, token: char) -> bool {
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// The longest run of characters that `accept` takes.
    fn run(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        self.space();
        match self.rest.chars().next() {
            Some('[') => self.list('[', ']', depth).map(Node::Array),
            Some('(') => match self.list('(', ')', depth)? {
                fields if fields.is_empty() => Err("an empty tuple is no D-Bus value".into()),
                fields => Ok(Node::Tuple(fields)),
            },
            Some('<') => match self.list('<', '>', depth)?.pop() {
                Some(node) => Ok(Node::Variant(Box::new(node))),
                None => Err("an empty variant".into()),
            },
            Some(quote @ ('\'' | '"')) => self.quoted(quote).map(Node::Text),
            Some('@') => self.annotated(depth),
            Some('b') if self.rest[1..].starts_with(['\'', '"']) => self.byte_string().map(Node::Bytes),
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => {
                Ok(Node::Number(self.run(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)).into()))
            }
            Some(c) if c.is_ascii_lowercase() => {
                let before = self.rest;
                match self.run(|c| c.is_ascii_alphanumeric()) {
                    "true" => Ok(Node::Bool(true)),
                    "false" => Ok(Node::Bool(false)),
                    word => match Type::named(word) {
                        Some(kind) => self.typed(kind, depth),
                        None => {
                            self.rest = before;
                            Err(format!("unknown word {word:?}"))
                        }
                    },
                }
            }
            _ => Err(self.unexpected()),
        }
    }

    fn annotated(&mut self, depth: usize) -> Result<Node, String> {
        let signature = self.run(|c| !c.is_whitespace());
        match Type::take(&signature[1..], 0) {
            Some((kind, "")) => self.typed(kind, depth),
            _ => Err(format!("{signature:?} is not one type")),
        }
    }

    fn typed(&mut self, kind: Type, depth: usize) -> Result<Node, String> {
        match self.node(depth + 1)? {
            Node::Typed(..) => Err("two types for one value".into()),
            node => Ok(Node::Typed(kind, Box::new(node))),
        }
    }

    /// Elements between two brackets; a comma may follow the last.
    fn list(&mut self, open: char, close: char, depth: usize) -> Result<Vec<Node>, String> {
        self.eat(open);
        let mut list = Vec::new();
        loop {
            self.space();
            if self.eat(close) {
                return Ok(list);
            }
            list.push(self.node(depth + 1)?);
            self.space();
            let more = open != '<' && self.eat(',');
            if !more && !self.rest.starts_with(close) {
                return Err(self.unexpected());
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.eat(quote);
        let mut text = String::new();
        let mut chars = self.rest.chars();
        while let Some(c) = chars.next() {
            let c = match c {
                c if c == quote => {
                    self.rest = chars.as_str();
                    // A D-Bus string cannot hold NUL.
                    return if text.contains('\0') { Err("a string with a NUL".into()) } else { Ok(text) };
                }
                '\\' => match chars.next() {
                    Some('\n') => continue,
                    Some('u') => code_point(&mut chars, 4)?,
                    Some('U') => code_point(&mut chars, 8)?,
                    Some(letter) => simple_escape(letter),
                    None => break,
                },
                c => c,
            };
            text.push(c);
        }
        Err("unterminated string".into())
    }

    /// `b'…'`: bytes with C escapes, and a NUL at the end.
    fn byte_string(&mut self) -> Result<Vec<u8>, String> {
        let quote = self.rest.as_bytes()[1];
        let input = &self.rest.as_bytes()[2..];
        let (mut bytes, mut at) = (Vec::new(), 0);
        while let Some(&byte) = input.get(at) {
            at += 1;
            if byte == quote {
                // The quote is one byte and the text before it was whole characters.
                self.rest = self.rest.get(2 + at..).ok_or("unterminated byte string")?;
                bytes.push(0);
                return Ok(bytes);
            }
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            let digits = input[at..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            if digits > 0 {
                let octal = input[at..at + digits].iter().fold(0u16, |n, b| n * 8 + u16::from(b - b'0'));
                bytes.push(u8::try_from(octal).map_err(|_| "an octal escape above \\377")?);
                at += digits;
            } else {
                let &letter = input.get(at).ok_or("unterminated byte string")?;
                let escaped = simple_escape(char::from(letter));
                bytes.push(u8::try_from(escaped).unwrap_or(letter));
                at += 1;
            }
        }
        Err("unterminated byte string".into())
    }
}

fn simple_escape(letter: char) -> char {
    match letter {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        other => other,
    }
}

fn code_point(chars: &mut std::str::Chars<'_>, digits: usize) -> Result<char, String> {
    let mut value = 0;
    for _ in 0..digits {
        value = value * 16 + chars.next().and_then(|c| c.to_digit(16)).ok_or("short unicode escape")?;
    }
    char::from_u32(value).ok_or_else(|| format!("U+{value:04X} is not a character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Value {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn what_engines_send() {
        assert_eq!(ok("uint64 30000000"), Value::U64(30_000_000));
        assert_eq!(ok("'inactive-or-failed'"), Value::str("inactive-or-failed"));
        assert_eq!(ok("['crio.service']"), Value::strings(["crio.service"]));
        assert_eq!(ok("true"), Value::Bool(true));
        assert_eq!(ok("int32 9"), Value::I32(9));
        assert_eq!(ok("2"), Value::I32(2));
        assert_eq!(ok(" [ \"a\" , 'b', ] "), Value::strings(["a", "b"]));
    }

    #[test]
    fn types() {
        assert_eq!(ok("@as []"), Value::Array("s".into(), vec![]));
        assert_eq!(ok("[1, uint64 2]"), Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)]));
        assert_eq!(ok("[[], [1]]").signature(), "aai");
        assert_eq!(ok("@a(ss) [('/dev/null', 'rw')]"), Value::string_pairs(vec![("/dev/null".into(), "rw".into())]));
        assert_eq!(ok("<uint32 7>"), Value::Variant(Box::new(Value::U32(7))));
        assert_eq!(ok("objectpath '/a/b_1'"), Value::ObjectPath("/a/b_1".into()));
        assert_eq!(ok("double 1"), Value::Double(1.0));
        assert_eq!(ok("0x10"), Value::I32(16));
        assert_eq!(ok("-010"), Value::I32(-8));
        assert_eq!(ok("1.5e3"), Value::Double(1500.0));
        assert_eq!(ok("byte 0xff"), Value::Byte(255));
        assert_eq!(ok(r"b'a\101\n'"), Value::bytes(b"aA\n\0"));
        assert_eq!(ok(r"'\u00e9\'\U0001F600'"), Value::str("é'😀"));
        assert_eq!(ok("@at [1, 2]").signature(), "at");
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            " ",
            "[]",
            "(",
            "()",
            "'",
            "'\\",
            "b'",
            "b'\\",
            "[1",
            "[1 2]",
            "[1, 'a']",
            "[true, 1]",
            "uint64",
            "uint64 -1",
            "byte 256",
            "int32 3000000000",
            "uint32 'x'",
            "@as [1]",
            "@ 1",
            "@a 1",
            "@ss 'x'",
            "@(s 1",
            "uint64 uint64 1",
            "1x",
            "0x",
            "--1",
            "+-1",
            "0x+1",
            "1 2",
            "bogus",
            "<>",
            "<1,2>",
            "objectpath 'a'",
            "signature 'z'",
            r"'\ud800'",
            r"'\u12'",
            r"'\u0000'",
            "{'a': 1}",
            "nothing",
            "\u{e9}",
            "bé",
            "@é 1",
            r"b'\777'",
        ] {
            assert!(parse(text).is_err(), "{text:?} gave {:?}", parse(text));
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("@{}y []", "a".repeat(100_000))).is_err());
    }

    /// Every string over a small alphabet, and random ones over a larger one: a value, or an error, never a panic;
    /// and what parses has a signature that its parts agree with.
    #[test]
    fn no_input_panics() {
        let alphabet: Vec<char> = "[](<>)'\"\\,@b1 -ué".chars().collect();
        let mut words = vec![String::new()];
        for _ in 0..4 {
            words = words.iter().flat_map(|w| alphabet.iter().map(move |c| format!("{w}{c}"))).collect();
            words.iter().for_each(|w| drop(parse(w)));
        }
        let pieces = [
            "@as ", "@a(ss) ", "uint64 ", "[", "]", "(", ")", "<", ">", "'a'", "\"", "\\", "1", "-2.5e9", ",", "b'\\x'",
        ];
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push_str(pieces[(seed % pieces.len() as u64) as usize]);
            }
            if let Ok(value) = parse(&text) {
                assert!(is_signature(&value.signature()), "{text}");
            }
        }
    }
}
