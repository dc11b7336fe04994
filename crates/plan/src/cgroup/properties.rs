//! Limits as properties of the systemd unit. man 5 systemd.resource-control

use super::convert::{Swap, cpu_weight, pids_max, swap_max};
use super::devices::{DeviceList, Kind};
use super::{CgroupHost, Decisions, Mode, Value};
use offshoot_spec::{Cpu, Resources};
use std::collections::BTreeMap;

/// The kernel's period, in microseconds, which systemd assumes too.
const DEFAULT_PERIOD: u64 = 100_000;
/// "infinity", as systemd's integer properties have it.
const INFINITY: u64 = u64::MAX;

/// Limits as properties. systemd writes them again whenever it reloads, so what it can express it must know; the
/// files are written afterwards all the same. Changes `resources` where systemd rounds.
pub(super) fn limits(resources: &mut Resources, host: &CgroupHost, out: &mut Decisions) -> Vec<(String, Value)> {
    let version = host.systemd.as_ref().map_or(0, |s| s.version);
    let v2 = host.mode == Mode::V2;
    let mut list = Vec::new();
    if let Some(memory) = &resources.memory {
        for (name, value) in [
            (if v2 { "MemoryMax" } else { "MemoryLimit" }, memory.limit),
            ("MemoryLow", memory.reservation.filter(|_| v2)),
        ] {
            if let Some(value) = value.filter(|v| *v != 0) {
                list.push(number(name, u64::try_from(value).unwrap_or(INFINITY)));
            }
        }
        match swap_max(memory) {
            Ok(Some(Swap::Max)) if v2 => list.push(number("MemorySwapMax", INFINITY)),
            Ok(Some(Swap::Bytes(bytes))) if v2 => list.push(number("MemorySwapMax", bytes)),
            _ => {} // v2::writes reports the problem.
        }
    }
    if let Some(cpu) = &mut resources.cpu {
        self::cpu(cpu, version, v2, &mut list, out);
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|b| b.weight).filter(|w| !v2 && *w != 0) {
        list.push(number("BlockIOWeight", weight.into()));
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit) {
        list.push(number("TasksMax", pids_max(limit).unwrap_or(INFINITY)));
    }
    if v2 {
        unified(&resources.unified, version, &mut list, out);
    }
    list
}

fn number(name: &str, value: u64) -> (String, Value) {
    (name.to_string(), Value::U64(value))
}

fn cpu(cpu: &mut Cpu, version: u32, v2: bool, list: &mut Vec<(String, Value)>, out: &mut Decisions) {
    // A weight of 0 is how systemd spells cpu.idle, since 252.
    let idle = v2 && cpu.idle == Some(1) && version >= 252;
    if idle {
        list.push(number("CPUWeight", 0));
    }
    if let Some(shares) = cpu.shares.filter(|s| *s != 0) {
        match (v2, idle) {
            (true, true) => {} // v2::writes warns.
            (true, false) => list.push(number("CPUWeight", cpu_weight(shares))),
            (false, _) => list.push(number("CPUShares", shares)),
        }
    }
    if let Some(rounded) = quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), version, list) {
        cpu.quota = Some(rounded);
    }
    for (field, name, text) in [("cpus", "AllowedCPUs", &cpu.cpus), ("mems", "AllowedMemoryNodes", &cpu.mems)] {
        if !text.is_empty() && version >= 244 {
            match bits(text) {
                Ok(bits) => list.push((name.into(), Value::bytes(&bits))),
                Err(message) => out.problem(
                    format!("linux.resources.cpu.{field}"),
                    format!("resources.CPU={text:?} conversion error: {message}"),
                ),
            }
        }
    }
}

/// Adds quota and period; systemd keeps the quota as whole per cent of a CPU, rounded up, and a cgroup below must
/// find the same value in the file: so that is handed back.
fn quota(quota: i64, period: u64, version: u32, list: &mut Vec<(String, Value)>) -> Option<i64> {
    if period != 0 && version >= 242 {
        list.push(number("CPUQuotaPeriodUSec", period));
    }
    if quota == 0 && period == 0 {
        return None;
    }
    let Some(wanted) = u64::try_from(quota).ok().filter(|q| *q > 0) else {
        list.push(number("CPUQuotaPerSecUSec", INFINITY));
        return None;
    };
    let period = u128::from(if period == 0 { DEFAULT_PERIOD } else { period });
    let per_second = (u128::from(wanted) * 1_000_000 / period).next_multiple_of(10_000);
    list.push(number("CPUQuotaPerSecUSec", u64::try_from(per_second).unwrap_or(INFINITY)));
    i64::try_from(per_second * period / 1_000_000).ok()
}

/// `1,3-5` as bits, lowest first.
fn bits(text: &str) -> Result<Vec<u8>, String> {
    let mut bits = Vec::new();
    for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |n: &str| n.trim().parse::<u16>().map_err(|_| format!("invalid range: {range}"));
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(format!("invalid range: {range}"));
        }
        for bit in first..=last {
            let byte = usize::from(bit / 8);
            bits.resize(bits.len().max(byte + 1), 0);
            bits[byte] |= 1 << (bit % 8);
        }
    }
    if bits.is_empty() { Err("empty value".into()) } else { Ok(bits) }
}

/// Files that the caller names, as far as systemd has a property for them.
fn unified(files: &BTreeMap<String, String>, version: u32, list: &mut Vec<(String, Value)>, out: &mut Decisions) {
    let idle = files.get("cpu.idle").is_some_and(|v| v.trim() == "1") && version >= 252;
    for (file, text) in files {
        let text = text.trim();
        let name = match file.as_str() {
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpuset.cpus" => "AllowedCPUs",
            "cpuset.mems" => "AllowedMemoryNodes",
            "cpu.idle" if idle => {
                list.push(number("CPUWeight", 0));
                continue;
            }
            "cpu.max" => {
                if let Err(message) = cpu_max(text, version, list) {
                    out.problem(format!("linux.resources.unified[{file:?}]"), message);
                }
                continue;
            }
            _ => continue,
        };
        let value = match name {
            // v2::writes warns.
            "CPUWeight" if idle => continue,
            "AllowedCPUs" | "AllowedMemoryNodes" if version < 244 => continue,
            "AllowedCPUs" | "AllowedMemoryNodes" => bits(text).map(|bits| Value::bytes(&bits)),
            _ if text == "max" => Ok(Value::U64(INFINITY)),
            "TasksMax" => text.parse().map(|n: u64| Value::U64(n.max(1))).map_err(|e| e.to_string()),
            _ => text.parse().map(Value::U64).map_err(|e| e.to_string()),
        };
        match value {
            Ok(value) => list.push((name.into(), value)),
            Err(message) => out.problem(
                format!("linux.resources.unified[{file:?}]"),
                format!("unified resource {file:?} value conversion error: {message}"),
            ),
        }
    }
}

/// `max 100000`, `50000`
fn cpu_max(text: &str, version: u32, list: &mut Vec<(String, Value)>) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let invalid = || format!("unified resource \"cpu.max\" value invalid: {text:?}");
    let (limit, period) = match fields[..] {
        [limit] => (limit, DEFAULT_PERIOD),
        [limit, period] => (limit, period.parse().map_err(|_| invalid())?),
        _ => return Err(invalid()),
    };
    let limit = if limit == "max" { 0 } else { limit.parse().map_err(|_| invalid())? };
    quota(limit, period, version, list);
    Ok(())
}

/// The device list as properties, for systemd to keep when it writes its own program.
pub(super) fn devices(list: &DeviceList, version: u32, warnings: &mut Vec<String>) -> Vec<(String, Value)> {
    // The empty list clears what an existing unit has.
    let clear = ("DeviceAllow".to_string(), Value::string_pairs(Vec::new()));
    let policy = |policy: &str| ("DevicePolicy".to_string(), Value::str(policy));
    if list.allows_all() {
        return vec![clear, policy("auto")];
    }
    let mut properties = vec![clear, policy("strict")];
    if list.default_allow {
        warnings.push("systemd doesn't support blacklist device rules -- applying temporary deny-all rule".into());
        return properties;
    }
    let mut allow = Vec::new();
    for (devices, access) in &list.exceptions {
        let (group, directory) = if devices.kind == Kind::Char { ("char", "char") } else { ("block", "block") };
        let path = match (devices.major, devices.minor) {
            (None, None) => format!("{group}-*"),
            (None, Some(_)) => {
                warnings.push(format!(
                    "systemd doesn't support '*:n' device rules -- temporarily ignoring rule: {devices} {access}"
                ));
                continue;
            }
            // Since 240; before, systemd looked for a node at a path, which need not exist.
            _ if version < 240 => continue,
            (Some(major), None) => format!("{group}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{directory}/{major}:{minor}"),
        };
        allow.push((path, access.to_string()));
    }
    properties.push(("DeviceAllow".to_string(), Value::string_pairs(allow)));
    properties
}
