//! `plan`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use crate::verbs::create::STORE;
use std::path::Path;

/// `offshoot plan`
pub static COMMAND: Command = Command::new("plan", "show what run would do, without doing it", run)
    .for_people()
    .takes("[bundle]", Count::Between(0, 1))
    .flags(&[Flag::text("id", "id of the container").default("container"), STORE])
    .details(
        "Prints the decisions and the steps that a bundle's config.json leads to on this\n\
         machine, or all that is wrong with it. Needs no rights and changes nothing.",
    );

fn run(call: &Call) -> Result<u8, Failure> {
    let bundle = call.arguments().first().map_or("", String::as_str);
    let id = call.text("id").unwrap_or_default();
    print(call.runtime()?.plan(id, Path::new(bundle), call.path("store"))?.to_string())?;
    Ok(0)
}
