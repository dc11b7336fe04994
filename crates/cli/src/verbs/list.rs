//! `list`

use crate::call::Call;
use crate::columns::columns;
use crate::command::{Command, Flag};
use crate::failure::Failure;
use crate::output::print;
use offshoot_runtime::Summary;

/// `offshoot list`
pub static COMMAND: Command = Command::new("list", "list the containers below the root", run)
    .flags(&[
        Flag::text("format", "table or json").short("f").default("table"),
        Flag::switch("quiet", "print ids only").short("q"),
    ])
    .details("The root is what the global option --root names.");

fn run(call: &Call) -> Result<u8, Failure> {
    let (list, broken) = call.runtime()?.list()?;
    for message in broken {
        eprintln!("{message}");
    }
    if call.on("quiet") {
        print(list.iter().map(|found| format!("{}\n", found.id)).collect::<String>())?;
        return Ok(0);
    }
    match call.text("format") {
        Some("table") => print(table(&list))?,
        Some("json") => print(format!("{}\n", Summary::list_to_json(&list)))?,
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

fn table(list: &[Summary]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows = list.iter().map(|found| {
        let bundle = found.bundle.display().to_string();
        [&found.id, &found.pid.to_string(), &found.status, &bundle, &found.created, &found.owner].map(String::clone)
    });
    columns(std::iter::once(head).chain(rows))
}
