//! Names: of images as people know them, of clones and snapshots, and digests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A SHA-256 digest: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Takes `sha256:HEX` or the bare hexadecimal digits.
    pub fn parse(text: &str) -> Result<Digest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let good = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match good {
            true => Ok(Digest(hex.to_owned())),
            false => {
                Err(Error::invalid(format!("{text:?} is not a digest of the form sha256:<64 hexadecimal digits>")))
            }
        }
    }

    pub(crate) fn of(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest::from_hash(&sha2::Sha256::digest(bytes))
    }

    pub(crate) fn from_hash(hash: &[u8]) -> Digest {
        Digest(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, which people read.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(text: String) -> Result<Digest> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

/// An image name with its tag, `debian:latest`; `docker.io/library/` is left away, as people know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Takes `name`, `name:tag`, `registry:port/path/name:tag`; a missing tag is `latest`.
    pub fn parse(text: &str) -> Result<Name> {
        let bad = |why: &str| Error::invalid(format!("image name {text:?}: {why}"));
        let plain = text.strip_prefix("docker.io/").unwrap_or(text);
        let plain = plain.strip_prefix("library/").unwrap_or(plain);
        let after_slash = plain.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match plain[after_slash..].find(':') {
            Some(colon) => (&plain[..after_slash + colon], &plain[after_slash + colon + 1..]),
            None => (plain, "latest"),
        };
        if name.len() + tag.len() > 250 {
            return Err(bad("it is longer than 250 characters"));
        }
        let first = |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let fit = |part: &str, more: &[u8]| part.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        if !name.split('/').all(|part| first(part) && fit(part, b"._-:+")) {
            return Err(bad("each part must begin with a letter or digit and may hold letters, digits and . _ - +"));
        }
        if !(first(tag) || tag.starts_with('_')) || !fit(tag, b"._-+") {
            return Err(bad("the tag must begin with a letter, digit or _ and may hold letters, digits and . _ - +"));
        }
        Ok(Name(format!("{name}:{tag}")))
    }

    /// `name:tag`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its tag.
    pub fn repository(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(name, _)| name)
    }

    /// The tag alone.
    pub fn tag(&self) -> &str {
        self.0.rsplit_once(':').map_or("latest", |(_, tag)| tag)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Name> {
        Name::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// Checks the name of a clone or snapshot: it becomes a directory and the end of a volume name.
pub(crate) fn check_plain(what: &str, name: &str) -> Result<()> {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+'));
    // LVM takes at most 127 characters for a whole volume name, and `.` begins our own temporary names.
    match letters && (1..=100).contains(&name.len()) && !name.starts_with(['.', '-']) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{what} {name:?}: a name has 1 to 100 letters, digits and . _ - +, and does not begin with . or -"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_people_know_them() {
        for (given, full) in [
            ("debian", "debian:latest"),
            ("debian:12", "debian:12"),
            ("docker.io/library/busybox:1.36", "busybox:1.36"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("quay.io/x/y:v1", "quay.io/x/y:v1"),
        ] {
            assert_eq!(Name::parse(given).unwrap().as_str(), full);
        }
        let name = Name::parse("localhost:5000/a/b").unwrap();
        assert_eq!((name.repository(), name.tag()), ("localhost:5000/a/b", "latest"));
    }

    #[test]
    fn names_that_could_reach_elsewhere_are_refused() {
        for bad in ["", ":x", "a:", "../x", "a/../b", "a//b", "a b", "a:b:c d", "-a", &"x".repeat(300), "a\n"] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a/b", ".x", "-x", "a b", &"x".repeat(101)] {
            assert!(check_plain("clone", bad).is_err(), "{bad:?}");
        }
        check_plain("clone", "web_1.example+x").unwrap();
    }

    #[test]
    fn a_digest_is_exact() {
        assert!(Digest::parse("sha256:abc").is_err());
        assert!(Digest::parse(&format!("sha256:{}", "A".repeat(64))).is_err());
        let empty = Digest::of(b"");
        assert_eq!(empty.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(empty.short(), "e3b0c44298fc");
    }
}
