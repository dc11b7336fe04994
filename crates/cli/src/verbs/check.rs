//! `check`: what the host lacks for many machines.

use crate::call::Call;
use crate::columns::columns;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use offshoot_machine::check::{Facts, Feature, Finding, sysctl_file};
use serde_json::json;

/// Memory that a machine at rest takes, in KiB (docs/machines.md).
const SYSTEMD: u64 = 6 << 10;

/// `offshoot check`
pub static COMMAND: Command = Command::new("check", "tell what this host lacks for so many machines", run)
    .for_people()
    .takes("[MACHINES]", Count::Between(0, 1))
    .flags(&[
        Flag::number("memory", "what one machine takes at rest, in KiB (default: 6144, a Debian with systemd)"),
        Flag::switch("sysctl", "print only the settings to raise, as /etc/sysctl.d/ takes them"),
        Flag::text("format", "table or json").short("f").default("table"),
    ])
    .details(
        "Compares the host's limits with what MACHINES running at once need (default: 64),\n\
         and says how to raise those that are too low. Changes nothing. Exits with 1 if\n\
         machines would fail to start.",
    );

fn run(call: &Call) -> Result<u8, Failure> {
    let machines = call.arguments().first().map_or(Ok(64), |text| text.parse());
    let machines: u64 = machines.map_err(|_| Failure::new(format!("{:?} is not a number", call.arguments()[0])))?;
    let memory = call.number("memory").map_or(Ok(SYSTEMD), u64::try_from);
    let memory = memory.map_err(|_| Failure::new("invalid value for memory: it is negative"))?;
    let facts = Facts::read();
    let (limits, features) = (facts.limits(machines, memory), facts.features());
    if call.on("sysctl") {
        print(sysctl_file(&limits))?;
    } else {
        match call.text("format") {
            Some("table") => print(told(machines, &limits, &features))?,
            Some("json") => print(format!("{}\n", as_json(&limits, &features)))?,
            _ => return Err(Failure::new("invalid format option")),
        }
    }
    let fails = limits.iter().any(|found| found.hard && !found.is_enough());
    Ok(u8::from(fails || features.iter().any(|feature| !feature.present && !feature.optional)))
}

fn told(machines: u64, limits: &[Finding], features: &[Feature]) -> String {
    let head = ["LIMIT".to_owned(), "HERE".to_owned(), format!("FOR {machines}"), String::new()];
    let rows = limits.iter().map(|found| {
        let word = match (found.is_enough(), found.hard) {
            (true, _) => "enough".to_owned(),
            (false, true) => format!("TOO LOW   {}", found.advice),
            (false, false) => format!("low       {}", found.advice),
        };
        [found.name.clone(), found.have.to_string(), found.need.to_string(), word]
    });
    let mut out = columns(std::iter::once(head).chain(rows));
    let missing: Vec<_> = features.iter().filter(|feature| !feature.present).collect();
    for feature in &missing {
        let weight = if feature.optional { "not there" } else { "MISSING" };
        out.push_str(&format!("{weight}: {} ({})\n", feature.name, feature.advice));
    }
    if missing.is_empty() {
        out.push_str("The kernel and the host have all that machines need.\n");
    }
    out
}

fn as_json(limits: &[Finding], features: &[Feature]) -> serde_json::Value {
    let limits = limits.iter().map(|found| {
        json!({"name": found.name, "have": found.have, "need": found.need, "enough": found.is_enough(),
            "hard": found.hard, "advice": found.advice})
    });
    let features = features.iter().map(|feature| {
        json!({"name": feature.name, "present": feature.present, "optional": feature.optional, "advice": feature.advice})
    });
    json!({"limits": limits.collect::<Vec<_>>(), "features": features.collect::<Vec<_>>()})
}
