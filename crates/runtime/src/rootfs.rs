//! A root filesystem that a bundle names instead of holding it: by the annotation [`ANNOTATION`], `create` clones an image
//! and hands the engine a detached mount of the clone.
//!
//! What is to be cloned is decided before anything exists, and the clone's name is in the state before the clone is: so
//! `delete` finds it, wherever the runtime was killed. A container without the annotation meets none of this.

use crate::{Error, Kind, Result, Runtime, error};
use offshoot_engine::failpoint;
use offshoot_plan::clean;
use offshoot_plan::{Kind as Namespace, Plan, Problem};
use offshoot_snapshot::{Choice, CloneOptions, IdMap, IdRange, Image, Name, Request, Store};
use offshoot_spec::Spec;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

pub use offshoot_snapshot::ANNOTATION;

/// The clone of a container, as its state has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloneView {
    /// The directory of the store that it is in.
    pub store: PathBuf,
    /// Its name there.
    pub name: String,
    /// Whether it outlives the container.
    pub keep: bool,
}

/// Where the store is, and whether it is to be looked at closely: not by who only wants to see a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub id: &'a str,
    pub store: Option<&'a Path>,
    pub closely: bool,
    pub opened: Option<&'a Opened>,
}

/// The store that was opened last, for who makes many containers.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<Option<Arc<Store>>>);

impl Opened {
    fn get(&self, path: &Path) -> Option<Arc<Store>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|store| store.path() == path).cloned()
    }

    fn set(&self, store: &Arc<Store>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(store));
    }
}

/// A clone that a container is to have, or has already.
#[derive(Debug)]
pub(crate) struct Rootfs {
    store: Arc<Store>,
    source: Source,
    pub view: CloneView,
    /// Whether this process has made the clone.
    made: bool,
}

#[derive(Debug)]
enum Source {
    New(Image, CloneOptions),
    Kept,
}

/// What is wrong with the annotation, and what helps.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    messages: Vec<String>,
    pub hint: Option<String>,
}

impl Refusal {
    fn add(&mut self, error: &offshoot_snapshot::Error) {
        self.say(error.to_string(), error.hint());
    }

    fn say(&mut self, message: impl Into<String>, hint: Option<&str>) {
        self.messages.push(message.into());
        self.hint = self.hint.take().or(hint.map(str::to_owned));
    }

    /// As problems of a configuration.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        let place = format!("annotations[\"{ANNOTATION}\"]");
        self.messages.iter().map(move |message| Problem::new(&place, message))
    }

    /// As an error, for a caller who wrote no configuration.
    pub fn alone(self) -> Error {
        Error::new(Kind::Request, self.messages.join("; ")).with_hint(self.hint)
    }

    fn of(error: &offshoot_snapshot::Error) -> Refusal {
        let mut refusal = Refusal::default();
        refusal.add(error);
        refusal
    }

    fn new(message: impl Into<String>, hint: &str) -> Refusal {
        let mut refusal = Refusal::default();
        refusal.say(message, Some(hint));
        refusal
    }
}

/// What the annotation asks for, if it is there.
pub(crate) fn request(spec: &Spec) -> Result<Option<Request>, Refusal> {
    let Some(value) = spec.annotations.get(ANNOTATION) else { return Ok(None) };
    Request::parse(value).map(Some).map_err(|errors| {
        let mut refusal = Refusal::default();
        errors.iter().for_each(|error| refusal.add(error));
        refusal
    })
}

impl Rootfs {
    /// Finds the image, and the clone where an earlier container of the same name has left one.
    pub fn find(request: &Request, look: Look) -> Result<Rootfs, Refusal> {
        let store = open_store(look.store, &request.image, look.opened)?;
        let view = |name| CloneView { store: store.path().to_owned(), name, keep: request.keep };
        if request.keep {
            let kept = kept(&store, request, look.id)?;
            let source = match kept {
                true => Source::Kept,
                false => new(&store, request, look.closely)?,
            };
            let view = view(look.id.to_owned());
            return Ok(Rootfs { store, source, view, made: false });
        }
        let source = new(&store, request, look.closely)?;
        let view = view(temporary(look.id));
        Ok(Rootfs { store, source, view, made: false })
    }

    /// Where a path leads to in what will be the root filesystem.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        match &self.source {
            Source::New(image, _) => self.store.resolve_file(image, path).ok()?,
            Source::Kept => self.store.find_clone(&self.view.name).ok()?.resolve_file(path).ok()?,
        }
    }

    /// What will happen, for people.
    pub fn steps(&self) -> Vec<String> {
        let clone = match &self.source {
            Source::New(image, options) => {
                let end = if options.keep { "kept" } else { "removed by delete" };
                format!("clone the image {} (driver {}, {end})", image.shown(), options.driver)
            }
            Source::Kept => format!("take the kept clone {}", self.view.name),
        };
        vec![clone, "mount the clone, with the container's ids".to_owned()]
    }

    /// Makes the clone, unless it is there already, and mounts it for the container's ids.
    pub fn mount(&mut self, plan: &Plan) -> Result<OwnedFd> {
        let ids = self.ids(plan)?;
        stage(0)?;
        let clone = match &self.source {
            Source::New(image, options) => {
                let clone = self.store.clone_for(image, &self.view.name, options).map_err(told)?;
                self.made = true;
                clone
            }
            Source::Kept => self.store.find_clone(&self.view.name).map_err(told)?,
        };
        stage(1)?;
        let mount = clone.mount(ids.as_ref()).map_err(told)?;
        stage(2)?;
        Ok(mount)
    }

    /// The map of the container's user namespace; none where ids are the host's.
    fn ids(&self, plan: &Plan) -> Result<Option<IdMap>> {
        let joined = plan.namespaces.joined.iter().find(|(kind, _)| *kind == Namespace::User);
        if let Some((_, path)) = joined {
            let failed =
                |error: &io::Error| Error::io(format_args!("open the user namespace {}", path.display()), error);
            let file = fs::File::open(path).map_err(|error| failed(&error))?;
            let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
            let own = fs::metadata("/proc/self/ns/user").map(id).map_err(|error| failed(&error))?;
            if file.metadata().map(id).map_err(|error| failed(&error))? == own {
                return Ok(None);
            }
            return IdMap::of_existing(file.into(), &self.store).map(Some).map_err(told);
        }
        let Some(map) = &plan.id_map else { return Ok(None) };
        if map.uids.iter().chain(&map.gids).all(|(inside, outside, _)| inside == outside) {
            return Ok(None);
        }
        let ranges = |list: &[(u32, u32, u32)]| -> Vec<IdRange> {
            list.iter().map(|&(inside, outside, count)| IdRange { inside, outside, count }).collect()
        };
        IdMap::new(&ranges(&map.uids), &ranges(&map.gids)).map(Some).map_err(told)
    }

    /// Takes back a kept clone that this process has made, of a container that could not be made. One that is not kept
    /// goes with the container.
    pub fn undo(self) -> Result<()> {
        match self.made && self.view.keep {
            true => self.store.delete_clones(&[self.view.name]).map_err(told),
            false => Ok(()),
        }
    }
}

/// The store to clone from, for those who can.
pub(crate) fn open_store(path: Option<&Path>, image: &str, opened: Option<&Opened>) -> Result<Arc<Store>, Refusal> {
    if !nix::unistd::geteuid().is_root() {
        let hint = "unshare --user --map-auto --map-root-user --mount gives a shell in one, with a store of the user's";
        return Err(Refusal::new("a clone is mounted by root, or by root of a user namespace", hint));
    }
    let path = path.map_or_else(Store::default_path, Path::to_owned);
    // The state names it, and is read from other working directories.
    let path = std::path::absolute(&path).unwrap_or(path);
    if let Some(store) = opened.and_then(|opened| opened.get(&path)) {
        return Ok(store);
    }
    let store = Store::find(&path).map_err(|error| Refusal::of(&error))?.map(Arc::new);
    if let (Some(opened), Some(store)) = (opened, &store) {
        opened.set(store);
    }
    store.ok_or_else(|| {
        let message = format!("there is no image {image:?}, nor a store in {}", path.display());
        Refusal::new(message, "offshoot image import makes an image; --store or $OFFSHOOT_STORE names a store")
    })
}

/// Whether an earlier container of that name has left a clone of the image.
fn kept(store: &Store, request: &Request, id: &str) -> Result<bool, Refusal> {
    let clone = match store.find_clone(id) {
        Err(error) if error.kind() == offshoot_snapshot::Kind::NotFound => return Ok(false),
        result => result.map_err(|error| Refusal::of(&error))?,
    };
    let same_name = Name::parse(&request.image).is_ok_and(|name| name.as_str() == clone.image_name());
    // A name may stand for a newer image by now; the clone stays what it is.
    if same_name || store.image(&request.image).is_ok_and(|image| image.id() == clone.image()) {
        if let Choice::Fixed(driver) = request.driver
            && driver != clone.driver()
        {
            let message = format!("the kept clone {id} is by driver {}, not {driver}", clone.driver());
            return Err(Refusal::new(message, &format!("offshoot clone rm {id} removes it, with all that is in it")));
        }
        return Ok(true);
    }
    let message = format!("the kept clone {id} is of image {}, not {}", clone.image_name(), request.image);
    Err(Refusal::new(message, &format!("offshoot clone rm {id} removes it, with all that is in it")))
}

fn new(store: &Store, request: &Request, closely: bool) -> Result<Source, Refusal> {
    let image = store.image(&request.image).map_err(|error| Refusal::of(&error))?;
    let mut options = CloneOptions { driver: request.driver, keep: request.keep, size: request.size };
    if closely {
        let driver = store.choose(&options).map_err(|error| Refusal::of(&error))?;
        options.driver = Choice::Fixed(driver);
    }
    Ok(Source::New(image, options))
}

/// A name that no other clone has: a container of another root directory may have the same id.
fn temporary(id: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let id: String = id.chars().take(60).collect();
    let id = if id.starts_with(['.', '-']) { format!("_{}", &id[1..]) } else { id };
    format!("{id}.{now:x}.{:x}", std::process::id())
}

impl CloneView {
    /// What becomes of the clone when its container goes.
    pub fn end(&self) -> Result<()> {
        let Some(store) = Store::find(&self.store).map_err(told)? else { return Ok(()) };
        match store.find_clone(&self.name) {
            Ok(clone) if self.keep => clone.release().map_err(told),
            Ok(clone) => clone.delete().map_err(told),
            Err(error) if error.kind() != offshoot_snapshot::Kind::NotFound && self.keep => Err(told(error)),
            Err(_) if self.keep => Ok(()),
            // Not finished when the runtime was killed, or not quite gone.
            Err(_) => {
                store.delete_clones(std::slice::from_ref(&self.name)).map_err(told)?;
                store.sweep().map(drop).map_err(told)
            }
        }
    }
}

impl Runtime {
    /// Where the root filesystem of a container goes that has a clone: the directory that the configuration names, as hooks
    /// look there, or one beside the root directory, which root of any user namespace can reach. It is covered in the
    /// container's own mount namespace only, so all containers have the same.
    pub(crate) fn mount_point(&self, spec: &Spec, bundle: &Path) -> PathBuf {
        let named = spec.root.as_ref().filter(|root| !root.path.is_empty() && !root.path.contains('\0'));
        let named = named.map(|root| clean(bundle.join(&root.path)));
        named.filter(|path| path.is_dir()).unwrap_or_else(|| self.own_mount_point())
    }

    fn own_mount_point(&self) -> PathBuf {
        let mut name = self.root.file_name().unwrap_or_default().to_owned();
        name.push(".mnt");
        self.root.with_file_name(name)
    }

    /// Makes the mount point, where it is our own.
    pub(crate) fn make_mount_point(&self, rootfs: &Path) -> Result<()> {
        if rootfs != self.own_mount_point() {
            return Ok(());
        }
        let failed = |error: io::Error| Error::io(format_args!("make {}", rootfs.display()), &error);
        match fs::create_dir(rootfs) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| fs::set_permissions(rootfs, Permissions::from_mode(0o755))).map_err(failed),
        }
    }
}

/// A place where tests make it fail.
fn stage(index: usize) -> Result<()> {
    failpoint::check("clone", index).map_err(|error| Error::new(Kind::System, error.to_string()))
}

/// The store's error as the library's.
fn told(error: offshoot_snapshot::Error) -> Error {
    error::of_store(&error)
}
