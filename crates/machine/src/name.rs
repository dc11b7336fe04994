//! Names of machines and networks, and the patterns that stand for many.

use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// Longest name: one label of a domain name, as a machine's name is its host name (RFC 1035, 2.3.4).
const LONGEST: usize = 63;
/// More machines than a host can hold, so that a slip of the keyboard fails at once.
const MOST: usize = 10_000;

/// Whether `name` can be that of a `what`: a host name of lower-case letters, digits and inner hyphens.
///
/// # Errors
/// It cannot; says why.
pub fn check(what: &str, name: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::request(format!("{what} name {name:?}: {why}")));
    if name.is_empty() || name.len() > LONGEST {
        return bad("it must have 1 to 63 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return bad("it is a host name: lower-case letters, digits and hyphens only");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return bad("it must begin and end with a letter or digit");
    }
    Ok(())
}

/// The names that `template` makes with the numbers `first` to `first + count - 1` in the place of `{}`; a template
/// without `{}` gets the number at its end.
///
/// # Errors
/// A name that comes out is none, or there are too many.
pub fn numbered(template: &str, first: usize, count: usize) -> Result<Vec<String>> {
    if count == 0 || count > MOST {
        return Err(Error::request(format!("count {count}: it must be 1 to {MOST}")));
    }
    if template.matches("{}").count() > 1 {
        return Err(Error::request(format!("name {template:?}: {{}} may stand in it once")));
    }
    let one = |number: usize| match template.contains("{}") {
        true => template.replace("{}", &number.to_string()),
        false => format!("{template}{number}"),
    };
    let names: Vec<_> = (first..first + count).map(one).collect();
    names.iter().try_for_each(|name| check("machine", name))?;
    Ok(names)
}

/// Those of `known` that `words` name: each a name, or a pattern in which `*` stands for any characters and `?` for
/// one. In the order of `words`, each name once.
///
/// # Errors
/// A word names nothing.
pub fn select(words: &[String], known: &[String]) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for word in words {
        let before = found.len();
        let matching = known.iter().filter(|name| matches(word.as_bytes(), name.as_bytes()));
        let mut any = false;
        for name in matching {
            any = true;
            if seen.insert(name.clone()) {
                found.push(name.clone());
            }
        }
        if !any {
            debug_assert_eq!(before, found.len());
            let what = if is_pattern(word) { "no machine matches" } else { "there is no machine" };
            return Err(Error::new(crate::error::Kind::NotFound, format!("{what} {word:?}")));
        }
    }
    Ok(found)
}

fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?'])
}

/// Glob matching with the one backtrack that `*` needs.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, at)) = star else { return false };
                (p, n) = (after, at + 1);
                star = Some((after, at + 1));
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        for good in ["a", "web1", "web-1", "1", &"x".repeat(63)] {
            assert!(check("machine", good).is_ok(), "{good}");
        }
        for bad in ["", "Web", "a.b", "a_b", "-a", "a-", "a/b", "..", "ä", "a b", &"x".repeat(64)] {
            assert!(check("machine", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_template_makes_many() {
        assert_eq!(numbered("web{}", 0, 3).unwrap(), ["web0", "web1", "web2"]);
        assert_eq!(numbered("{}-db", 7, 1).unwrap(), ["7-db"]);
        assert_eq!(numbered("web", 1, 2).unwrap(), ["web1", "web2"]);
        for (template, count) in [("web{}", 0), ("web{}", MOST + 1), ("a{}b{}", 1), ("Web{}", 1), ("{}-", 1)] {
            assert!(numbered(template, 0, count).is_err(), "{template} {count}");
        }
    }

    #[test]
    fn words_select_names_once_and_in_order() {
        let known = ["db", "web1", "web10", "web2"].map(String::from);
        let select = |words: &[&str]| select(&words.iter().map(ToString::to_string).collect::<Vec<_>>(), &known);
        assert_eq!(select(&["web?", "db", "web*"]).unwrap(), ["web1", "web2", "db", "web10"]);
        assert_eq!(select(&["*"]).unwrap(), known);
        assert_eq!(select(&["*b*0"]).unwrap(), ["web10"]);
        assert_eq!(select(&["none"]).unwrap_err().to_string(), "there is no machine \"none\"");
        assert_eq!(select(&["x*"]).unwrap_err().to_string(), "no machine matches \"x*\"");
    }
}
