//! Which namespaces are made or joined, and by how many processes.
//!
//! In the common case one clone makes everything. A second process (the launcher) is needed where entering a
//! namespace takes effect for children only (pid, time), or where something must happen between two entries.

use crate::problem::Report;
use crate::step::{Step, Sync};
use offshoot_spec::Linux;
use std::path::PathBuf;

/// A kind of namespace; the order is that of joining, spec-map: ipc, uts, net, pid, mount, cgroup, time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Ipc,
    Uts,
    Network,
    Pid,
    Mount,
    Cgroup,
    Time,
    User,
}

impl Kind {
    /// All kinds, in the order of joining; the user namespace has its own place.
    pub const ALL: [Kind; 8] =
        [Kind::Ipc, Kind::Uts, Kind::Network, Kind::Pid, Kind::Mount, Kind::Cgroup, Kind::Time, Kind::User];

    /// By the specification's name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The specification's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Network => "network",
            Kind::Pid => "pid",
            Kind::Mount => "mount",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
            Kind::User => "user",
        }
    }

    /// The file in `/proc/PID/ns`.
    pub fn file(self) -> &'static str {
        match self {
            Kind::Network => "net",
            Kind::Mount => "mnt",
            other => other.name(),
        }
    }

    /// The key of runc's `namespace_paths`.
    pub fn runc_key(self) -> &'static str {
        match self {
            Kind::Ipc => "NEWIPC",
            Kind::Uts => "NEWUTS",
            Kind::Network => "NEWNET",
            Kind::Pid => "NEWPID",
            Kind::Mount => "NEWNS",
            Kind::Cgroup => "NEWCGROUP",
            Kind::Time => "NEWTIME",
            Kind::User => "NEWUSER",
        }
    }

    /// The `CLONE_NEW…` bit.
    pub fn flag(self) -> u64 {
        match self {
            Kind::Ipc => 0x0800_0000,
            Kind::Uts => 0x0400_0000,
            Kind::Network => 0x4000_0000,
            Kind::Pid => 0x2000_0000,
            Kind::Mount => 0x0002_0000,
            Kind::Cgroup => 0x0200_0000,
            Kind::Time => 0x0000_0080,
            Kind::User => 0x1000_0000,
        }
    }
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Made for this container.
    pub new: Vec<Kind>,
    /// Joined by path.
    pub joined: Vec<(Kind, PathBuf)>,
}

impl Namespaces {
    /// Reads `linux.namespaces`.
    pub fn read(linux: &Linux, report: &mut Report) -> Namespaces {
        let mut namespaces = Namespaces::default();
        for (i, entry) in linux.namespaces.iter().enumerate() {
            let path = format!("linux.namespaces[{i}]");
            let Some(kind) = Kind::from_name(&entry.kind) else {
                report.problem(format!("{path}.type"), format!("namespace {:?} does not exist", entry.kind));
                continue;
            };
            if namespaces.has(kind) {
                report.problem(path, format!("malformed spec file: duplicated ns {:?}", entry.kind));
            } else if entry.path.is_empty() {
                namespaces.new.push(kind);
            } else if !entry.path.starts_with('/') {
                report.problem(format!("{path}.path"), format!("{:?} is not an absolute path", entry.path));
            } else {
                namespaces.joined.push((kind, PathBuf::from(&entry.path)));
            }
        }
        namespaces.new.sort();
        namespaces.joined.sort();
        namespaces
    }

    /// Whether a namespace of this kind is made.
    pub fn makes(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Whether a namespace of this kind is joined.
    pub fn joins(&self, kind: Kind) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container does not share the caller's namespace of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    fn flags(&self, except: &[Kind]) -> u64 {
        // The cgroup namespace is made last: its root is the cgroup its maker is in.
        self.new.iter().filter(|kind| **kind != Kind::Cgroup && !except.contains(kind)).map(|kind| kind.flag()).sum()
    }
}

/// How the processes come to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// What the launcher does before it clones init; none if the caller clones init itself.
    pub launcher: Option<Vec<Step>>,
    /// Flags of the clone that makes init.
    pub clone_flags: u64,
    /// init's first steps.
    pub init: Vec<Step>,
}

/// Decides [`Entry`]. `owner`: the host's user and group who are to own a new user namespace, if not the caller.
pub fn entry(ns: &Namespaces, time_offsets: bool, owner: Option<(u32, u32)>) -> Entry {
    let new_user = ns.makes(Kind::User);
    let joins_user = ns.joins(Kind::User);
    let offsets = time_offsets && ns.makes(Kind::Time);
    let owner = owner.filter(|_| new_user);
    // The launcher takes the owner's ids, which the caller must not: it has more to do than this.
    let launch = owner.is_some()
        || ns.joins(Kind::Pid)
        || ns.joins(Kind::Time)
        || offsets
        || new_user && !ns.joined.is_empty()
        || joins_user && (ns.makes(Kind::Pid) || ns.makes(Kind::Time));
    // The CPUs that the caller was bound to are not the container's; its cpuset, if any, is in force by then.
    let mut first = vec![Step::JoinCgroups, Step::Sync(Sync::Attached), Step::Affinity(None)];
    if !launch {
        // New namespaces belong to the user namespace that is in force when they are made.
        let clone_flags = if joins_user { 0 } else { ns.flags(&[]) };
        if new_user {
            first.push(Step::BecomeRoot);
        }
        joins(ns, &mut first);
        if joins_user && ns.flags(&[]) != 0 {
            first.push(Step::Unshare(ns.flags(&[])));
        }
        unshare_cgroup(ns, &mut first);
        return Entry { launcher: None, clone_flags, init: first };
    }
    joins(ns, &mut first);
    first.extend(owner.map(|(uid, gid)| Step::Owner { uid, gid }));
    let mut init = Vec::new();
    let mut clone_flags = ns.flags(&[]);
    if offsets {
        if new_user {
            first.extend([Step::Unshare(Kind::User.flag()), Step::Sync(Sync::Mapped), Step::BecomeRoot]);
        }
        first.extend([Step::Unshare(Kind::Time.flag()), Step::Sync(Sync::TimeOffsets)]);
        clone_flags = ns.flags(&[Kind::User, Kind::Time]);
    } else if new_user {
        init.extend([Step::Sync(Sync::Mapped), Step::BecomeRoot]);
    }
    unshare_cgroup(ns, &mut init);
    Entry { launcher: Some(first), clone_flags, init }
}

fn joins(ns: &Namespaces, steps: &mut Vec<Step>) {
    if ns.joined.is_empty() {
        return;
    }
    // One step: the kernel's order of privileges needs three passes over the list (see engine).
    steps.push(Step::Join(ns.joined.iter().map(|(kind, _)| *kind).collect()));
    if ns.joins(Kind::User) {
        steps.push(Step::BecomeRoot);
    }
}

fn unshare_cgroup(ns: &Namespaces, steps: &mut Vec<Step>) {
    if ns.makes(Kind::Cgroup) {
        steps.push(Step::Unshare(Kind::Cgroup.flag()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(mut check: impl FnMut(&Namespaces, bool, &Entry)) {
        // Every kind absent, new or joined: 3^8 combinations, with and without time offsets, and an owner.
        for code in 0..3u32.pow(8) {
            let mut ns = Namespaces::default();
            for (i, kind) in Kind::ALL.into_iter().enumerate() {
                match code / 3u32.pow(i as u32) % 3 {
                    1 => ns.new.push(kind),
                    2 => ns.joined.push((kind, PathBuf::from("/x"))),
                    _ => {}
                }
            }
            for offsets in [false, true] {
                for owner in [None, Some((9, 9))] {
                    check(&ns, offsets, &entry(&ns, offsets, owner));
                }
            }
        }
    }

    fn all(entry: &Entry) -> Vec<Step> {
        entry.launcher.iter().flatten().chain(&entry.init).cloned().collect()
    }

    #[test]
    fn every_new_namespace_is_made_exactly_once() {
        each(|ns, _, entry| {
            let mut made = entry.clone_flags;
            for step in all(entry) {
                if let Step::Unshare(flags) = step {
                    assert_eq!(made & flags, 0, "{ns:?}");
                    made |= flags;
                }
            }
            assert_eq!(made, ns.new.iter().map(|kind| kind.flag()).sum::<u64>(), "{ns:?}");
        });
    }

    #[test]
    fn pid_and_time_are_entered_by_a_child() {
        each(|ns, offsets, entry| {
            let children_only = ns.joins(Kind::Pid) || ns.joins(Kind::Time) || offsets && ns.makes(Kind::Time);
            assert!(!children_only || entry.launcher.is_some(), "{ns:?}");
            // Nothing after init's own clone may unshare a pid or time namespace: it would not be in it.
            for step in &entry.init {
                if let Step::Unshare(flags) = step {
                    assert_eq!(flags & (Kind::Pid.flag() | Kind::Time.flag()), 0, "{ns:?}");
                }
            }
        });
    }

    #[test]
    fn joins_come_before_a_new_user_namespace_takes_the_right_to_join() {
        each(|ns, _, entry| {
            let user = Kind::User.flag();
            let mut have_user = entry.launcher.is_none() && entry.clone_flags & user != 0;
            for step in all(entry) {
                match step {
                    Step::Join(_) => assert!(!have_user, "{ns:?}"),
                    Step::Unshare(flags) => have_user |= flags & user != 0,
                    _ => {}
                }
            }
        });
    }

    #[test]
    fn a_new_user_namespace_is_mapped_before_root_is_taken() {
        each(|ns, _, entry| {
            let steps = all(entry);
            let root = steps.iter().position(|step| *step == Step::BecomeRoot);
            assert_eq!(root.is_some(), ns.has(Kind::User), "{ns:?}");
            if ns.makes(Kind::User) && entry.launcher.is_some() {
                let mapped = steps.iter().position(|step| *step == Step::Sync(Sync::Mapped)).unwrap();
                assert!(mapped < root.unwrap(), "{ns:?}");
            }
        });
    }

    #[test]
    fn the_usual_container_takes_one_clone() {
        let ns = Namespaces {
            new: vec![Kind::Ipc, Kind::Uts, Kind::Network, Kind::Pid, Kind::Mount, Kind::Cgroup],
            joined: vec![],
        };
        assert_eq!(entry(&ns, false, None).launcher, None);
        assert_eq!(entry(&ns, false, Some((9, 9))).launcher, None, "there is no user namespace to own");
    }

    #[test]
    fn the_owner_makes_the_user_namespace_after_all_that_takes_the_host_s_rights() {
        each(|ns, _, entry| {
            let Some(launcher) = &entry.launcher else { return };
            let Some(at) = launcher.iter().position(|step| matches!(step, Step::Owner { .. })) else { return };
            assert!(ns.makes(Kind::User), "{ns:?}");
            assert!(launcher[..at].iter().all(|step| !matches!(step, Step::Unshare(_))), "{ns:?}");
            assert!(launcher[at..].iter().all(|step| !matches!(step, Step::Join(_))), "{ns:?}");
        });
        let ns = Namespaces { new: vec![Kind::User], joined: vec![] };
        let owned = entry(&ns, false, Some((9, 8)));
        assert!(owned.launcher.unwrap().contains(&Step::Owner { uid: 9, gid: 8 }));
    }
}
