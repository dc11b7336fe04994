//! Damage to text, the same for the same seed: for tests that nothing a caller sends makes the program panic.

use serde_json::{Map, Value, json};

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    #[allow(clippy::cast_possible_truncation, reason = "smaller than `end`")]
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// Words on which parsers stumble.
const WORDS: &[&str] = &[
    "",
    " ",
    "\0",
    "\n",
    "/",
    ".",
    "..",
    "../..",
    "/proc/self/fd/3",
    ":",
    ",",
    "=",
    "-",
    "--",
    "0",
    "-1",
    "1e9",
    "0x10",
    "4294967296",
    "18446744073709551616",
    "9223372036854775807",
    "\u{fffd}",
    "ä",
    "\\",
    "\"",
    "'",
    "%d",
    "a=b",
    "a,b=\"c,d\"",
    "[",
    "{}",
    "null",
    "max",
    "RLIMIT_NOFILE",
    "SCMP_ACT_NOTIFY",
    "SCMP_CMP_MASKED_EQ",
    "rbind",
    "ridmap",
    "rro",
    "size=1",
    "x.slice",
    "a:b:c",
    "0-",
    "0-99999",
    "1,,2",
];

fn value(random: &mut Random) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!(true),
        4 => json!(random.next()),
        5 => json!(-1),
        6 => json!(i64::MIN),
        7 => json!(1.5),
        8 => json!([null, {}, ""]),
        9 => json!("x".repeat(5000)),
        _ => json!(random.of(WORDS)),
    }
}

/// All places of a tree, as JSON pointers.
fn places(tree: &Value, at: &str, list: &mut Vec<String>) {
    list.push(at.to_owned());
    match tree {
        Value::Object(map) => {
            map.iter().for_each(|(key, below)| {
                places(below, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), list)
            });
        }
        Value::Array(all) => all.iter().enumerate().for_each(|(n, below)| places(below, &format!("{at}/{n}"), list)),
        _ => {}
    }
}

fn rename_key(map: &mut Map<String, Value>, random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    if let Some(value) = keys.get(random.below(keys.len())).and_then(|key| map.remove(key)) {
        let names = [random.of(WORDS).to_owned(), random.of(&keys).to_uppercase()];
        map.insert(random.of(&names), value);
    }
}

/// Changes a few places of a tree: other types, other values, what stands elsewhere, more or less of a list.
pub fn tree(tree: &mut Value, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let mut list = Vec::new();
        places(tree, "", &mut list);
        let other = tree.pointer(&random.of(&list)).cloned().unwrap_or_default();
        let place = tree.pointer_mut(&random.of(&list)).expect("it was there");
        match (random.below(6), place) {
            (0, place) => *place = value(random),
            (1, place) => *place = other,
            (2, Value::Object(map)) => rename_key(map, random),
            (3, Value::Array(all)) => {
                let copies = (0..random.below(3)).flat_map(|_| all.clone()).collect::<Vec<_>>();
                all.extend(copies);
            }
            (4, Value::Array(all)) => _ = (!all.is_empty()).then(|| all.remove(0)),
            (_, Value::String(text)) => *text = self::text(text, random),
            (5, place @ Value::Number(_)) => *place = json!(place.as_i64().unwrap_or_default().wrapping_neg()),
            (_, place) => *place = value(random),
        }
    }
}

/// Changes some characters of a text, or puts words between them.
pub fn text(text: &str, random: &mut Random) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(characters.len() + 1);
        match random.below(5) {
            0 => characters.truncate(at),
            1 => _ = (at < characters.len()).then(|| characters.remove(at)),
            2 => {
                let half: Vec<char> = characters[at..].to_vec();
                characters.extend(half);
            }
            _ => drop(characters.splice(at..at, random.of(WORDS).chars())),
        }
    }
    characters.into_iter().collect()
}

/// Changes some bytes.
pub fn bytes(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.of(b"\0\xff\"\\{}[],:-9 ")),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    bytes
}
