//! Verbs that look: `list`, `show`, `top`.

use super::{ALL, machines, report, selected};
use crate::call::Call;
use crate::columns::columns;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use crate::verbs::image::{STORE, size};
use crate::verbs::network::failed;
use offshoot_machine::{Figures, Machines};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// `offshoot machine list`
pub static LIST: Command =
    Command::new("list", "list machines with what they use", list).takes("[NAME...]", Count::AtLeast(0)).flags(&[
        STORE,
        Flag::text("format", "table or json").short("f").default("table"),
        Flag::switch("quiet", "print names only").short("q"),
    ]);

/// `offshoot machine show`
pub static SHOW: Command = Command::new("show", "print all about machines as JSON", show)
    .takes("NAME...", Count::AtLeast(0))
    .flags(&[STORE, ALL]);

/// `offshoot machine top`
pub static TOP: Command = Command::new("top", "watch what machines use, the busiest first", top)
    .takes("[NAME...]", Count::AtLeast(0))
    .flags(&[
        STORE,
        Flag::duration("interval", "time between two looks (default: 2s)").short("i"),
        Flag::number("count", "end after so many looks").short("n"),
    ]);

/// Those named, or all.
fn figures(call: &Call, machines: &Machines) -> Result<Vec<Figures>, Failure> {
    let names = machines.select(call.arguments(), call.arguments().is_empty()).map_err(failed)?;
    let mut all = Vec::new();
    for name in names {
        match machines.figures(&name) {
            Ok(figures) => all.push(figures),
            // One that cannot be read must not hide the others.
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    Ok(all)
}

fn list(call: &Call) -> Result<u8, Failure> {
    let all = figures(call, &machines(call)?)?;
    if call.on("quiet") {
        print(all.iter().map(|one| format!("{}\n", one.machine.name)).collect::<String>())?;
        return Ok(0);
    }
    match call.text("format") {
        Some("table") => print(table(&all))?,
        Some("json") => print(format!("{}\n", json!(all)))?,
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

fn table(all: &[Figures]) -> String {
    let head = ["NAME", "STATE", "ADDRESS", "MEMORY", "CPU TIME", "PROCESSES", "UPTIME", "IMAGE"].map(String::from);
    let rows = all.iter().map(|one| {
        let runs = one.pid != 0;
        let when = |text: String| if runs { text } else { "-".to_owned() };
        [
            one.machine.name.clone(),
            if one.ready == Some(false) { "booting".to_owned() } else { one.state.clone() },
            addresses(one),
            when(size(one.memory)),
            when(format!("{:.2}s", one.cpu as f64 / 1e9)),
            when(one.processes.to_string()),
            when(duration(one.uptime)),
            one.machine.image.clone(),
        ]
    });
    columns(std::iter::once(head).chain(rows))
}

fn addresses(one: &Figures) -> String {
    let all: Vec<_> = one.addresses.iter().map(ToString::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

/// The two greatest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

fn show(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let (mut all, mut bad) = (Vec::new(), 0);
    for name in selected(call, &machines)? {
        match machines.all_of(&name) {
            Ok(figures) => all.push(figures),
            Err(error) => {
                report(&name, &Err(error));
                bad = 1;
            }
        }
    }
    let text = match &all[..] {
        [] if bad == 1 => return Ok(bad),
        [one] if bad == 0 => offshoot_runtime::to_json(one, "  "),
        all => offshoot_runtime::to_json(&all, "  "),
    };
    print(text + "\n").map(|()| bad)
}

fn top(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let interval = call.duration("interval").unwrap_or(Duration::from_secs(2));
    let mut left = call.number("count");
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
    let mut before: BTreeMap<String, (i32, u64)> = BTreeMap::new();
    let mut since: Option<Instant> = None;
    loop {
        let all = figures(call, &machines)?;
        let passed = since.replace(Instant::now()).map(|since| since.elapsed());
        let share = |one: &Figures| {
            let (pid, cpu) = before.get(&one.machine.name)?;
            // Since its start, of a machine that was not there or has been restarted.
            let used = if *pid == one.pid { one.cpu.saturating_sub(*cpu) } else { one.cpu };
            Some(used as f64 / 1e7 / passed?.as_secs_f64())
        };
        let mut rows: Vec<_> = all.iter().filter(|one| one.pid != 0).map(|one| (share(one), one)).collect();
        rows.sort_by(|one, other| {
            let key = |(share, one): &(Option<f64>, &Figures)| (share.unwrap_or(0.0) * 100.0, one.cpu);
            let (one, other) = (key(one), key(other));
            other.0.total_cmp(&one.0).then(other.1.cmp(&one.1))
        });
        let head = ["NAME", "CPU %", "MEMORY", "PROCESSES", "ADDRESS", "UPTIME"].map(String::from);
        let rows = rows.into_iter().map(|(share, one)| {
            let share = share.map_or("-".to_owned(), |share| format!("{share:.1}"));
            let (processes, memory) = (one.processes.to_string(), size(one.memory));
            [one.machine.name.clone(), share, memory, processes, addresses(one), duration(one.uptime)]
        });
        print(format!("{clear}{}", columns(std::iter::once(head).chain(rows))))?;
        before = all.iter().map(|one| (one.machine.name.clone(), (one.pid, one.cpu))).collect();
        left = left.map(|left| left - 1);
        if left.is_some_and(|left| left <= 0) {
            return Ok(0);
        }
        std::thread::sleep(interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(0.4, "0s"), (59.9, "59s"), (61.0, "1m1s"), (7322.0, "2h2m"), (200_000.0, "2d7h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
