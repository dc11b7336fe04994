//! Which program this is.

/// The release of runc whose commands and answers these are. go-runc, dockerd and scripts look for it in the first
/// line of `--version`; what stands after the plus sign is ours.
const RUNC: &str = "1.5.1";

/// The commit that was built.
pub const COMMIT: &str = env!("OFFSHOOT_COMMIT");

/// The version, in two: runc's, and our own as semver's build metadata.
pub fn number() -> String {
    format!("{RUNC}+offshoot.{}", env!("CARGO_PKG_VERSION"))
}

/// The text of `--version`. Older callers want exactly three lines.
pub fn text() -> String {
    format!("runc version {}\ncommit: {COMMIT}\nspec: {}\n", number(), offshoot_spec::OCI_VERSION)
}
