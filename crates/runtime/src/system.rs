//! System containers: what the rewrite of `offshoot_system` needs to know, and what comes of it.

use crate::bundle::Bundle;
use crate::error::of_store;
use crate::ranges::{Claim, Pool};
use crate::rootfs::{self, Look, Rootfs};
use crate::{Error, Kind, Result, Runtime};
use offshoot_plan::clean;
use offshoot_plan::{Plan, Problem, Request};
use offshoot_snapshot::IdRange;
use offshoot_spec::Spec;
use offshoot_sys::{libc, path};
use offshoot_system::{Facts, Init, Wanted};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A bundle that is to become a system container.
#[derive(Debug)]
pub(crate) struct System {
    /// With the rewritten configuration, which is also what is kept: `exec` has to find the container as it is.
    pub bundle: Bundle,
    /// The init that is pid 1, if the root filesystem could be looked at.
    pub init: Option<Init>,
    /// The first id of the container's own range; none if the caller brought a user namespace, and files whose owners
    /// are in it.
    pub first_id: Option<u32>,
}

impl System {
    /// What the caller asks for, and this.
    pub fn request(&self, request: Request) -> Request {
        let maps = self.first_id.is_some();
        let root = self.bundle.spec.root.as_ref().filter(|root| maps && !root.path.is_empty());
        let path = root.map(|root| clean(self.bundle.path.join(&root.path)));
        let root_mount = request.root_mount.or(path);
        let root_over_host = root_mount.is_some();
        Request {
            owned_by_mapped_root: true,
            map_volumes: maps,
            lock_mounts: maps,
            is_init: self.init.is_some(),
            root_mount,
            root_over_host,
            ..request
        }
    }

    /// The root filesystem with the container's ids, as a detached mount; none if they are right as they are.
    pub fn map_root(&self, plan: &Plan) -> Option<Result<OwnedFd>> {
        let map = plan.id_map.as_ref().filter(|_| self.first_id.is_some())?;
        let ranges = |list: &[(u32, u32, u32)]| -> Vec<IdRange> {
            list.iter().map(|&(inside, outside, count)| IdRange { inside, outside, count }).collect()
        };
        let mapped = offshoot_snapshot::IdMap::new(&ranges(&map.uids), &ranges(&map.gids))
            .and_then(|map| offshoot_snapshot::map_root(&plan.rootfs, &map));
        Some(mapped.map_err(|error| of_store(&error)))
    }
}

/// Whether a range of ids is taken for good, or only named for a look at the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take<'a> {
    /// For the container with this state directory.
    For(&'a Path),
    /// The next one, without taking it.
    Nothing,
}

impl Runtime {
    /// Whether a bundle is to be a system container: then the init that would be its pid 1, if it is one.
    pub(crate) fn asks_for_system(&self, bundle: &Bundle, look: Look) -> Result<Option<Option<Init>>> {
        let wanted = offshoot_system::wanted(&bundle.spec, &self.program);
        match wanted.map_err(|problem| Error::problems(&[problem]))? {
            Wanted::No => Ok(None),
            Wanted::Yes => Ok(Some(find_init(&bundle.spec, &bundle.path, look))),
            Wanted::IfInit => Ok(find_init(&bundle.spec, &bundle.path, look).map(Some)),
        }
    }

    /// Rewrites a bundle that asks to be a system container; none if it does not. The claim is to be kept when the state
    /// directory exists.
    ///
    /// # Errors
    /// The bundle asks for what cannot be, or no range of ids is free.
    pub(crate) fn system(&self, bundle: &Bundle, look: Look, take: Take) -> Result<(Option<System>, Option<Claim>)> {
        let refused = |problem: Problem| Error::problems(&[problem]);
        let Some(init) = self.asks_for_system(bundle, look)? else { return Ok((None, None)) };
        let (mut claim, mut first) = (None, None);
        if !offshoot_system::brings_user_namespace(&bundle.spec) {
            if self.is_rootless() {
                let text = "a system container needs a range of ids, which only the host's root can give (hint: inside a \
                            container use a configuration with a user namespace)";
                return Err(refused(Problem::new(format!("annotations.{}", offshoot_system::ANNOTATION), text)));
            }
            let of_host;
            let pool = match &self.common {
                Some(common) => &common.pool,
                None => {
                    of_host = Pool::of_host();
                    &of_host
                }
            };
            match take {
                Take::For(owner) => first = Some(claim.insert(pool.take(owner)?).first),
                Take::Nothing => first = Some(pool.next()?),
            }
        }
        let facts = match &self.common {
            Some(common) => Facts { init, ids: first, ..common.facts },
            None => facts(init, first),
        };
        let spec = offshoot_system::rewrite(&bundle.spec, &facts).map_err(|all| Error::problems(&all))?;
        let text = serde_json::to_vec(&spec)
            .map_err(|error| Error::new(Kind::System, format!("failed to write config.json: {error}")))?;
        let bundle = Bundle { path: bundle.path.clone(), spec, text };
        Ok((Some(System { bundle, init, first_id: first }), claim))
    }
}

/// Why it is neither dumped nor restored: its mounts are made before its user namespace, to be locked; CRIU would make them
/// within it.
pub(crate) fn not_by_criu(id: &str) -> Error {
    let message = format!("container {id} is a system container: CRIU can neither dump nor restore it");
    Error::new(Kind::Request, message)
        .with_hint(Some("offshoot machine snapshot keeps the files of a whole system".into()))
}

/// What the rewrite needs to know of this machine.
pub(crate) fn facts(init: Option<Init>, ids: Option<u32>) -> Facts {
    let exists = |path: &str| Path::new(path).exists();
    let capabilities = crate::host::bounding() & mask(crate::host::last_cap());
    Facts { init, ids, fuse: exists("/dev/fuse"), tun: exists("/dev/net/tun"), capabilities }
}

/// The capabilities up to `last`.
fn mask(last: u8) -> u64 {
    u64::MAX >> (63 - last.min(63))
}

/// The init that the configuration's program is, by a look into the root filesystem: into the image or clone where it is to
/// be cloned. What is wrong with these is for the plan to say.
fn find_init(spec: &Spec, bundle: &Path, look: Look) -> Option<Init> {
    if let Some(request) = rootfs::request(spec).ok()? {
        // Who is not root cannot look into the store.
        let clone = nix::unistd::geteuid().is_root().then(|| Rootfs::find(&request, look).ok()).flatten()?;
        return detect(spec, |path| clone.resolve(path));
    }
    let root = bundle.join(&spec.root.as_ref()?.path);
    let root = path::open(root, libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
    // The kernel tells where the links have led to, from the host's root.
    detect(spec, |file| path::readlinkat(None, path::fd_path(&open_in(root.as_fd(), file).ok()?)).ok())
}

/// The same by `resolve`, which tells where a path leads to in the root filesystem.
fn detect(spec: &Spec, resolve: impl Fn(&Path) -> Option<PathBuf>) -> Option<Init> {
    let process = spec.process.as_ref()?;
    let program = Path::new(process.args.first()?);
    let search = process.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let places: Vec<PathBuf> = match program.components().count() {
        1 if !program.is_absolute() => search.split(':').map(|dir| Path::new(dir).join(program)).collect(),
        _ => vec![program.to_owned()],
    };
    let found = places.iter().find_map(|place| resolve(place))?;
    Init::detect(program, &found, resolve(Path::new("/etc/inittab")).is_some())
}

/// Links and `..` stay inside: the tree may be anybody's.
fn open_in(root: BorrowedFd, file: &Path) -> offshoot_sys::Result<OwnedFd> {
    let rules = path::RESOLVE_IN_ROOT | path::RESOLVE_NO_MAGICLINKS;
    path::openat2(Some(root), file, libc::O_PATH, 0, rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn init_of(name: &str, program: &str, links: &[(&str, &str)], files: &[&str]) -> Option<Init> {
        let scratch = Scratch::new(name);
        let root = scratch.path();
        for dir in ["sbin", "usr/lib/systemd", "etc", "bin"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        files.iter().for_each(|file| fs::write(root.join(file), "").unwrap());
        links.iter().for_each(|(from, to)| symlink(to, root.join(from)).unwrap());
        let text = format!(r#"{{"process":{{"args":["{program}"],"env":["PATH=/bin:/sbin"]}},"root":{{"path":"."}}}}"#);
        let look = Look { id: name, store: None, closely: false, opened: None };
        find_init(&crate::bundle::parse(text.as_bytes()).unwrap(), root, look)
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let systemd = [("sbin/init", "/lib/systemd/systemd"), ("lib", "usr/lib")];
        assert_eq!(init_of("i1", "/sbin/init", &systemd, &["usr/lib/systemd/systemd"]), Some(Init::Systemd));
        assert_eq!(init_of("i2", "init", &systemd, &["usr/lib/systemd/systemd"]), Some(Init::Systemd));
        let busybox = [("sbin/init", "../../../../bin/busybox")];
        assert_eq!(init_of("i3", "/sbin/init", &busybox, &["bin/busybox"]), Some(Init::Busybox));
        assert_eq!(init_of("i4", "/sbin/init", &[("sbin/init", "/proc/1/exe")], &[]), None);
    }

    #[test]
    fn a_plain_init_is_sysvinit_if_it_has_an_inittab() {
        assert_eq!(init_of("i5", "/sbin/init", &[], &["sbin/init", "etc/inittab"]), Some(Init::Sysvinit));
        assert_eq!(init_of("i6", "/sbin/init", &[], &["sbin/init"]), None);
        assert_eq!(init_of("i7", "sh", &[("bin/sh", "busybox")], &["bin/busybox"]), None);
    }

    #[test]
    fn the_mask_of_all_capabilities() {
        assert_eq!(mask(40), 0x1ff_ffff_ffff);
        assert_eq!(mask(63), u64::MAX);
    }
}
