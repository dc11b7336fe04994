//! The annotation by which a bundle names an image instead of holding a root file system.

use crate::driver::Choice;
use crate::error::{Error, Result};
use crate::name::Name;

/// The annotation's key in `config.json`.
pub const ANNOTATION: &str = "org.offshoot.rootfs";

/// What the annotation asks for: `image=debian,driver=auto,keep=false,size=2G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// A name, or an id or the beginning of one.
    pub image: String,
    /// The storage driver; `auto` where not given.
    pub driver: Choice,
    /// Whether the clone outlives its container; false where not given.
    pub keep: bool,
    /// The most it may grow to, in bytes, where given.
    pub size: Option<u64>,
}

impl Request {
    /// Parses the annotation's value; each key at most once, `image` being required.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(value: &str) -> std::result::Result<Request, Vec<Error>> {
        let mut request = Request { image: String::new(), driver: Choice::Auto, keep: false, size: None };
        let mut errors = Vec::new();
        let mut seen = Vec::new();
        for part in value.split(',') {
            let Some((key, text)) = part.split_once('=') else {
                errors.push(Error::invalid(format!("{part:?} is not of the form key=value")));
                continue;
            };
            if seen.contains(&key) {
                errors.push(Error::invalid(format!("{key} is given twice")));
            }
            seen.push(key);
            errors.extend(request.set(key, text).err());
        }
        if !seen.contains(&"image") {
            errors.push(Error::invalid("it names no image").with_hint("image=NAME, as `offshoot image list` shows it"));
        }
        if errors.is_empty() { Ok(request) } else { Err(errors) }
    }

    fn set(&mut self, key: &str, text: &str) -> Result<()> {
        match key {
            "image" => {
                if !is_digest_start(text) {
                    Name::parse(text)?;
                }
                text.clone_into(&mut self.image);
            }
            "driver" => self.driver = text.parse()?,
            "keep" => {
                let bad = || Error::invalid(format!("keep={text:?} is neither true nor false"));
                self.keep = parse_bool(text).ok_or_else(bad)?;
            }
            "size" => self.size = Some(parse_size(text)?),
            _ => return Err(Error::invalid(format!("unknown key {key:?}")).with_hint("keys: image driver keep size")),
        }
        Ok(())
    }
}

impl std::fmt::Display for Request {
    /// As the annotation has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "image={},driver={},keep={}", self.image, self.driver, self.keep)?;
        self.size.map_or(Ok(()), |size| write!(f, ",size={size}"))
    }
}

fn is_digest_start(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or("");
    (4..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Parses a size in bytes with an optional binary suffix: `512M`, `2G`, `1.5T`.
pub fn parse_size(text: &str) -> Result<u64> {
    let bad = || Error::invalid(format!("size {text:?} is not a number of bytes with an optional K, M, G or T"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |text: &str| match text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u64>().map_err(|_| bad()),
        false => Err(bad()),
    };
    let scale = 10u128.pow(u32::try_from(part.len()).map_err(|_| bad())?.min(15));
    let bytes = ((u128::from(number(whole)?) * scale + u128::from(number(part)?)) << shift) / scale;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_has_defaults() {
        let request = Request::parse("image=debian").unwrap();
        assert_eq!(request, Request { image: "debian".into(), driver: Choice::Auto, keep: false, size: None });
        let request = Request::parse("image=debian:12,driver=btrfs,keep=true,size=1.5G").unwrap();
        assert_eq!(request.driver.to_string(), "btrfs");
        assert_eq!((request.keep, request.size), (true, Some(1_610_612_736)));
        assert_eq!(Request::parse("image=sha256:abcd12").unwrap().image, "sha256:abcd12");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = |value| Request::parse(value).unwrap_err().first().unwrap().to_string();
        for (value, word) in [
            ("", "key=value"),
            ("driver=auto", "no image"),
            ("image=a,image=b", "twice"),
            ("image=a,keep=1", "neither true nor false"),
            ("image=a,x=1", "unknown key"),
            ("image=a,driver=floppy", "floppy"),
            ("image=../a", "image name"),
            ("image=a,size=0", "size"),
        ] {
            let text = one(value);
            assert!(text.contains(word), "{value}: {text}");
        }
        assert_eq!(Request::parse("keep=1,size=x,driver=floppy,y").unwrap_err().len(), 5);
    }

    #[test]
    fn a_request_reads_back() {
        for text in ["image=debian,driver=auto,keep=false", "image=sha256:abcd12,driver=btrfs,keep=true,size=4096"] {
            assert_eq!(Request::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn sizes_have_binary_suffixes() {
        for (text, bytes) in [("1", 1), ("4k", 4096), ("512M", 512 << 20), ("0.5G", 1 << 29), ("2TiB", 2 << 40)] {
            assert_eq!(parse_size(text).unwrap(), bytes);
        }
        for bad in ["", "G", "-1", "1X", "1.2.3", "99999999999999999999", "1e3", "0x10"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
