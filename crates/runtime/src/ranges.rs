//! Exclusive ranges of ids: each system container has one that nobody else has, so that its root is nobody to the host
//! and to all other containers.
//!
//! A range is taken by making a file, named after it, in one directory for all `--root`s, under the lock of that directory.
//! The file says whose state directory the range belongs to. It is locked until that exists, and is taken back when it is
//! gone, whoever died when: by `delete`, or by the next who finds no other range free.

use crate::{Error, Kind, Result};
use offshoot_engine::failpoint;
use offshoot_sys::libc::{LOCK_EX, LOCK_NB};
use offshoot_sys::{path, process};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// On a tmpfs: after a reboot there are no containers.
const DIR: &str = "/run/offshoot-ids";

/// In `/etc/subuid` and `/etc/subgid`.
const USER: &str = "offshoot";

/// Without an entry there: what systemd's table of ids leaves unused, 4094 ranges (systemd, UIDS-GIDS).
const DEFAULT: (u32, u32) = (0x7000_0000, 0x7ffe_0000);

/// Every range has as many, and begins at a multiple of it from the start of the pool.
const IDS: u32 = offshoot_system::IDS;

/// How many ranges whoever starts many containers takes at once: to list those that are taken costs the more the more there
/// are, 0.3 ms with four hundred.
const AHEAD: usize = 16;

/// Fewer than so many left, and nobody takes more than he needs.
const SCARCE: u64 = 256;

/// The ids that may be given away.
#[derive(Debug)]
pub struct Pool {
    dir: PathBuf,
    /// First id, and the one after the last.
    ranges: Vec<(u32, u32)>,
    /// How many are taken beside the one that is asked for.
    ahead: usize,
    /// Those that were. They are locked and name no owner; a process that ends with some leaves them to [`Pool::tidy`].
    spare: Mutex<Vec<Claim>>,
}

/// A range that is taken and not recorded elsewhere yet. Dropped, it is free again.
#[derive(Debug)]
pub struct Claim {
    /// The first id.
    pub first: u32,
    path: PathBuf,
    /// Locked: the claim of a process that died is nobody's.
    lock: Option<File>,
}

impl Pool {
    /// This machine's.
    pub fn of_host() -> Pool {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
        let own = intersection(&entries(&uids, |name| name == USER), &entries(&gids, |name| name == USER));
        let others = |text: &str| entries(text, |_| true);
        let ranges = match own.is_empty() {
            false => own,
            true => without(&[DEFAULT], &[others(&uids), others(&gids), users(&read("/etc/passwd"))].concat()),
        };
        Pool { dir: DIR.into(), ranges, ahead: 0, spare: Mutex::default() }
    }

    /// For a process that takes many.
    pub fn for_many(self) -> Pool {
        Pool { ahead: AHEAD, ..self }
    }

    /// How many system containers there can be at once.
    pub fn capacity(&self) -> u64 {
        self.ranges.iter().map(|(from, end)| u64::from((end - from) / IDS)).sum()
    }

    /// Takes a range for the container whose state directory is, or will be, `owner`.
    ///
    /// # Errors
    /// None is left, or the record cannot be written.
    pub fn take(&self, owner: &Path) -> Result<Claim> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut claim = spare.map_or_else(|| self.take_some(), Ok)?;
        if let Some(file) = &mut claim.lock {
            file.write_all(owner.as_os_str().as_bytes()).map_err(|error| self.failed(&error))?;
        }
        step(2)?;
        Ok(claim)
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(format_args!("take a range of ids in {}", self.dir.display()), error)
    }

    /// One that names no owner yet, and those that are taken ahead.
    fn take_some(&self) -> Result<Claim> {
        let failed = |error: &io::Error| self.failed(error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(|error| failed(&error))?;
        let dir = File::open(&self.dir).map_err(|error| failed(&error))?;
        path::flock(&dir, LOCK_EX).map_err(|error| failed(&error.into()))?;
        let mut taken = self.taken();
        let found = self.free(&taken).or_else(|| {
            taken.retain(|first| !self.is_abandoned(*first));
            self.free(&taken)
        });
        let claim = self.claim(found.ok_or_else(|| self.exhausted())?)?;
        if self.ahead > 0 && self.capacity() > taken.len() as u64 + SCARCE {
            let add = |taken: &mut Vec<u32>, first| taken.insert(taken.partition_point(|other| *other < first), first);
            add(&mut taken, claim.first);
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..self.ahead {
                let Some(first) = self.free(&taken) else { break };
                spare.push(self.claim(first)?);
                add(&mut taken, first);
            }
            // The lowest first.
            spare.reverse();
        }
        Ok(claim)
    }

    /// Makes the record of a range, locked. The caller has the lock of all, and has found it free.
    fn claim(&self, first: u32) -> Result<Claim> {
        let path = self.path(first);
        let mut options = OpenOptions::new();
        // What is there by that name was found abandoned.
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| self.failed(&error))?;
        let mut claim = Claim { first, path, lock: None };
        step(0)?;
        path::flock(&file, LOCK_EX | LOCK_NB).map_err(|error| self.failed(&error.into()))?;
        claim.lock = Some(file);
        step(1)?;
        Ok(claim)
    }

    /// Gives back what processes that have ended took ahead.
    pub fn tidy(&self) {
        let locked = File::open(&self.dir).map(|dir| path::flock(&dir, LOCK_EX).map(|()| dir));
        let Ok(Ok(_lock)) = locked else { return };
        for path in self.taken().into_iter().map(|first| self.path(first)) {
            if path.metadata().is_ok_and(|meta| meta.len() == 0) && !is_locked(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The range that the next one would get, without taking it.
    ///
    /// # Errors
    /// None is left.
    pub fn next(&self) -> Result<u32> {
        self.free(&self.taken()).ok_or_else(|| self.exhausted())
    }

    /// Gives back a range of `owner`, whose state directory is gone. It is no error if he has it no more: from that moment on
    /// the next one who finds no other may have taken it.
    pub fn give_back(&self, first: u32, owner: &Path) {
        let path = self.path(first);
        let locked = File::open(&self.dir).map(|dir| path::flock(&dir, LOCK_EX).map(|()| dir));
        if let Ok(Ok(_lock)) = locked
            && fs::read(&path).is_ok_and(|text| text == owner.as_os_str().as_bytes())
            // A new one of the same name.
            && !is_locked(&path)
            && owner.symlink_metadata().is_err()
        {
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, first: u32) -> PathBuf {
        self.dir.join(first.to_string())
    }

    /// First ids of those that have a record.
    fn taken(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut list: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        list.sort_unstable();
        list
    }

    /// The lowest range that touches none of `taken`: the pool may have been another when they were taken.
    fn free(&self, taken: &[u32]) -> Option<u32> {
        let starts = |(from, end): &(u32, u32)| (*from..end.saturating_sub(IDS - 1)).step_by(IDS as usize);
        let clashes = |start: u32| {
            let at = taken.partition_point(|first| *first <= start);
            let near = taken[at.saturating_sub(1)..].iter().take(2);
            near.copied().any(|first| first.abs_diff(start) < IDS)
        };
        self.ranges.iter().flat_map(starts).find(|start| !clashes(*start))
    }

    /// Whether the owner is gone: no state directory, nobody who is about to make it, and no process with these ids.
    fn is_abandoned(&self, first: u32) -> bool {
        let path = self.path(first);
        let Ok(text) = fs::read(&path) else { return false };
        let owner = Path::new(std::ffi::OsStr::from_bytes(&text));
        let exists = !text.is_empty() && owner.symlink_metadata().is_ok();
        !exists && !is_locked(&path) && !process::user_has_processes(first)
    }

    fn exhausted(&self) -> Error {
        let ranges = self.capacity();
        let message = format!(
            "no range of {IDS} ids is free: the pool has {ranges} (hint: remove containers, or name more for the user \
             {USER} in /etc/subuid and /etc/subgid)"
        );
        Error::new(Kind::System, message)
    }
}

impl Claim {
    /// Lets the record stand: the owner's state directory exists, and says what it has.
    pub fn keep(mut self) {
        self.lock = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether somebody is about to make the state directory of whoever has this record.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| path::flock(&file, LOCK_EX | LOCK_NB).is_err())
}

/// A place where tests kill it.
pub(crate) fn step(index: usize) -> Result<()> {
    failpoint::check("ids", index).map_err(|error| Error::new(Kind::System, error.to_string()))
}

/// The ranges in `/etc/subuid` or `/etc/subgid` of the users that `whose` picks: first, and the one after the last.
fn entries(text: &str, whose: impl Fn(&str) -> bool) -> Vec<(u32, u32)> {
    let entry = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| whose(name))?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (!name.is_empty() && count > 0).then(|| (first, first.saturating_add(count)))
    };
    text.lines().filter_map(entry).collect()
}

/// The ids of `/etc/passwd`, each a range.
fn users(text: &str) -> Vec<(u32, u32)> {
    let id = |line: &str| line.split(':').nth(2)?.parse().ok();
    text.lines().filter_map(id).map(|id: u32| (id, id.saturating_add(1))).collect()
}

fn intersection(a: &[(u32, u32)], b: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let pairs = a.iter().flat_map(|one| b.iter().map(move |other| (one.0.max(other.0), one.1.min(other.1))));
    pairs.filter(|(from, end)| from < end).collect()
}

/// `from` without `other`, in steps: whatever touches one of them is left out.
fn without(from: &[(u32, u32)], other: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut left = from.to_vec();
    for (first, end) in other {
        left = left
            .into_iter()
            .flat_map(|(a, b)| {
                if *end <= a || *first >= b {
                    return vec![(a, b)];
                }
                let below = a + first.saturating_sub(a) / IDS * IDS;
                let above = u64::from(a) + u64::from(end.saturating_sub(a)).next_multiple_of(IDS.into());
                let above = u32::try_from(above).unwrap_or(b).min(b);
                vec![(a, below), (above, b)]
            })
            .filter(|(a, b)| a < b)
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    /// Ids above all that a process could have here.
    const FIRST: u32 = 0xd000_0000;

    fn pool(scratch: &Scratch, ranges: u32) -> Pool {
        let ranges = vec![(FIRST, FIRST + ranges * IDS)];
        Pool { dir: scratch.path().join("ids"), ranges, ahead: 0, spare: Mutex::default() }
    }

    #[test]
    fn a_range_is_taken_once_and_can_be_given_back() {
        let scratch = Scratch::new("ranges");
        let pool = pool(&scratch, 2);
        let (owner, gone) = (scratch.path(), scratch.path().join("gone"));
        let first = pool.take(owner).unwrap();
        let second = pool.take(owner).unwrap();
        assert_eq!((first.first, second.first), (FIRST, FIRST + IDS));
        assert!(pool.take(owner).unwrap_err().to_string().contains("no range of 65536 ids is free"));
        drop(first);
        assert_eq!(pool.next().unwrap(), FIRST);
        second.keep();
        assert_eq!(pool.take(owner).unwrap().first, FIRST);
        // It is another's, or its owner's who is there.
        pool.give_back(FIRST + IDS, &gone);
        pool.give_back(FIRST + IDS, owner);
        assert_eq!(pool.taken(), [FIRST + IDS]);
        let kept = pool.take(&gone).unwrap();
        // Somebody of the same name as the one who gives it back is about to be there.
        pool.give_back(FIRST, &gone);
        assert_eq!(pool.taken(), [FIRST, FIRST + IDS]);
        kept.keep();
        pool.give_back(FIRST, &gone);
        assert_eq!(pool.taken(), [FIRST + IDS]);
    }

    #[test]
    fn ranges_of_the_dead_are_taken_back_and_those_of_the_living_are_not() {
        let scratch = Scratch::new("abandoned");
        let pool = pool(&scratch, 2);
        let (dead, alive) = (scratch.path().join("dead"), scratch.path().join("alive"));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&alive).unwrap();
        pool.take(&alive).unwrap().keep();
        pool.take(&dead).unwrap().keep();
        assert!(pool.take(&alive).is_err());
        fs::remove_dir(&dead).unwrap();
        // Before its state directory exists, the lock speaks for the taker.
        let again = pool.take(&dead).unwrap();
        assert_eq!(again.first, FIRST + IDS);
        assert!(pool.take(&dead).is_err());
        // A taker that was killed: the record stays, the lock goes.
        again.keep();
        assert_eq!(pool.take(&alive).unwrap().first, FIRST + IDS);
    }

    #[test]
    fn many_at_once_get_a_range_each() {
        let scratch = Scratch::new("many");
        let (pool, owner) = (pool(&scratch, 64), scratch.path());
        let take = |_| {
            let claim = pool.take(owner).unwrap();
            let first = claim.first;
            claim.keep();
            first
        };
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..8).map(take).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 64);
        assert!(pool.take(owner).is_err());
    }

    #[test]
    fn who_starts_many_takes_some_ahead_and_leaves_none() {
        let scratch = Scratch::new("ahead");
        let many = || pool(&scratch, 300).for_many();
        let (one, other, owner) = (many(), many(), scratch.path());
        let first = one.take(owner).unwrap();
        assert_eq!((first.first, one.taken().len()), (FIRST, 1 + AHEAD));
        // Nobody else gets one of those, and they come in order.
        let far = other.take(owner).unwrap();
        assert_eq!(far.first, FIRST + (1 + AHEAD as u32) * IDS);
        let second = one.take(owner).unwrap();
        assert_eq!(
            (second.first, fs::read(&second.path).unwrap()),
            (FIRST + IDS, owner.as_os_str().as_bytes().to_vec())
        );
        one.tidy();
        assert_eq!(one.taken().len(), 2 + 2 * AHEAD, "those of the living stay");
        for claim in [first, second, far] {
            claim.keep();
        }
        // As in processes that end without a word.
        for pool in [&one, &other] {
            pool.spare.lock().unwrap().drain(..).for_each(Claim::keep);
        }
        one.tidy();
        assert_eq!(one.taken(), [FIRST, FIRST + IDS, FIRST + (1 + AHEAD as u32) * IDS]);
        // Of few nobody takes more than he needs.
        let few = pool(&scratch, 100).for_many();
        few.take(owner).unwrap().keep();
        assert_eq!(few.taken().len(), 4);
    }

    #[test]
    fn the_pool_is_what_both_files_give_to_offshoot() {
        let is_own = |name: &str| name == USER;
        let uids = entries("root:1:5\noffshoot:1000:10\n#offshoot:1:2\noffshoot:x:1\n", is_own);
        let gids = entries("offshoot:1005:100", is_own);
        assert_eq!(intersection(&uids, &gids), [(1005, 1010)]);
    }

    #[test]
    fn nothing_that_others_have_is_in_the_default_pool() {
        let left = without(&[(0, 10 * IDS)], &[(IDS + 5, IDS + 6), (9 * IDS, 20 * IDS)]);
        assert_eq!(left, [(0, IDS), (2 * IDS, 9 * IDS)]);
        assert_eq!(without(&[DEFAULT], &[(0, u32::MAX)]), []);
        assert_eq!(users("root:x:0:0:::\nbad\n"), [(0, 1)]);
    }
}
