//! `machine launch` and `clone`.

use super::{machines, report, summed};
use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::verbs::image::STORE;
use crate::verbs::network::failed;
use offshoot_machine::definition::{Change, Limits, Machine, parse_cpus};
use offshoot_machine::network::Wanted;
use offshoot_machine::{Filter, Machines, NewMachines, Volume, name};
use offshoot_snapshot::{Choice, parse_size};
use std::time::Instant;

const COUNT: Flag = Flag::number("count", "make so many, named by --name");
const TEMPLATE: Flag = Flag::text("name", "name of each of many, with its number in the place of {}");
const FIRST: Flag = Flag::number("first", "number of the first of many (default: 1)");
const NETWORK: Flag = Flag::text(
    "network",
    "a network of ours, macvlan:INTERFACE, device:INTERFACE to move it in, or none (default: the network \"default\", if there is one)",
)
.short("n")
.many();
const ADDRESS: Flag = Flag::text(
    "address",
    "its IPv4 address in the first network, or dhcp to let the guest ask (default: the next free one, set from outside)",
);
/// Which system calls a machine is refused, in `launch` and `set`.
pub const SECCOMP: Flag = Flag::text(
    "seccomp",
    "system calls that it is refused, from its next start on: default, compat (with sockets of all kinds, for 32-bit x86 programs), unconfined, or a FILE with linux.seccomp",
);
const FORCE: Flag = Flag::switch("force", "start although limits of the host are too low").short("f");
const NO_START: Flag = Flag::switch("no-start", "make it, but do not start it");

/// What a machine may use, in `launch` and `set`.
pub const LIMITS: [Flag; 6] = [
    Flag::text("cpus", "processors it may use at most, such as 2 or 0.5; max for all"),
    Flag::text("cpuset", "which processors, such as 0-3,7"),
    Flag::number("shares", "processor time relative to others that want some, 2 to 262144 (a machine has 1024)"),
    Flag::text("memory", "memory it may use, such as 512M; max for all").short("m"),
    Flag::text("pids", "processes and threads it may have; max for no limit"),
    Flag::number("io", "weight of block I/O, 10 to 1000 (a machine has 100)"),
];

/// `offshoot machine launch`
pub static LAUNCH: Command = Command::new("launch", "make machines of an image and start them", launch)
    .takes("IMAGE [NAME...]", Count::AtLeast(1))
    .flags(&[
        STORE,
        COUNT,
        TEMPLATE,
        FIRST,
        NETWORK,
        ADDRESS,
        LIMITS[0],
        LIMITS[1],
        LIMITS[2],
        LIMITS[3],
        LIMITS[4],
        LIMITS[5],
        Flag::switch("autostart", "start it when the host boots"),
        Flag::number("order", "lower ones start earlier and stop later (default: 0)"),
        Flag::switch(
            "lean",
            "for systemd guests: no udev, logind, getty, timers or journal on disk, half the time to boot; others boot as ever",
        ),
        Flag::text("env", "KEY=value of its init").short("e").many(),
        Flag::text("device", "a device of the host that it gets").many(),
        Flag::text("volume", "SOURCE:DESTINATION[:ro], a directory or file of the host that it sees").short("v").many(),
        SECCOMP,
        Flag::text("init", "the program that is its pid 1, and its arguments").default("/sbin/init"),
        Flag::text("driver", "storage driver of the clones: auto, overlay, btrfs, lvm-thin, reflink, zfs or dir")
            .default("auto"),
        FORCE,
        NO_START,
    ])
    .details(
        "Clones the image for each machine and boots it: its own users, processes, network\n\
         and limits, with the image's init as pid 1.\n\
         \n\
         \x20   offshoot machine launch debian web\n\
         \x20   offshoot machine launch debian --count 64 --name 'web{}' --memory 256M --lean",
    );

/// `offshoot machine clone`
pub static CLONE: Command = Command::new("clone", "make machines of another", clone)
    .takes("MACHINE NAME...", Count::AtLeast(2))
    .flags(&[STORE, Flag::switch("start", "start them")])
    .details(
        "What the machine's file system has become is made an image of its own, named\n\
         machine/MACHINE, which all of them share. One that runs stands still for a moment.",
    );

fn launch(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let since = Instant::now();
    let mut limits = Limits::default();
    change(call)?.apply(&mut limits);
    let wanted = NewMachines {
        names: names(call)?,
        like: Machine {
            image: call.arguments()[0].clone(),
            init: call.text("init").unwrap_or("/sbin/init").to_owned(),
            limits,
            autostart: call.on("autostart"),
            order: call.number("order").unwrap_or(0),
            lean: call.on("lean"),
            env: call.texts("env").map(String::from).collect(),
            devices: call.texts("device").map(String::from).collect(),
            volumes: call.texts("volume").map(Volume::parse).collect::<Result<_, _>>().map_err(failed)?,
            ..Machine::default()
        },
        networks: networks(call)?,
        address: call.text("address").filter(|text| *text != "dhcp").map(address).transpose()?,
        dhcp: call.text("address") == Some("dhcp"),
        seccomp: call.text("seccomp").map(Filter::parse).transpose().map_err(failed)?,
        driver: call.text("driver").unwrap_or("auto").parse::<Choice>().map_err(crate::verbs::image::failed)?,
    };
    if !call.on("no-start") {
        room(call, &machines, wanted.names.len())?;
    }
    machines.define(&wanted).map_err(failed)?;
    match call.on("no-start") {
        true => made(wanted.names.len()),
        false => {
            let started = machines.start(&wanted.names, &mut report);
            if started.as_ref().is_ok_and(|outcome| !outcome.is_good()) {
                eprintln!(
                    "hint: what did not start has been made all the same: machine start tries again, machine rm removes it"
                );
            }
            summed(started, "started", since)
        }
    }
}

/// Says which limits of the host are too low for so many machines more, and stops where they would certainly not start.
pub fn room(call: &Call, machines: &Machines, more: usize) -> Result<(), Failure> {
    let low = machines.narrow(more).map_err(failed)?;
    for found in low.iter().filter(|found| !found.hard || call.on("force")) {
        call.log
            .warn(format_args!("{} is {}, and {} are needed: {}", found.name, found.have, found.need, found.advice));
    }
    match low.iter().find(|found| found.hard) {
        Some(found) if !call.on("force") => {
            let message = format!("{} is {}, but so many machines need {}", found.name, found.have, found.need);
            Err(Failure::new(message).hint(format_args!("{}; or --force", found.advice)))
        }
        _ => Ok(()),
    }
}

fn made(count: usize) -> Result<u8, Failure> {
    crate::output::print(format!("{count} made\n")).map(|()| 0)
}

fn names(call: &Call) -> Result<Vec<String>, Failure> {
    let given = call.arguments()[1..].to_vec();
    let count = call.number("count");
    match (given.is_empty(), call.text("name"), count) {
        (false, None, None) => Ok(given),
        (true, Some(template), _) => {
            let number = |value: Option<i64>, what| {
                usize::try_from(value.unwrap_or(1))
                    .map_err(|_| Failure::new(format!("invalid value for {what}: it is negative")))
            };
            name::numbered(template, number(call.number("first"), "first")?, number(count, "count")?).map_err(failed)
        }
        _ => Err(Failure::new("machines are named either one by one, or by --name and --count")),
    }
}

fn networks(call: &Call) -> Result<Option<Vec<Wanted>>, Failure> {
    let words: Vec<_> = call.texts("network").flat_map(|text| text.split(',')).collect();
    match words.is_empty() {
        true => Ok(None),
        false => Wanted::parse(&words).map(Some).map_err(failed),
    }
}

fn address(text: &str) -> Result<std::net::Ipv4Addr, Failure> {
    text.parse().map_err(|_| Failure::new(format!("invalid value for address: {text:?} is no IPv4 address")))
}

/// The limits that options ask for.
pub fn change(call: &Call) -> Result<Change, Failure> {
    let wrong = |name: &str, why: &str| Failure::new(format!("invalid value for {name}: {why}"));
    let within = |name: &'static str, least: i64, most: i64| match call.number(name) {
        Some(value) if !(least..=most).contains(&value) => Err(wrong(name, &format!("it is {least} to {most}"))),
        value => Ok(value),
    };
    let memory = |text| match text {
        "max" => Ok(None),
        text => parse_size(text).map(Some).map_err(crate::verbs::image::failed),
    };
    let pids = |text: &str| match text {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| wrong("pids", "it is a number or max")),
    };
    Ok(Change {
        cpus: call.text("cpus").map(parse_cpus).transpose().map_err(failed)?,
        cpuset: call.text("cpuset").map(String::from),
        shares: within("shares", 2, 262_144)?.map(i64::unsigned_abs),
        memory: call.text("memory").map(memory).transpose()?,
        pids: call.text("pids").map(pids).transpose()?,
        io: within("io", 10, 1000)?.and_then(|weight| u16::try_from(weight).ok()),
    })
}

fn clone(call: &Call) -> Result<u8, Failure> {
    let machines = machines(call)?;
    let since = Instant::now();
    let (source, names) = (&call.arguments()[0], call.arguments()[1..].to_vec());
    machines.copy(source, &names).map_err(failed)?;
    match call.on("start") {
        true => summed(machines.start(&names, &mut report), "started", since),
        false => made(names.len()),
    }
}
