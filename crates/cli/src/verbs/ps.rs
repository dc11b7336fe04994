//! `ps`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;
use crate::verbs::pause::hinted;
use offshoot_runtime::cause;
use std::process;

/// `offshoot ps`
pub static COMMAND: Command = Command::new("ps", "list the processes of a container", run)
    .takes("<container-id> [ps options]", Count::AtLeast(1))
    .flags(&[Flag::text("format", "table or json").short("f").default("table")])
    .options_first()
    .details("The table is that of ps(1), with its options (default: -ef); it must have a\ncolumn PID. Numbers are the host's.");

fn run(call: &Call) -> Result<u8, Failure> {
    let pids = call.runtime()?.processes(call.id()?).map_err(|error| hinted(&call.log, "ps", error))?;
    match call.text("format") {
        Some("json") => {
            let list: Vec<_> = pids.iter().map(ToString::to_string).collect();
            // Go writes a list that was never made as null.
            print(if list.is_empty() { "null\n".to_owned() } else { format!("[{}]\n", list.join(",")) })?;
        }
        Some("table") => print(of_container(&table(&call.arguments()[1..])?, &pids)?)?,
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

/// What ps(1) says about all processes.
fn table(options: &[String]) -> Result<String, Failure> {
    let standard = ["-ef".to_owned()];
    let options = if options.is_empty() { &standard } else { options };
    let output = process::Command::new("ps").args(options).output();
    let output = output.map_err(|error| Failure::new(format!("failed to run ps: {}", cause(&error))))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        // As Go writes a status, with one colon.
        let status = output.status.to_string().replacen("status: ", "status ", 1);
        Err(Failure::new(format!("{status}: {}{}", text(&output.stdout), text(&output.stderr))))
    }
}

/// The heading of a table and the rows of the processes `pids`.
fn of_container(table: &str, pids: &[i32]) -> Result<String, Failure> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Failure::new("couldn't find PID field in ps output"))?;
    let mut out = format!("{heading}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let pid = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = pid.parse().map_err(|_| Failure::new(format!("unable to parse pid: {pid:?} in {line:?}")))?;
        if pids.contains(&pid) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_processes_go() {
        let table = "UID   PID CMD\nroot    1 init\nroot   42 sh -c x\n";
        assert_eq!(of_container(table, &[42, 7]).unwrap(), "UID   PID CMD\nroot   42 sh -c x\n");
        assert!(of_container("UID CMD\n", &[1]).is_err());
        assert!(of_container("PID\nx\n", &[1]).is_err());
    }
}
