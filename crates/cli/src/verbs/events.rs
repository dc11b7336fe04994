//! `events`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use offshoot_runtime::{Error, Kind};
use offshoot_spec::events::Event;
use std::time::Duration;

/// `offshoot events`
pub static COMMAND: Command =
    Command::new("events", "report what the container uses, and when it is out of memory", run)
        .takes("<container-id>", Count::Exactly(1))
        .flags(&[
            Flag::duration("interval", "time between two reports").default("5s"),
            Flag::switch("stats", "report once, at once"),
        ])
        .details("Prints one line of JSON for each event, until the container ends.");

fn run(call: &Call) -> Result<u8, Failure> {
    let interval = call.duration("interval").unwrap_or(Duration::from_secs(5));
    if interval.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    let mut report = |event: &Event| {
        let line = serde_json::to_string(event).map_err(|error| Error::new(Kind::System, error.to_string()))?;
        print(line + "\n").map_err(|error| Error::new(Kind::System, error.to_string()))
    };
    let runtime = call.runtime()?;
    if call.on("stats") {
        runtime.stats(call.id()?, &mut report)?;
    } else {
        runtime.events(call.id()?, interval, &mut report)?;
    }
    Ok(0)
}
