//! `features`

use crate::call::Call;
use crate::command::Command;
use crate::failure::Failure;
use crate::output::print;
use crate::version;
use offshoot_runtime::features::features;

/// `offshoot features`
pub static COMMAND: Command = Command::new("features", "show what the program can do", run)
    .details("Prints JSON as the runtime specification defines it in features.md.");

fn run(_: &Call) -> Result<u8, Failure> {
    print(offshoot_runtime::to_json(&features(&version::number(), version::COMMIT), "    ") + "\n")?;
    Ok(0)
}
