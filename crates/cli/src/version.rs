//! `--version`, in the three lines that go-runc takes apart.

/// The release of runc whose commands and answers these are. go-runc, dockerd and scripts look for it in the first
/// line; what stands after the plus sign is ours.
const RUNC: &str = "1.5.1";

/// The text of `--version`. Older callers want exactly three lines.
pub fn text() -> String {
    format!(
        "runc version {RUNC}+offshoot.{}\ncommit: {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("OFFSHOOT_COMMIT"),
        offshoot_spec::OCI_VERSION
    )
}
