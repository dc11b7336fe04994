//! `update`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use offshoot_runtime::cause;
use offshoot_runtime::update::Schemata;
use offshoot_spec::{BlockIo, Cpu, Memory, Pids, Resources};
use std::io::Read as _;
use std::str::FromStr;

/// `offshoot update`
pub static COMMAND: Command = Command::new("update", "change the container's limits", run)
    .takes("<container-id>", Count::Exactly(1))
    .flags(&[
        Flag::path(
            "resources",
            "read linux.resources as JSON from this file, - for standard input; other options do not count then",
        )
        .short("r"),
        Flag::number("blkio-weight", "weight of block I/O, 10 to 1000"),
        Flag::text("cpu-period", "length of a CPU period in microseconds"),
        Flag::text("cpu-quota", "CPU time in a period in microseconds, -1 for no limit"),
        Flag::text("cpu-burst", "CPU time saved up from other periods in microseconds"),
        Flag::text("cpu-share", "CPU shares, relative to other containers"),
        Flag::text("cpu-rt-period", "length of a real-time period in microseconds, cgroup v1"),
        Flag::text("cpu-rt-runtime", "real-time CPU time in a period in microseconds, cgroup v1"),
        Flag::text("cpuset-cpus", "CPUs to run on: 0-3,7"),
        Flag::text("cpuset-mems", "memory nodes to use: 0-1"),
        Flag::text("kernel-memory", "ignored").hidden(),
        Flag::text("kernel-memory-tcp", "ignored").hidden(),
        Flag::text("memory", "memory in bytes, or with k, m, g; -1 for no limit"),
        Flag::text("cpu-idle", "1 to run only when nothing else wants to, 0 not to"),
        Flag::text("memory-reservation", "memory to be kept when it gets scarce, in bytes, or with k, m, g"),
        Flag::text("memory-swap", "memory and swap together in bytes, or with k, m, g; -1 for no limit"),
        Flag::number("pids-limit", "number of processes and threads, -1 for no limit"),
        Flag::text("l3-cache-schema", "line L3 of the resctrl group"),
        Flag::text("mem-bw-schema", "line MB of the resctrl group"),
    ])
    .details("What is not given stays as it is.");

fn run(call: &Call) -> Result<u8, Failure> {
    let mut changes = match call.path("resources") {
        Some(path) => {
            let text = read(path)
                .map_err(|error| Failure::new(format!("failed to read {}: {}", path.display(), cause(&error))))?;
            offshoot_spec::from_slice(&text)
                .map_err(|error| Failure::new(format!("failed to read {}: {error}", path.display())))?
        }
        None => from_options(call)?,
    };
    complete(&mut changes);
    let schemata = Schemata {
        l3: call.text("l3-cache-schema").unwrap_or_default().to_owned(),
        memory_bandwidth: call.text("mem-bw-schema").unwrap_or_default().to_owned(),
    };
    call.runtime()?.update(call.id()?, &changes, &schemata)?;
    Ok(0)
}

fn read(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path);
    }
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}

fn from_options(call: &Call) -> Result<Resources, Failure> {
    let weight = call.number("blkio-weight").filter(|weight| *weight != 0);
    let weight = weight.map(u16::try_from).transpose().map_err(|_| wrong("blkio-weight", "value out of range"))?;
    Ok(Resources {
        memory: Some(Memory {
            limit: size(call, "memory")?,
            reservation: size(call, "memory-reservation")?,
            swap: size(call, "memory-swap")?,
            kernel: size(call, "kernel-memory")?,
            kernel_tcp: size(call, "kernel-memory-tcp")?,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: whole(call, "cpu-share")?,
            quota: whole(call, "cpu-quota")?,
            burst: whole(call, "cpu-burst")?,
            period: whole(call, "cpu-period")?,
            realtime_runtime: whole(call, "cpu-rt-runtime")?,
            realtime_period: whole(call, "cpu-rt-period")?,
            cpus: call.text("cpuset-cpus").unwrap_or_default().to_owned(),
            mems: call.text("cpuset-mems").unwrap_or_default().to_owned(),
            idle: whole(call, "cpu-idle")?,
        }),
        block_io: Some(BlockIo { weight, ..BlockIo::default() }),
        pids: Some(Pids { limit: call.number("pids-limit") }),
        ..Resources::default()
    })
}

/// What runc adds, so that a change means what its giver meant.
fn complete(changes: &mut Resources) {
    // A swap limit that was set earlier would stand below the memory limit.
    if let Some(memory) = &mut changes.memory
        && memory.limit == Some(-1)
    {
        memory.swap.get_or_insert(0);
    }
    // The kernel takes no weight for an idle cgroup.
    if let Some(cpu) = &mut changes.cpu
        && cpu.idle.is_some()
    {
        cpu.shares.get_or_insert(0);
    }
}

fn wrong(name: &str, cause: impl std::fmt::Display) -> Failure {
    Failure::new(format!("invalid value for {name}: {cause}"))
}

fn whole<T: FromStr<Err: std::fmt::Display>>(call: &Call, name: &str) -> Result<Option<T>, Failure> {
    call.text(name).map(|text| text.parse().map_err(|error| wrong(name, error))).transpose()
}

fn size(call: &Call, name: &str) -> Result<Option<i64>, Failure> {
    call.text(name).map(|text| bytes(text).ok_or_else(|| wrong(name, format!("invalid size: '{text}'")))).transpose()
}

/// A size as Docker writes it: a number, maybe with a fraction, and a unit of powers of 1024: `50m`, `1.5G`, `2 KiB`.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.rfind(|byte: char| byte.is_ascii_digit() || byte == '.').map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None | Some('b') => 0,
        Some(letter) => "kmgtp".find(letter)? + 1,
    };
    if !matches!((power, letters.as_str()), (_, "") | (1.., "b" | "ib")) {
        return None;
    }
    let factor = 1i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(factor).filter(|bytes| *bytes >= 0),
        Err(_) => number.parse::<f64>().ok().filter(|size| *size >= 0.0).map(|size| (size * factor as f64) as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, value) in [
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("67108864", Some(64 << 20)),
            ("50M", Some(50 << 20)),
            ("50mb", Some(50 << 20)),
            ("2 KiB", Some(2048)),
            ("1.5g", Some(3 << 29)),
            ("7b", Some(7)),
            ("", None),
            ("m", None),
            ("-2", None),
            ("5x", None),
            ("7bb", None),
            ("9223372036854775807k", None),
        ] {
            assert_eq!(bytes(text), value, "{text}");
        }
    }

    #[test]
    fn changes_are_completed_as_runc_does() {
        let mut changes = Resources {
            memory: Some(Memory { limit: Some(-1), ..Memory::default() }),
            cpu: Some(Cpu { idle: Some(1), ..Cpu::default() }),
            ..Resources::default()
        };
        complete(&mut changes);
        assert_eq!((changes.memory.unwrap().swap, changes.cpu.unwrap().shares), (Some(0), Some(0)));
    }
}
