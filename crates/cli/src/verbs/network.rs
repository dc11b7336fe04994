//! `network`: bridges for machines.

use crate::call::Call;
use crate::columns::columns;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use crate::verbs::image::STORE;
use offshoot_machine::network::{Leases, Network, NewNetwork, Range, Server};
use offshoot_machine::{Error, Home};
use offshoot_snapshot::Store;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `offshoot network`
pub static COMMAND: Command =
    Command::group("network", "connect machines with each other and the world", &[&CREATE, &LIST, &SHOW, &REMOVE]);

static CREATE: Command = Command::new("create", "make a network", create)
    .takes("NAME", Count::Exactly(1))
    .flags(&[
        STORE,
        Flag::text("range", "its IPv4 addresses, such as 10.83.0.0/24 (default: the next free /24 from there on)")
            .short("r"),
        Flag::switch("no-nat", "do not let machines reach the world under the host's address"),
        Flag::switch("no-names", "do not run a dnsmasq for names and DHCP"),
    ])
    .details(
        "A network is a bridge with an address range of which the host has the first.\n\
         Machines in it reach each other, by name too where dnsmasq is installed, and\n\
         through the host what it reaches.",
    );

static LIST: Command = Command::new("list", "list the networks", list)
    .flags(&[STORE, Flag::text("format", "table or json").short("f").default("table")]);

static SHOW: Command = Command::new("show", "print a network with its leases as JSON", show)
    .takes("NAME", Count::Exactly(1))
    .flags(&[STORE]);

static REMOVE: Command = Command::new("rm", "remove networks that no machine uses", remove)
    .takes("NAME...", Count::AtLeast(1))
    .flags(&[STORE]);

/// An error with its hint as a line of its own.
pub fn failed(error: Error) -> Failure {
    let failure = Failure::new(&error);
    match error.advice() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Where definitions are.
pub fn home(call: &Call) -> Home {
    Home::new(call.path("store").map_or_else(Store::default_path, PathBuf::from))
}

/// Where what lives as long as the host does is: beside the containers' states.
fn run(call: &Call) -> Result<PathBuf, Failure> {
    Ok(offshoot_machine::beside(&call.runtime()?, "networks"))
}

fn create(call: &Call) -> Result<u8, Failure> {
    call.check_empty()?;
    let wanted = NewNetwork {
        name: call.arguments()[0].clone(),
        range: call.text("range").map(Range::parse).transpose().map_err(failed)?,
        nat: !call.on("no-nat"),
        names: !call.on("no-names"),
    };
    let network = home(call).create_network(&run(call)?, wanted).map_err(failed)?;
    if network.names && !Server::is_installed() {
        call.log.warn("dnsmasq is not installed: machines will not know each other's names (install dnsmasq-base)");
    }
    print(format!("{}  {}  {}\n", network.name, network.bridge(), network.range)).map(|()| 0)
}

fn list(call: &Call) -> Result<u8, Failure> {
    let home = home(call);
    let networks = home.networks_all().map_err(failed)?;
    let leases = |network: &Network| home.leases(&network.name).map_err(failed);
    match call.text("format") {
        Some("table") => {
            let mut rows = vec![["NAME", "BRIDGE", "RANGE", "NAT", "NAMES", "MACHINES"].map(String::from)];
            for network in &networks {
                let yes = |on| if on { "yes" } else { "no" }.to_owned();
                let machines = leases(network)?.leases.len().to_string();
                let range = network.range.to_string();
                rows.push([
                    network.name.clone(),
                    network.bridge(),
                    range,
                    yes(network.nat),
                    yes(network.names),
                    machines,
                ]);
            }
            print(columns(rows))?;
        }
        Some("json") => {
            let all: Result<Vec<_>, _> = networks.iter().map(|network| Ok(told(network, &leases(network)?))).collect();
            print(format!("{}\n", json!(all.map_err(|error: Failure| error)?)))?;
        }
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

fn show(call: &Call) -> Result<u8, Failure> {
    let (home, name) = (home(call), &call.arguments()[0]);
    let network = home.network(name).map_err(failed)?;
    let told = told(&network, &home.leases(name).map_err(failed)?);
    print(format!("{}\n", offshoot_runtime::to_json(&told, "  "))).map(|()| 0)
}

fn told(network: &Network, leases: &Leases) -> Value {
    json!({
        "name": network.name,
        "bridge": network.bridge(),
        "range": network.range.to_string(),
        "gateway": network.range.gateway(),
        "nat": network.nat,
        "names": network.names,
        "created": network.created,
        "leases": leases.leases,
    })
}

fn remove(call: &Call) -> Result<u8, Failure> {
    let (home, run) = (home(call), run(call)?);
    call.arguments().iter().try_for_each(|name| home.remove_network(&run, name)).map_err(failed).map(|()| 0)
}
