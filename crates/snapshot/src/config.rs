//! OCI configurations: made up for plain root file systems, read of images.

use oci_spec::image::{Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, Os, RootFsBuilder};

use crate::dir::Dir;
use crate::error::{Error, Kind, Result};
use crate::name::Digest;
use crate::record;

/// The configuration of an image that was imported as a mere root file system: it boots where it has an init.
pub(crate) fn for_rootfs(diff_ids: &[Digest], tree: &Dir) -> Result<Vec<u8>> {
    // Often a symlink whose target only means something inside.
    let boots = ["sbin", "usr/sbin"].iter().any(|dir| tree.sub(dir).is_ok_and(|dir| dir.has("init").unwrap_or(false)));
    let command = if boots { "/sbin/init" } else { "/bin/sh" };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let config = ConfigBuilder::default().cmd(vec![command.to_owned()]).env(vec![path.to_owned()]).build();
    let diff_ids: Vec<_> = diff_ids.iter().map(Digest::to_string).collect();
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build();
    let made = config.and_then(|config| {
        ImageConfigurationBuilder::default()
            .created(record::now())
            .architecture(Arch::from(host_architecture()))
            .os(Os::Linux)
            .config(config)
            .rootfs(rootfs?)
            .build()
    });
    let text = made.and_then(|config| config.to_string());
    text.map(String::into_bytes).map_err(|error| Error::new(Kind::System, format!("write the configuration: {error}")))
}

/// The machine's architecture in Go's words, which OCI uses.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The layers' digests of a configuration, the lowest first.
pub(crate) fn diff_ids(config: &[u8]) -> Result<Vec<Digest>> {
    let bad =
        |error: &dyn std::fmt::Display| Error::refused(format!("the image's configuration is malformed: {error}"));
    let config = ImageConfiguration::from_reader(config).map_err(|error| bad(&error))?;
    config.rootfs().diff_ids().iter().map(|id| Digest::parse(id).map_err(|error| bad(&error))).collect()
}
