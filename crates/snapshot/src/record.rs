//! What the store writes down, as versioned JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::driver::{DriverKind, Volume};
use crate::error::{Error, Kind, Result};
use crate::name::{Digest, Name};

/// The version of every record; a newer one is refused, as its meaning is not known.
pub(crate) const VERSION: u32 = 1;
/// No record is longer: a clone with thousands of snapshots has some hundred kilobytes.
const LONGEST: u64 = 16 << 20;

/// A layer: its tree lies beside the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) version: u32,
    /// The SHA-256 of its uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Bytes of file contents.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Whether it tells the attributes of the root directory.
    pub(crate) root: bool,
}

/// An image: layers from the lowest to the uppermost. Its OCI configuration lies beside the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) version: u32,
    /// The SHA-256 of its configuration.
    pub(crate) id: Digest,
    pub(crate) created: String,
    pub(crate) source: String,
    /// Bytes of file contents of all layers.
    pub(crate) bytes: u64,
    pub(crate) layers: Vec<Digest>,
    /// The index in `layers` of the one that tells the attributes of the root directory.
    pub(crate) root: usize,
}

/// Which image a name stands for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Names {
    pub(crate) version: u32,
    pub(crate) names: std::collections::BTreeMap<Name, Digest>,
}

/// A clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Clone {
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) image: Digest,
    /// How the image was called when the clone was made.
    pub(crate) image_name: String,
    pub(crate) driver: DriverKind,
    pub(crate) created: String,
    /// Whether it outlives its container.
    pub(crate) keep: bool,
    /// The boot it was made in, unless it is kept: after the next one, its container is gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) boot: Option<String>,
    /// The most it may grow to, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) size: Option<u64>,
    /// The image's layers, from the lowest to the uppermost, so that mounting reads one record only.
    pub(crate) layers: Vec<Digest>,
    /// As in the image's record.
    pub(crate) root: usize,
    /// What is mounted.
    pub(crate) head: Volume,
    /// The number for the next volume.
    pub(crate) next: u64,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) snapshots: Vec<Snapshot>,
}

/// A state of a clone to go back to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) volume: Volume,
}

/// What a driver has prepared of an image for all its clones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Template {
    pub(crate) version: u32,
    pub(crate) image: Digest,
    pub(crate) driver: DriverKind,
}

/// Anything with a version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a record of ours.
pub(crate) fn read<T: DeserializeOwned>(dir: &Dir, name: &str) -> Result<T> {
    let bytes = dir.read(name, LONGEST)?;
    let show = dir.path().join(name);
    let damaged = |error: serde_json::Error| {
        Error::new(Kind::Corrupt, format!("record {show:?} is damaged: {error}"))
            .with_hint("offshoot image check --repair removes what cannot be used")
    };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version != VERSION {
        return Err(Error::new(
            Kind::Unsupported,
            format!("record {show:?} has version {version}, this offshoot knows {VERSION}"),
        )
        .with_hint("a newer offshoot wrote it"));
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

/// A record's bytes.
pub(crate) fn bytes<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec(record).map_err(|error| Error::new(Kind::System, format!("write a record: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The time as records hold it: RFC 3339 in UTC, to the second.
pub(crate) fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    rfc3339(since.map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as a date, by counting in 400-year cycles from 0000-03-01 on.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + cycle * 400 + carry;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The kernel's name for the time since it was booted.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_and_a_damaged_one_named() {
        let (_guard, path) = crate::testing::scratch("record");
        let dir = Dir::open(&path).unwrap();
        dir.write_new("new.json", b"{\"version\":2,\"names\":{}}").unwrap();
        dir.write_new("torn.json", b"{\"version\":1,\"na").unwrap();
        assert_eq!(read::<Names>(&dir, "new.json").unwrap_err().kind(), Kind::Unsupported);
        let torn = read::<Names>(&dir, "torn.json").unwrap_err();
        assert_eq!(torn.kind(), Kind::Corrupt);
        assert!(torn.to_string().contains("torn.json"));
    }
}
