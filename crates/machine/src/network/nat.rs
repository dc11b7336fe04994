//! Address translation and forwarding for a bridge, in an nftables table of its own, so that it goes as a whole and
//! nothing of anybody else's is touched. man 8 nft
//!
//! A host that forwards, forwards for everybody: its neighbours could reach the machines by a route to it, and so could the
//! machines of other networks. What comes in is answers, and what somebody's rules have sent there (DNAT).

use super::range::Range;
use crate::error::{Error, Result};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The rules of a network: what leaves it does so under the host's address; what answers may come back, and nothing else.
fn rules(table: &str, range: Range) -> String {
    // Adding before deleting: neither fails, whether the table is there or not, and all happens at once.
    format!(
        "add table ip {table}\n\
         delete table ip {table}\n\
         table ip {table} {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat;\n\
         \t\tip saddr {range} ip daddr != {range} masquerade\n\
         \t}}\n\
         \tchain forward {{\n\
         \t\ttype filter hook forward priority filter;\n\
         \t\tip saddr {range} accept\n\
         \t\tip daddr {range} ct state established,related accept\n\
         \t\tip daddr {range} ct status dnat accept\n\
         \t\tip daddr {range} drop\n\
         \t}}\n\
         }}\n"
    )
}

/// Sets the rules of a network up, and lets the host forward packets.
///
/// # Errors
/// `nft` is missing or refuses.
pub fn set_up(table: &str, range: Range) -> Result<()> {
    nft(&rules(table, range))?;
    let on = fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1");
    match on {
        true => Ok(()),
        false => fs::write(FORWARD, "1").map_err(|error| Error::io(format_args!("write 1 to {FORWARD}"), &error)),
    }
}

/// Removes the rules of a network. Forwarding stays on: others may have come to need it.
///
/// # Errors
/// `nft` is missing or refuses.
pub fn remove(table: &str) -> Result<()> {
    nft(&format!("add table ip {table}\ndelete table ip {table}\n"))
}

fn nft(script: &str) -> Result<()> {
    let failed = |cause: &dyn std::fmt::Display| Error::failed("run nft", cause);
    let child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failed(&"it is not installed").hint("install nftables, or make the network with --no-nat"));
        }
        child => child.map_err(|error| failed(&offshoot_runtime::cause(&error)))?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // Should it end before it has read all, its own words say why.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(&offshoot_runtime::cause(&error)))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(failed(&String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it failed without a word")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_name_the_range_and_nothing_else() {
        let text = rules("offshoot-x", Range::parse("10.1.0.0/24").unwrap());
        assert!(text.contains("ip saddr 10.1.0.0/24 ip daddr != 10.1.0.0/24 masquerade"));
        assert!(text.lines().all(|line| !line.contains("table") || line.contains("offshoot-x")));
    }
}
