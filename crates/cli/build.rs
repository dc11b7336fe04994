//! Tells `--version` which commit is built: from the environment (a source archive has no history), else from git. Tells
//! Cargo that the linker reads `hack/order.ld`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=OFFSHOOT_COMMIT");
    let commit = std::env::var("OFFSHOOT_COMMIT").ok().or_else(described).unwrap_or_else(|| "unknown".into());
    println!("cargo::rerun-if-changed=../../hack/order.ld");
    println!("cargo::rustc-env=OFFSHOOT_COMMIT={commit}");
}

fn described() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    // The log of HEAD changes with every commit, checkout and rebase.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["describe", "--always", "--dirty", "--tags"])
}
