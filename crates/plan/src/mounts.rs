//! `mounts[]`: every option parsed, every kind of mount decided. spec: config.md#mounts, config-linux.md

use crate::attr::{self, Attributes};
use crate::idmap::{self, IdMap};
use crate::namespaces::{Kind, Namespaces};
use crate::problem::Report;
use offshoot_spec::{Mount as SpecMount, Spec};
use std::path::{Path, PathBuf};

/// One mount, decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// Its place in `mounts[]`, for messages.
    pub index: usize,
    /// Path in the container, as given, with a leading slash.
    pub destination: PathBuf,
    /// What is mounted.
    pub what: What,
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of the mount and all below it.
    pub recursive: Attributes,
    /// `MS_SHARED` and so on, with `MS_REC` where asked; applied one after the other.
    pub propagation: Vec<u64>,
    /// Made read-only only when the container's root is complete.
    pub late_readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An existing file or directory.
    Bind(Bind),
    /// A new instance of a file system.
    New(New),
    /// The container's cgroups, in the form of the host's hierarchies.
    Cgroup {
        /// Whether the container may write (the mount has no `ro`).
        writable: bool,
    },
    /// A change of a mount that is there.
    Remount,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    /// Absolute host path.
    pub source: PathBuf,
    /// With what is mounted below it.
    pub recursive: bool,
    /// Ids shifted on the way.
    pub idmap: Option<Shift>,
    /// Whether the map applies to what is mounted below, too.
    pub idmap_recursive: bool,
    /// Whether a source whose file system knows no id-mapped mounts is bound as it is.
    pub idmap_or_plain: bool,
    /// Index in [`crate::Plan::sources`] if the caller opens the source before the container's namespaces exist.
    pub opened: Option<usize>,
}

/// How ids are shifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shift {
    /// By a map.
    Map(IdMap),
    /// By the user namespace that the container joins.
    Joined,
}

/// A new instance of a file system.
#[derive(Clone, Debug, PartialEq)]
pub struct New {
    /// Type.
    pub kind: String,
    /// Source, as given.
    pub source: String,
    /// File system parameters, `key` or `key=value`, in order; superblock flags and an SELinux context are among them.
    pub data: Vec<String>,
    /// Copy what the directory held into the new tmpfs first.
    pub copy_up: bool,
}

/// Flags of mount(2) that stand for propagation, man 2 mount.
pub mod propagation {
    #![allow(missing_docs)]
    pub const PRIVATE: u64 = 1 << 18;
    pub const SHARED: u64 = 1 << 20;
    pub const SLAVE: u64 = 1 << 19;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const REC: u64 = 1 << 14;

    /// By the option's name.
    pub fn from_name(name: &str) -> Option<u64> {
        let (name, rec) = match name.strip_prefix('r') {
            Some(rest) => (rest, REC),
            None => (name, 0),
        };
        let kind = match name {
            "private" => PRIVATE,
            "shared" => SHARED,
            "slave" => SLAVE,
            "unbindable" => UNBINDABLE,
            _ => return None,
        };
        Some(kind | rec)
    }
}

/// All options that `features` announces, sorted.
pub const OPTIONS: [&str; 64] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
    "idmap",
    "ridmap",
    "nosymlinkfollow",
    "symlinkfollow",
];

#[derive(Default)]
struct Options {
    attributes: Attributes,
    recursive: Attributes,
    propagation: Vec<u64>,
    data: Vec<String>,
    superblock: Vec<String>,
    bind: Option<bool>,
    remount: bool,
    copy_up: bool,
    idmap: Option<bool>,
}

/// One word for mount attributes, as in mount(8). `naive` is the way of mount(2): a word that takes a kind of atime
/// back leaves what is in force, while mount_setattr(2) makes it the kernel's default.
fn attribute(word: &str, to: &mut Attributes, naive: bool) -> bool {
    match word {
        "ro" => to.put(attr::RDONLY, true),
        "rw" => to.put(attr::RDONLY, false),
        "nosuid" => to.put(attr::NOSUID, true),
        "suid" => to.put(attr::NOSUID, false),
        "nodev" => to.put(attr::NODEV, true),
        "dev" => to.put(attr::NODEV, false),
        "noexec" => to.put(attr::NOEXEC, true),
        "exec" => to.put(attr::NOEXEC, false),
        "nosymfollow" => to.put(attr::NOSYMFOLLOW, true),
        "symfollow" => to.put(attr::NOSYMFOLLOW, false),
        "nodiratime" => to.put(attr::NODIRATIME, true),
        "diratime" if naive => to.set &= !attr::NODIRATIME,
        "diratime" => to.put(attr::NODIRATIME, false),
        "noatime" => to.atime(attr::NOATIME),
        "strictatime" => to.atime(attr::STRICTATIME),
        "atime" if naive => to.forget_atime(attr::NOATIME),
        "nostrictatime" if naive => to.forget_atime(attr::STRICTATIME),
        "norelatime" if naive => to.forget_atime(0),
        // Clearing one kind leaves the kernel's default, relatime.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => to.atime(0),
        _ => return false,
    }
    true
}

fn parse_options(options: &[String]) -> Options {
    let mut all = Options::default();
    for option in options {
        let word = option.as_str();
        if attribute(word, &mut all.attributes, true)
            || word.strip_prefix('r').is_some_and(|rest| attribute(rest, &mut all.recursive, false))
        {
            continue;
        }
        if let Some(flags) = propagation::from_name(word) {
            all.propagation.push(flags);
            continue;
        }
        match word {
            "bind" => all.bind = all.bind.or(Some(false)),
            "rbind" => all.bind = Some(true),
            "remount" => all.remount = true,
            "tmpcopyup" => all.copy_up = true,
            "idmap" => all.idmap = all.idmap.or(Some(false)),
            "ridmap" => all.idmap = Some(true),
            "sync" | "dirsync" | "mand" | "lazytime" => all.superblock.push(option.clone()),
            // The kernel's defaults, or flags without an effect since Linux 5.6 (silent, iversion).
            "defaults" | "async" | "nomand" | "nolazytime" | "silent" | "loud" | "iversion" | "noiversion" | "" => {}
            _ => all.data.extend(split_data(word)),
        }
    }
    all
}

/// File system data may arrive as one word with commas; a comma inside quotes belongs to an SELinux context.
fn split_data(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in word.chars() {
        quoted ^= c == '"';
        if c == ',' && !quoted { parts.push(String::new()) } else { parts.last_mut().unwrap().push(c) }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Decides all mounts: those of the configuration, then `extra`. `sources` collects what the caller must open itself.
#[allow(clippy::too_many_arguments)] // All of them are what a mount depends on.
pub fn plan(
    spec: &Spec,
    extra: &[SpecMount],
    bundle: &Path,
    rootfs: &Path,
    ns: &Namespaces,
    privileged: bool,
    volumes: Option<&IdMap>,
    label: &str,
    sources: &mut Vec<Bind>,
    report: &mut Report,
) -> Vec<Mount> {
    let planner = Planner { spec, bundle, rootfs, ns, privileged, volumes, label };
    let nothing = spec.mounts.is_empty() && extra.is_empty();
    if !nothing && !ns.has(Kind::Mount) {
        match ns.has(Kind::User) {
            true => report.problem("mounts", "a container with a user namespace may only mount in a mount namespace"),
            false => report.warn("mounts are made on the host until `delete`: the container has no mount namespace"),
        }
    }
    let mounts = spec.mounts.iter().chain(extra).enumerate();
    mounts.filter_map(|(i, mount)| planner.mount(i, mount, sources, report)).collect()
}

struct Planner<'a> {
    spec: &'a Spec,
    bundle: &'a Path,
    rootfs: &'a Path,
    ns: &'a Namespaces,
    /// Whether the caller may clone the host's mounts itself.
    privileged: bool,
    /// The map of bind mounts that bring none.
    volumes: Option<&'a IdMap>,
    /// The option that labels a new file system; may be empty.
    label: &'a str,
}

impl Planner<'_> {
    fn mount(&self, i: usize, mount: &SpecMount, sources: &mut Vec<Bind>, report: &mut Report) -> Option<Mount> {
        let path = format!("mounts[{i}]");
        if mount.destination.is_empty() {
            report.problem(format!("{path}.destination"), "must not be empty");
            return None;
        }
        if [&mount.destination, &mount.source, &mount.kind].iter().any(|text| text.contains('\0')) {
            report.problem(path, "contains a NUL byte");
            return None;
        }
        let mut destination = PathBuf::from(&mount.destination);
        if !destination.is_absolute() {
            report.warn(format!(
                "mount destination {:?} is not absolute: the specification requires it, and later versions may refuse it",
                mount.destination
            ));
            destination = Path::new("/").join(destination);
        }
        // Some callers name the place on the host; runc takes both.
        if let Ok(inside) = destination.strip_prefix(self.rootfs) {
            destination = Path::new("/").join(inside);
        }
        let mut options = parse_options(&mount.options);
        let what = self.what(&path, mount, &mut options, sources, report)?;
        // tmpfs and what /dev is made of must be filled before they become read-only.
        let fill_first = mount.kind == "tmpfs" && matches!(what, What::New(_)) || is_dev(&destination);
        let late_readonly = fill_first && options.attributes.set & attr::RDONLY != 0;
        if late_readonly {
            options.attributes.set &= !attr::RDONLY;
        }
        let (attributes, recursive) = (options.attributes, options.recursive);
        Some(Mount {
            index: i,
            destination,
            what,
            attributes,
            recursive,
            propagation: options.propagation,
            late_readonly,
        })
    }

    fn what(
        &self,
        path: &str,
        mount: &SpecMount,
        options: &mut Options,
        sources: &mut Vec<Bind>,
        report: &mut Report,
    ) -> Option<What> {
        let has_maps = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if options.bind.is_none() && mount.kind != "bind" {
            if has_maps || options.idmap.is_some() {
                report.problem(path, "id-mapped mounts are only supported for bind-mounts");
            }
            if options.remount {
                return Some(What::Remount);
            }
            return self.new_file_system(path, mount, options, report);
        }
        if options.remount {
            return Some(What::Remount);
        }
        refuse_data(path, &options.data, report);
        let recursive = options.bind.unwrap_or(false);
        let asked = self.idmap(path, mount, options, report);
        let ours = self.volumes.filter(|_| self.privileged && !has_maps && options.idmap.is_none());
        let mut bind = Bind {
            source: self.bundle.join(&mount.source),
            recursive,
            idmap: asked.or_else(|| ours.map(|map| Shift::Map(map.clone()))),
            idmap_recursive: options.idmap.unwrap_or(ours.is_some() && recursive),
            idmap_or_plain: ours.is_some(),
            opened: None,
        };
        // A source below the rootfs must be looked up when earlier mounts are in place, so the container opens
        // it. Another one is opened by the caller where the container's root may lack the right to reach it.
        let early = (self.ns.has(Kind::User) || bind.idmap.is_some()) && !bind.source.starts_with(self.rootfs);
        if early && self.privileged {
            bind.opened = Some(sources.len());
            sources.push(bind.clone());
        }
        Some(What::Bind(bind))
    }

    fn idmap(&self, path: &str, mount: &SpecMount, options: &Options, report: &mut Report) -> Option<Shift> {
        let given = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if !given && options.idmap.is_none() {
            return None;
        }
        if !self.privileged {
            report.problem(path, "id-mapped mounts are not supported for rootless containers");
            return None;
        }
        if given {
            if mount.uid_mappings.is_empty() || mount.gid_mappings.is_empty() {
                report.problem(path, "id-mapped mounts need both uidMappings and gidMappings");
                return None;
            }
            return Some(Shift::Map(idmap::read(&mount.uid_mappings, &mount.gid_mappings, path, report)));
        }
        if self.ns.joins(Kind::User) {
            return Some(Shift::Joined);
        }
        let linux = self.spec.linux.as_ref()?;
        if linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty() {
            report.problem(path, "the idmap option without mappings of its own needs those of a user namespace");
            return None;
        }
        Some(Shift::Map(idmap::read(&linux.uid_mappings, &linux.gid_mappings, path, report)))
    }

    fn new_file_system(
        &self,
        path: &str,
        mount: &SpecMount,
        options: &mut Options,
        report: &mut Report,
    ) -> Option<What> {
        if mount.kind.is_empty() {
            report.problem(format!("{path}.type"), "must not be empty unless the options contain bind or rbind");
            return None;
        }
        if mount.kind == "cgroup" {
            return Some(What::Cgroup { writable: options.attributes.set & attr::RDONLY == 0 });
        }
        if options.copy_up && mount.kind != "tmpfs" {
            report.problem(format!("{path}.options"), "tmpcopyup is only allowed for tmpfs");
        }
        // /dev/mqueue, proc and sysfs have one superblock a namespace, which takes no context.
        let labelled = !matches!(mount.kind.as_str(), "proc" | "sysfs" | "mqueue" | "cgroup2");
        let mut data = std::mem::take(&mut options.superblock);
        data.append(&mut options.data);
        data.extend((labelled && !self.label.is_empty()).then(|| self.label.to_owned()));
        // A block device that cannot be written needs a read-only superblock; virtual file systems take none.
        if options.attributes.set & attr::RDONLY != 0 && mount.source.starts_with('/') {
            data.insert(0, "ro".into());
        }
        Some(What::New(New { kind: mount.kind.clone(), source: mount.source.clone(), data, copy_up: options.copy_up }))
    }
}

/// Parameters of a file system mean nothing to a bind mount, and mount(8), which the specification says to follow, passes over
/// them. A word without a value is none that one would give to a bind mount: most likely a misspelt flag, which protects nothing.
fn refuse_data(path: &str, data: &[String], report: &mut Report) {
    let (parameters, words): (Vec<&str>, Vec<&str>) =
        data.iter().map(String::as_str).partition(|word| word.contains('='));
    if !words.is_empty() {
        let text = "bind mounts cannot have any filesystem-specific options applied";
        report.problem(format!("{path}.options"), format!("{text}: {}", words.join(",")));
    } else if !parameters.is_empty() {
        report.warn(format!("{path}.options: a bind mount ignores options of file systems: {}", parameters.join(",")));
    }
}

/// Whether a destination is `/dev` itself.
pub fn is_dev(destination: &Path) -> bool {
    destination.components().eq(Path::new("/dev").components())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Options {
        parse_options(&options.split(' ').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_announced_option_is_an_option_and_not_data() {
        for option in OPTIONS.iter().filter(|option| !option.contains("symlinkfollow")) {
            assert_eq!(parse(option).data, Vec::<String>::new(), "{option}");
        }
    }

    #[test]
    fn the_last_word_wins() {
        let options = parse("ro rw nosuid noatime strictatime");
        assert_eq!(options.attributes.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(options.attributes.clear, attr::RDONLY | attr::ATIME);
    }

    #[test]
    fn recursive_words_are_apart() {
        let options = parse("rbind rro rnosuid rnoatime");
        assert_eq!(options.recursive.set, attr::RDONLY | attr::NOSUID | attr::NOATIME);
        assert!(options.attributes.is_empty() && options.bind == Some(true));
    }

    #[test]
    fn commas_in_quotes_stay() {
        let data = parse("mode=755,size=64k context=\"u:r:t:s0:c1,c2\"").data;
        assert_eq!(data, ["mode=755", "size=64k", "context=\"u:r:t:s0:c1,c2\""]);
    }
}
