//! Building a Debian or Ubuntu root file system with the tools made for it, from the mirror that the host uses.

use std::cell::RefCell;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use crate::archive::stream::Listener;
use crate::error::{Call, During, Error, Kind, Result};
use crate::image::Image;
use crate::import::{ImportOptions, Source};
use crate::store::{Staging, Store};
use crate::tool::Tool;

const MMDEBSTRAP: Tool = Tool { name: "mmdebstrap", package: "mmdebstrap" };
const DEBOOTSTRAP: Tool = Tool { name: "debootstrap", package: "debootstrap" };

/// What a system needs that no package brings, and what the tools take from this host that would be wrong on every other. With the
/// root file system as its first argument.
const FINISH: &str = r#"rm -f "$1/etc/hostname"
[ -e "$1/etc/hosts" ] || printf '%s\n' '127.0.0.1 localhost' '::1 localhost ip6-localhost ip6-loopback' >"$1/etc/hosts""#;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The release: `bookworm`, `trixie`, `noble`.
    pub suite: String,
    /// Packages beside the minimum, such as `systemd-sysv`.
    pub packages: Vec<String>,
    /// Which packages the minimum are: `minbase`, `essential`, `important`…
    pub variant: String,
    /// The mirror; the host's own where not given.
    pub mirror: Option<String>,
    /// Whether the tools' messages go to stderr rather than into the error.
    pub verbose: bool,
    /// How to import the result.
    pub import: ImportOptions,
}

impl Store {
    /// Builds an image: with mmdebstrap, or with debootstrap where only that is installed.
    pub fn build(&self, options: &BuildOptions, progress: Listener) -> Result<Image> {
        let mut build = || {
            check_words(options)?;
            match MMDEBSTRAP.find() {
                Ok(_) => self.mmdebstrap(options, progress),
                Err(missing) if DEBOOTSTRAP.find().is_err() => Err(missing),
                Err(_) => self.debootstrap(options, progress),
            }
        };
        build().map_err(advise).during(|| format!("build {}", options.suite))
    }

    fn mmdebstrap(&self, options: &BuildOptions, progress: Listener) -> Result<Image> {
        let staging = self.staging()?;
        let mut command = MMDEBSTRAP.command()?;
        command.args([
            "--format=tar",
            &format!("--variant={}", options.variant),
            &format!("--customize-hook={FINISH}"),
        ]);
        add_packages(&mut command, options);
        command.args([&options.suite, "-"]);
        match &options.mirror {
            // Without the suite, so that the tool finds the key.
            Some(uri) => drop(command.arg(uri)),
            None => drop(command.args(mirror(options).map(|source| source.line(&options.suite)))),
        }
        let child = start(&mut command, MMDEBSTRAP, &staging, options, Stdio::piped())?;
        let failure = Rc::new(RefCell::new(None));
        let stream = ChildOutput { child, tool: MMDEBSTRAP, staging: &staging, failure: Rc::clone(&failure) };
        let source = Source::Stream(Box::new(stream), format!("mmdebstrap {}", options.suite));
        let result = self.import(source, &options.import, progress);
        // The tool's own words say more than that its archive ended early.
        match failure.borrow_mut().take() {
            Some(error) => Err(error),
            None => result,
        }
    }

    fn debootstrap(&self, options: &BuildOptions, progress: Listener) -> Result<Image> {
        let staging = self.staging()?;
        staging.dir.mkdir("root", 0o755)?;
        let root = staging.dir.path().join("root");
        let mut command = DEBOOTSTRAP.command()?;
        command.arg(format!("--variant={}", options.variant));
        add_packages(&mut command, options);
        command.arg(&options.suite).arg(&root);
        command.args(options.mirror.clone().or_else(|| mirror(options).map(|source| source.uri)));
        let mut child = start(&mut command, DEBOOTSTRAP, &staging, options, Stdio::null())?;
        let status = child.wait().call(|| "waitid(debootstrap)")?;
        if !status.success() {
            return Err(DEBOOTSTRAP.failed(&[&options.suite], &staging.dir.read("messages", u64::MAX - 1)?));
        }
        let finished = Command::new("sh").args(["-c", FINISH, "sh"]).arg(&root).status().call(|| "execve(\"sh\")")?;
        if !finished.success() {
            return Err(Error::new(Kind::System, "failed to write its /etc/hosts"));
        }
        self.import(Source::Path(root), &options.import, progress)
    }
}

/// What goes to the tools must not be taken for an option of theirs.
fn check_words(options: &BuildOptions) -> Result<()> {
    let words = options.packages.iter().chain([&options.suite, &options.variant]);
    for word in words {
        let fits = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:=~_,/?()!".contains(&b));
        if word.is_empty() || word.starts_with('-') || !fits {
            return Err(Error::invalid(format!("{word:?} is not the name of a release or package")));
        }
    }
    Ok(())
}

fn mirror(options: &BuildOptions) -> Option<AptSource> {
    host_mirror(&options.suite, &host_sources(Path::new("/etc/apt")), &families())
}

fn add_packages(command: &mut Command, options: &BuildOptions) {
    if !options.packages.is_empty() {
        command.arg(format!("--include={}", options.packages.join(",")));
    }
}

fn start(command: &mut Command, tool: Tool, staging: &Staging, options: &BuildOptions, out: Stdio) -> Result<Child> {
    let messages = staging.dir.write_new("messages", b"")?;
    let stderr = if options.verbose { Stdio::inherit() } else { Stdio::from(messages) };
    let child = command.stdout(out).stderr(stderr).spawn();
    child.map_err(|error| Error::io(format!("execve({:?})", tool.name), &error))
}

/// What a tool prints, and at its end whether it succeeded: an archive is only good when its maker says so.
struct ChildOutput<'a> {
    child: Child,
    tool: Tool,
    staging: &'a Staging<'a>,
    failure: Rc<RefCell<Option<Error>>>,
}

impl Read for ChildOutput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = match &mut self.child.stdout {
            Some(stdout) => stdout.read(buffer)?,
            None => 0,
        };
        if count == 0 && !buffer.is_empty() && !self.child.wait()?.success() {
            let said = self.staging.dir.read("messages", u64::MAX - 1).unwrap_or_default();
            *self.failure.borrow_mut() = Some(self.tool.failed(&[], &said));
            return Err(std::io::Error::other(format!("{} failed", self.tool.name)));
        }
        Ok(count)
    }
}

impl Drop for ChildOutput<'_> {
    fn drop(&mut self) {
        // Where the import gave up first, the tool is not to go on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One source of packages, as apt has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AptSource {
    /// `signed-by=…` and the like, in brackets in the one-line form.
    options: String,
    uri: String,
    suites: Vec<String>,
    components: String,
}

impl AptSource {
    /// The one-line form for a suite.
    fn line(&self, suite: &str) -> String {
        let options = if self.options.is_empty() { String::new() } else { format!("[{}] ", self.options) };
        format!("deb {options}{} {suite} {}", self.uri, self.components)
    }
}

/// Where packages come from: as the host has it for that suite, or for another of the same distribution. `None` leaves it to the
/// tool, which knows the mirrors and keys of Debian and Ubuntu.
fn host_mirror(suite: &str, sources: &[AptSource], families: &[(&'static str, String)]) -> Option<AptSource> {
    if let Some(exact) = sources.iter().find(|source| source.suites.iter().any(|other| other == suite)) {
        return Some(exact.clone());
    }
    let family = |suite: &str| families.iter().find(|(_, csv)| lists(csv, suite)).map(|(name, _)| *name);
    let same = |other: &String| match (family(suite), family(other)) {
        (Some(wanted), Some(found)) => wanted == found,
        // Its other suites (security, updates) have mirrors that hold nothing else.
        _ => !other.contains(['-', '/']) && family(suite).is_none(),
    };
    sources.iter().find(|source| source.suites.iter().any(same)).cloned()
}

/// The distributions with their releases, where the package distro-info-data tells.
fn families() -> Vec<(&'static str, String)> {
    let read = |name: &'static str| {
        let text = std::fs::read_to_string(format!("/usr/share/distro-info/{name}.csv"));
        text.ok().map(|text| (name, text))
    };
    ["debian", "ubuntu"].into_iter().filter_map(read).collect()
}

/// Whether a suite is among the releases of `version,codename,series,…`.
fn lists(csv: &str, suite: &str) -> bool {
    csv.lines().any(|line| line.split(',').nth(2) == Some(suite))
}

/// What helps against what a tool complained of.
fn advise(error: Error) -> Error {
    let text = error.to_string();
    let hint = if text.contains("is not signed") || text.contains("NO_PUBKEY") {
        "install the keys of that distribution: the package ubuntu-keyring or debian-archive-keyring"
    } else if text.contains("does not have a Release file") || text.contains("404") {
        "this mirror has no such release: name another by --mirror"
    } else if text.contains("Unable to locate package") {
        "a package of --include is not in that release"
    } else {
        return error;
    };
    error.with_hint(hint)
}

fn host_sources(apt: &Path) -> Vec<AptSource> {
    let mut files = vec![apt.join("sources.list")];
    let parts = std::fs::read_dir(apt.join("sources.list.d"));
    let mut parts: Vec<_> = parts.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    parts.sort();
    files.extend(parts);
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(text.split("\n\n").filter_map(stanza)),
            _ => {}
        }
    }
    sources
}

/// `deb [signed-by=/x] http://mirror suite main contrib` (man 5 sources.list).
fn one_line(line: &str) -> Option<AptSource> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    let components: Vec<_> = words.collect();
    Some(AptSource { options: options.trim().to_owned(), uri, suites: vec![suite], components: components.join(" ") })
}

/// The same as `Key: value` lines.
fn stanza(text: &str) -> Option<AptSource> {
    let field = |key: &str| {
        let value = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
        });
        value.filter(|value| !value.is_empty())
    };
    if field("Enabled").is_some_and(|value| value == "no")
        || !field("Types")?.split_whitespace().any(|kind| kind == "deb")
    {
        return None;
    }
    // A key inside the file itself is left to the tool, which looks for it there.
    let signed_by = field("Signed-By").filter(|path| path.starts_with('/')).map(|path| format!("signed-by={path}"));
    Some(AptSource {
        options: signed_by.unwrap_or_default(),
        uri: field("URIs")?.split_whitespace().next()?.to_owned(),
        suites: field("Suites")?.split_whitespace().map(str::to_owned).collect(),
        components: field("Components").unwrap_or_else(|| "main".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_sources_are_read_in_both_forms() {
        let (_guard, path) = crate::testing::scratch("apt");
        std::fs::create_dir_all(path.join("sources.list.d")).unwrap();
        std::fs::write(path.join("sources.list"), "# deb http://no no main\ndeb-src http://src x main\ndeb [trusted=yes] http://a/debian bookworm main contrib # c\n").unwrap();
        std::fs::write(
            path.join("sources.list.d/x.sources"),
            "Types: deb\nURIs: http://b/debian http://c\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /k.gpg\n\nTypes: deb\nEnabled: no\nURIs: http://d\nSuites: sid\n",
        )
        .unwrap();
        let sources = host_sources(&path);
        let lines: Vec<_> = sources.iter().map(|source| source.line(&source.suites[0])).collect();
        assert_eq!(
            lines,
            [
                "deb [trusted=yes] http://a/debian bookworm main contrib",
                "deb [signed-by=/k.gpg] http://b/debian trixie main"
            ]
        );
    }

    #[test]
    fn a_mirror_serves_its_own_distribution() {
        let source = |uri: &str, suites: &[&str]| AptSource {
            options: String::new(),
            uri: uri.into(),
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            components: "main".into(),
        };
        let sources = [
            source("http://s/debian-security", &["bookworm-security"]),
            source("http://d/debian", &["bookworm", "bookworm-updates"]),
            source("http://n/node", &["nodistro"]),
        ];
        let csv = |series: &str| format!("version,codename,series,created\n1,X,{series},2020\n");
        let families = [("debian", csv("bookworm") + "2,Y,trixie,2021\n"), ("ubuntu", csv("noble"))];
        let uri = |suite: &str, families: &[(&'static str, String)]| {
            host_mirror(suite, &sources, families).map(|source| source.uri)
        };
        assert_eq!(uri("bookworm", &families).as_deref(), Some("http://d/debian"));
        assert_eq!(uri("trixie", &families).as_deref(), Some("http://d/debian"));
        assert_eq!(uri("bookworm-security", &families).as_deref(), Some("http://s/debian-security"));
        assert_eq!(uri("noble", &families), None);
        // Where nobody tells what belongs to what, the host's own.
        assert_eq!(uri("trixie", &[]).as_deref(), Some("http://d/debian"));
    }

    #[test]
    fn an_option_in_the_place_of_a_package_is_refused() {
        let options = |packages: &[&str]| BuildOptions {
            suite: "bookworm".into(),
            packages: packages.iter().map(|p| (*p).to_owned()).collect(),
            variant: "minbase".into(),
            mirror: None,
            verbose: false,
            import: ImportOptions::default(),
        };
        check_words(&options(&["systemd-sysv", "g++", "libc6:amd64"])).unwrap();
        for bad in ["--hook=x", "a b", "", "$(x)"] {
            assert!(check_words(&options(&[bad])).is_err(), "{bad}");
        }
    }
}
