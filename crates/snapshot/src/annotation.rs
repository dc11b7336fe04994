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
    pub fn parse(value: &str) -> Result<Request> {
        let bad = |why: String| Error::invalid(format!("annotation {ANNOTATION}={value:?}: {why}"));
        let (mut image, mut driver, mut keep, mut size) = (None, None, None, None);
        for part in value.split(',') {
            let (key, text) =
                part.split_once('=').ok_or_else(|| bad(format!("{part:?} is not of the form key=value")))?;
            let twice = match key {
                "image" => {
                    if !is_digest_start(text) {
                        Name::parse(text)?;
                    }
                    image.replace(text.to_owned()).is_some()
                }
                "driver" => driver.replace(text.parse::<Choice>()?).is_some(),
                "keep" => keep
                    .replace(parse_bool(text).ok_or_else(|| bad(format!("keep={text:?} is neither true nor false")))?)
                    .is_some(),
                "size" => size.replace(parse_size(text)?).is_some(),
                _ => return Err(bad(format!("unknown key {key:?}"))),
            };
            if twice {
                return Err(bad(format!("{key} is given twice")));
            }
        }
        let image = image.ok_or_else(|| bad("it names no image".to_owned()))?;
        Ok(Request { image, driver: driver.unwrap_or_default(), keep: keep.unwrap_or(false), size })
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
            let text = Request::parse(value).unwrap_err().to_string();
            assert!(text.contains(word), "{value}: {text}");
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
