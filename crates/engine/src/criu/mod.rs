//! Checkpoint and restore by CRIU: what a plan means for it, and the conversation.
//!
//! CRIU runs as `criu swrk`, a child that answers one request over a socket. source: criu.org/RPC

mod dump;
mod external;
mod message;
mod proto;
mod quote;
mod restore;
mod swrk;

pub use dump::{Dump, dump};
pub use message::{CgroupsMode, Flags};
pub use restore::{Restore, restore};

use std::collections::BTreeMap;

/// What descriptors 0, 1 and 2 of the container's init were, in the image directory; runc's file.
const DESCRIPTORS: &str = "descriptors.json";

/// CRIU's own configuration file for a container: that of the annotation `org.criu.config`, none where it is empty,
/// runc's where there is no annotation. CRIU passes over a file that does not exist.
fn config_file(annotations: &BTreeMap<String, String>) -> Option<&str> {
    let file = annotations.get("org.criu.config").map_or("/etc/criu/runc.conf", String::as_str);
    Some(file).filter(|file| !file.is_empty())
}

/// `--page-server ADDRESS:PORT`; an IPv6 address stands in brackets.
///
/// # Errors
/// runc's messages.
pub fn parse_page_server(text: &str) -> Result<(String, u16), &'static str> {
    const USAGE: &str = "Use --page-server ADDRESS:PORT to specify page server";
    let (address, port) = text.rsplit_once(':').ok_or(USAGE)?;
    let inner = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner,
        None if address.contains([':', '[', ']']) => return Err(USAGE),
        None => address,
    };
    if address.is_empty() || port.is_empty() {
        return Err(USAGE);
    }
    Ok((address.to_owned(), port.parse().map_err(|_| "Invalid port number")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_files() {
        let of = |annotation: Option<&str>| {
            let map = annotation.map(|value| ("org.criu.config".to_owned(), value.to_owned()));
            config_file(&map.into_iter().collect()).map(str::to_owned)
        };
        assert_eq!(of(None).as_deref(), Some("/etc/criu/runc.conf"));
        assert_eq!(of(Some("/x")).as_deref(), Some("/x"));
        assert_eq!(of(Some("")), None);
    }

    #[test]
    fn page_servers() {
        assert_eq!(parse_page_server("0.0.0.0:27277"), Ok(("0.0.0.0".into(), 27277)));
        assert_eq!(parse_page_server("[::1]:1"), Ok(("::1".into(), 1)));
        for bad in ["", "a", "a:", ":1", "::1:1", "[::1]", "[]:1"] {
            assert!(parse_page_server(bad).unwrap_err().starts_with("Use --page-server"), "{bad}");
        }
        for bad in ["a:x", "a:70000", "a:-1"] {
            assert_eq!(parse_page_server(bad), Err("Invalid port number"), "{bad}");
        }
    }
}
