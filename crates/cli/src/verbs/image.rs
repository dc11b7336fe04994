//! `image`: images, from which root file systems grow.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use offshoot_snapshot::{
    BuildOptions, Digest, Error, ExportFormat, Format, Image, ImportOptions, Limits, Name, Progress, Source, Store,
    parse_size,
};
use serde_json::json;

use crate::call::Call;
use crate::columns::columns;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::output::print;

/// Where the store is; an option of every command here.
pub const STORE: Flag = Flag::path(
    "store",
    "directory of images and clones (default: /var/lib/offshoot, or $XDG_DATA_HOME/offshoot without root)",
);
const QUIET: Flag = Flag::switch("quiet", "show no progress, print ids only").short("q");
const NAME: Flag = Flag::text("name", "a further name for the image").short("t").many();

/// `offshoot image`
pub static COMMAND: Command = Command::group(
    "image",
    "keep images, from which root file systems grow",
    &[&IMPORT, &BUILD, &LIST, &SHOW, &EXPORT, &TAG, &REMOVE, &PRUNE, &USAGE, &CHECK, &POOL],
);

static IMPORT: Command = Command::new("import", "make an image of a tarball, directory, OCI or docker archive", import)
    .takes("SOURCE [NAME]", Count::Between(1, 2))
    .flags(&[
        STORE,
        NAME,
        QUIET,
        Flag::text("format", "what SOURCE is: auto, rootfs or image").default("auto"),
        Flag::text("digest", "the SHA-256 that the file must have"),
        Flag::text("ref", "which image to take of several"),
        Flag::text("arch", "architecture to take of several, in Go's words"),
        Flag::text("max-size", "the most that it may unpack to").default("64G"),
    ])
    .details("SOURCE is a root file system (a tarball, uncompressed or by gzip, zstd, xz or bzip2;\nor a directory), an OCI layout or archive, or what `docker save` wrote; \"-\" reads\nstdin. Owners are kept as they are: ids are mapped when a clone is mounted.");

static BUILD: Command = Command::new("build", "make an image of a Debian or Ubuntu release", build)
    .takes("SUITE [NAME]", Count::Between(1, 2))
    .flags(&[
        STORE,
        NAME,
        QUIET,
        Flag::text("include", "packages to add, separated by commas").short("i").many(),
        Flag::text("variant", "the set of packages to begin with").default("minbase"),
        Flag::text("mirror", "where packages come from (default: as in the host's apt)"),
        Flag::switch("verbose", "show what the tools say"),
    ])
    .details("Needs mmdebstrap or debootstrap. For a system that boots, include an init:\n\n    offshoot image build bookworm debian -i systemd-sysv,dbus,udev,iproute2");

static LIST: Command = Command::new("list", "list the images", list).flags(&[
    STORE,
    QUIET,
    Flag::text("format", "table or json").short("f").default("table"),
]);

static SHOW: Command =
    Command::new("show", "print all about an image as JSON", show).takes("IMAGE", Count::Exactly(1)).flags(&[STORE]);

static EXPORT: Command = Command::new("export", "write an image as a tarball or OCI archive", export)
    .takes("IMAGE FILE", Count::Exactly(2))
    .flags(&[STORE, FORMAT])
    .details("FILE \"-\" is stdout.");
/// What an export writes.
pub const FORMAT: Flag = Flag::text("format", "tar, tar.gz or oci").short("f").default("tar");

static TAG: Command =
    Command::new("tag", "give an image a further name", tag).takes("IMAGE NAME", Count::Exactly(2)).flags(&[STORE]);

static REMOVE: Command = Command::new("rm", "remove names, and images with their last name", remove)
    .takes("IMAGE...", Count::AtLeast(1))
    .flags(&[STORE]);

static PRUNE: Command = Command::new("prune", "remove what nothing uses", prune)
    .flags(&[STORE, Flag::switch("all", "images that no clone is made of, too").short("a")])
    .details("Removes clones that were not to be kept and whose boot is over, layers that no image\nuses, and what killed processes left.");

static USAGE: Command = Command::new("df", "show what images and clones occupy on disk", usage).flags(&[STORE]);

static CHECK: Command = Command::new("check", "look whether the store is consistent", check)
    .flags(&[STORE, Flag::switch("repair", "remove what is damaged beyond use")])
    .details("Exits with 1 where something is damaged and was not repaired.");

static POOL: Command = Command::new("pool", "name the LVM thin pool for clones by the driver lvm-thin", pool)
    .takes("GROUP/POOL", Count::Exactly(1))
    .flags(&[STORE, Flag::text("size", "make the pool, of this size, where it is missing")]);

/// The store that the call names.
pub fn store(call: &Call) -> Result<Store, Failure> {
    // Before the namespace is entered, as there everyone is root.
    let path = call.path("store").map_or_else(Store::default_path, PathBuf::from);
    offshoot_snapshot::become_root_of_own_ids().map_err(failed)?;
    Store::open(path).map_err(failed)
}

/// An error with its hint as a line of its own.
pub fn failed(error: Error) -> Failure {
    match error.hint() {
        Some(hint) => Failure::new(&error).hint(hint),
        None => Failure::new(error),
    }
}

/// A line that shows how far something has come, where a person looks.
pub struct Bar {
    shown: bool,
    what: &'static str,
}

impl Bar {
    /// Nothing with `quiet`, or where stderr is no terminal.
    pub fn new(what: &'static str, quiet: bool) -> Bar {
        Bar { shown: !quiet && std::io::stderr().is_terminal(), what }
    }

    /// Shows it.
    pub fn at(&self, progress: Progress) {
        if !self.shown {
            return;
        }
        const WIDTH: u64 = 30;
        let Progress { done, total } = progress;
        let text = match total {
            0 => size(done),
            _ => {
                let full = (done * WIDTH / total).min(WIDTH) as usize;
                format!("[{:<30}] {:>3} %  {} of {}", "#".repeat(full), done * 100 / total, size(done), size(total))
            }
        };
        let _ = write!(std::io::stderr(), "\r{} {text}\x1b[K", self.what);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Bytes for people, in powers of 1024 as `df -h` has them.
pub fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1024 && unit < 4 {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
    match unit > 0 && whole < 10 {
        true => format!("{whole}.{} {name}", rest * 10 / 1024),
        false => format!("{whole} {name}"),
    }
}

/// The names to give: the argument and the options.
fn names(call: &Call, argument: Option<&String>) -> Result<Vec<Name>, Failure> {
    let given = argument.map(String::as_str).into_iter().chain(call.texts("name"));
    given.map(|name| Name::parse(name).map_err(failed)).collect()
}

/// A name for an image of a file: `debian.tar.xz` is `debian`.
fn name_of_file(path: &str) -> Option<Name> {
    if path == "-" {
        return None;
    }
    let file = path.trim_end_matches('/').rsplit('/').next()?;
    let plain = file.split(".tar").next()?.trim_end_matches(".tgz").trim_end_matches(".oci");
    Name::parse(&plain.to_ascii_lowercase()).ok()
}

fn done(image: &Image, call: &Call) -> Result<u8, Failure> {
    let names: Vec<_> = image.names().iter().map(Name::to_string).collect();
    let text = match call.on("quiet") {
        true => format!("{}\n", image.id()),
        false => format!("{}  {}  {}\n", image.id().short(), size(image.bytes()), names.join(" ")),
    };
    print(text).map(|()| 0)
}

fn import(call: &Call) -> Result<u8, Failure> {
    let format = match call.text("format") {
        Some("auto") => Format::Auto,
        Some("rootfs") => Format::Rootfs,
        Some("image") => Format::Image,
        _ => return Err(Failure::new("invalid format option")),
    };
    let most = call.text("max-size").map(parse_size).transpose().map_err(failed)?;
    let mut limits = Limits::default();
    limits.bytes = most.unwrap_or(limits.bytes);
    let options = ImportOptions {
        names: names(call, call.arguments().get(1))?,
        digest: call.text("digest").map(Digest::parse).transpose().map_err(failed)?,
        limits,
        format,
        reference: call.text("ref").map(str::to_owned),
        architecture: call.text("arch").map(str::to_owned),
    };
    let path = &call.arguments()[0];
    let source = match path.as_str() {
        "-" => Source::Stream(Box::new(std::io::stdin().lock()), "standard input".into()),
        path => Source::Path(path.into()),
    };
    let store = store(call)?;
    let bar = Bar::new("importing", call.on("quiet"));
    let image = store.import(source, &options, &mut |progress| bar.at(progress)).map_err(failed)?;
    drop(bar);
    if let Some(name) = name_of_file(path).filter(|_| image.names().is_empty()) {
        store.tag(&image, &name).map_err(failed)?;
    }
    done(&store.image(image.id().hex()).map_err(failed)?, call)
}

fn build(call: &Call) -> Result<u8, Failure> {
    let suite = &call.arguments()[0];
    let packages = call.texts("include").flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    let options = BuildOptions {
        suite: suite.clone(),
        packages: packages.map(str::to_owned).collect(),
        variant: call.text("variant").unwrap_or_default().to_owned(),
        mirror: call.text("mirror").map(str::to_owned),
        verbose: call.on("verbose"),
        import: ImportOptions {
            names: names(call, call.arguments().get(1).or(Some(suite)))?,
            ..ImportOptions::default()
        },
    };
    let bar = Bar::new("building", call.on("quiet") || call.on("verbose"));
    bar.at(Progress { done: 0, total: 0 });
    let image = store(call)?.build(&options, &mut |progress| bar.at(progress)).map_err(failed)?;
    drop(bar);
    done(&image, call)
}

fn list(call: &Call) -> Result<u8, Failure> {
    let images = store(call)?.images().map_err(failed)?;
    if call.on("quiet") {
        print(images.iter().map(|image| format!("{}\n", image.id())).collect::<String>())?;
        return Ok(0);
    }
    match call.text("format") {
        Some("json") => print(format!("{}\n", json!(images.iter().map(summary).collect::<Vec<_>>())))?,
        Some("table") => {
            let head = ["NAME", "TAG", "ID", "CREATED", "SIZE"].map(String::from);
            let row = |image: &Image, name: &str, tag: &str| {
                [name, tag, image.id().short(), image.created(), &size(image.bytes())].map(String::from)
            };
            let mut rows = vec![head];
            for image in &images {
                if image.names().is_empty() {
                    rows.push(row(image, "<none>", "<none>"));
                }
                rows.extend(image.names().iter().map(|name| row(image, name.repository(), name.tag())));
            }
            print(columns(rows))?;
        }
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

fn summary(image: &Image) -> serde_json::Value {
    json!({
        "id": image.id().to_string(),
        "names": image.names().iter().map(Name::as_str).collect::<Vec<_>>(),
        "created": image.created(),
        "size": image.bytes(),
        "source": image.source(),
        "layers": image.layers().iter().map(Digest::to_string).collect::<Vec<_>>(),
    })
}

fn show(call: &Call) -> Result<u8, Failure> {
    let image = store(call)?.image(&call.arguments()[0]).map_err(failed)?;
    let mut all = summary(&image);
    all["config"] = image.config().clone();
    print(format!("{all:#}\n")).map(|()| 0)
}

/// What the option `--format` of an export says.
pub fn export_format(call: &Call) -> Result<ExportFormat, Failure> {
    match call.text("format") {
        Some("tar") => Ok(ExportFormat::Tar),
        Some("tar.gz") => Ok(ExportFormat::TarGzip),
        Some("oci") => Ok(ExportFormat::Oci),
        _ => Err(Failure::new("invalid format option")),
    }
}

/// The file that an export goes to.
pub fn output(path: &str) -> Result<Box<dyn std::io::Write>, Failure> {
    Ok(match path {
        "-" => Box::new(std::io::stdout().lock()),
        path => {
            Box::new(File::create(path).map_err(|error| Failure::new(format!("failed to create {path:?}: {error}")))?)
        }
    })
}

fn export(call: &Call) -> Result<u8, Failure> {
    let (store, format) = (store(call)?, export_format(call)?);
    let image = store.image(&call.arguments()[0]).map_err(failed)?;
    store.export_image(&image, format, output(&call.arguments()[1])?).map_err(failed).map(|()| 0)
}

fn tag(call: &Call) -> Result<u8, Failure> {
    let store = store(call)?;
    let [image, name] = call.arguments() else { return Err(Failure::new("tag takes an image and a name")) };
    let name = Name::parse(name).map_err(failed)?;
    store.tag(&store.image(image).map_err(failed)?, &name).map_err(failed).map(|()| 0)
}

fn remove(call: &Call) -> Result<u8, Failure> {
    let store = store(call)?;
    for reference in call.arguments() {
        store.remove_image(reference).map_err(failed)?;
    }
    Ok(0)
}

fn prune(call: &Call) -> Result<u8, Failure> {
    let pruned = store(call)?.prune(call.on("all")).map_err(failed)?;
    let mut text = String::new();
    for clone in pruned.clones {
        text.push_str(&format!("removed clone {clone}\n"));
    }
    for image in pruned.images {
        text.push_str(&format!("removed image {image}\n"));
    }
    if pruned.remains > 0 {
        text.push_str(&format!("removed {} remains\n", pruned.remains));
    }
    print(text).map(|()| 0)
}

fn usage(call: &Call) -> Result<u8, Failure> {
    let store = store(call)?;
    let mut rows = vec![["KIND", "NAME", "DRIVER", "ON DISK"].map(String::from)];
    for (image, bytes) in store.image_usage().map_err(failed)? {
        rows.push(["image", &image.shown(), "-", &size(bytes)].map(String::from));
    }
    for clone in store.clones().map_err(failed)? {
        let bytes = clone.usage().map_err(failed)?;
        rows.push(["clone", clone.name(), clone.driver().as_str(), &size(bytes)].map(String::from));
    }
    print(columns(rows)).map(|()| 0)
}

fn check(call: &Call) -> Result<u8, Failure> {
    let report = store(call)?.check(call.on("repair")).map_err(failed)?;
    let mut text = String::new();
    for line in report.problems.iter().chain(&report.repairs) {
        text.push_str(&format!("{line}\n"));
    }
    let (images, layers, clones) = (report.images, report.layers, report.clones);
    text.push_str(&format!("{images} images of {layers} layers, {clones} clones, {} remains\n", report.remains));
    print(text)?;
    Ok(u8::from(!report.problems.is_empty() && report.repairs.is_empty()))
}

fn pool(call: &Call) -> Result<u8, Failure> {
    let size = call.text("size").map(parse_size).transpose().map_err(failed)?;
    store(call)?.use_thin_pool(&call.arguments()[0], size).map_err(failed).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_df_has_them() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (254_803_968, "243 MiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_file_names_its_image() {
        for (path, name) in
            [("/x/Debian.tar.xz", "debian:latest"), ("a/alpine.tgz", "alpine:latest"), ("dir/", "dir:latest")]
        {
            assert_eq!(name_of_file(path).map(|name| name.to_string()).as_deref(), Some(name));
        }
        assert_eq!(name_of_file("/"), None);
    }
}
