//! Directories and files of the host that a machine sees.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Component, Path, PathBuf};

/// One of them, as the machine's file has it. Inside, it belongs to whom it belongs to on the host: the mount is id-mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Volume {
    /// On the host.
    pub source: PathBuf,
    /// In the machine.
    pub destination: PathBuf,
    /// Whether the machine can only read it, mounts below it included.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl Volume {
    /// Takes `SOURCE:DESTINATION` or `SOURCE:DESTINATION:ro`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Volume> {
        let words: Vec<&str> = text.split(':').collect();
        let (source, destination, read_only) = match words[..] {
            [source, destination] | [source, destination, "rw"] => (source, destination, false),
            [source, destination, "ro"] => (source, destination, true),
            _ => {
                return Err(Error::request(format!(
                    "volume {text:?}: it is SOURCE:DESTINATION or SOURCE:DESTINATION:ro"
                )));
            }
        };
        Ok(Volume { source: source.into(), destination: destination.into(), read_only })
    }

    /// Checks it against this host.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |why: &str| {
            let (source, destination) = (self.source.display(), self.destination.display());
            Err(Error::request(format!("volume {source}:{destination}: {why}")))
        };
        if !self.source.is_absolute() || !self.destination.is_absolute() {
            return bad("both paths begin with /");
        }
        let mut below = self.destination.components().skip(1).peekable();
        if below.peek().is_none() || below.any(|part| part == Component::ParentDir) {
            return bad("the destination is a path below /, without ..");
        }
        match self.source.metadata() {
            Ok(_) => Ok(()),
            Err(error) => bad(&format!("the host's {}: {error}", self.source.display())),
        }
    }

    /// spec: config.md#mounts
    pub(crate) fn mount(&self) -> Value {
        let more = self.read_only.then_some("rro");
        let options: Vec<&str> = ["rbind", "nodev"].into_iter().chain(more).collect();
        json!({"type": "bind", "source": self.source, "destination": self.destination, "options": options})
    }
}

/// Checks those of one machine.
pub(crate) fn check(volumes: &[Volume]) -> Result<()> {
    volumes.iter().try_for_each(Volume::check)?;
    let same = |place: &Path| volumes.iter().filter(|volume| volume.destination == place).count() > 1;
    match volumes.iter().find(|volume| same(&volume.destination)) {
        Some(twice) => {
            Err(Error::request(format!("{} is the destination of two volumes", twice.destination.display())))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Volume {
        Volume::parse(text).unwrap()
    }

    #[test]
    fn a_volume_is_two_paths_and_perhaps_read_only() {
        let volume = parsed("/etc/hostname:/srv/name:ro");
        assert_eq!((volume.source.to_str(), volume.destination.to_str()), (Some("/etc/hostname"), Some("/srv/name")));
        assert!(volume.read_only && !parsed("/a:/b").read_only && !parsed("/a:/b:rw").read_only);
        for bad in ["", "/a", "/a:/b:", "/a:/b:x", "/a:/b:ro:ro"] {
            assert!(Volume::parse(bad).is_err(), "{bad:?}");
        }
        let options = |volume: &Volume| volume.mount()["options"].clone();
        assert_eq!(options(&volume), json!(["rbind", "nodev", "rro"]));
        assert_eq!(options(&parsed("/a:/b")), json!(["rbind", "nodev"]));
        let text = serde_json::to_string(&parsed("/a:/b")).unwrap();
        assert_eq!(text, r#"{"source":"/a","destination":"/b"}"#);
        // A word that is not known would leave it writable.
        let mistyped = r#"{"source":"/a","destination":"/b","readonly":true}"#;
        assert!(serde_json::from_str::<Volume>(mistyped).unwrap_err().to_string().contains("unknown field"));
    }

    #[test]
    fn what_no_machine_could_have_is_refused() {
        parsed("/etc:/srv").check().unwrap();
        for (bad, why) in [
            ("etc:/srv", "begin with /"),
            ("/etc:srv", "begin with /"),
            (":/srv", "begin with /"),
            ("/etc:/", "a path below /"),
            ("/etc:///", "a path below /"),
            ("/etc:/srv/../..", "a path below /"),
            ("/nowhere/at/all:/srv", "No such file"),
        ] {
            let error = parsed(bad).check().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let twice = check(&[parsed("/etc:/srv"), parsed("/usr:/srv/")]).unwrap_err();
        assert_eq!(twice.to_string(), "/srv is the destination of two volumes");
    }
}
