//! Readers that count and hash what passes, so that one pass over an archive verifies it too.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use sha2::Digest as _;

use crate::name::Digest;

/// The digest and length of what a [`Hashing`] reader has passed on.
#[derive(Clone, Default)]
pub(crate) struct Seen(Rc<RefCell<(sha2::Sha256, u64)>>);

impl Seen {
    /// The digest of all bytes until now.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_hash(&self.0.borrow().0.clone().finalize())
    }

    /// How many bytes there were.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.borrow().1
    }
}

/// Passes bytes on, hashing them.
pub(crate) struct Hashing<R> {
    inner: R,
    seen: Seen,
}

impl<R: Read> Hashing<R> {
    /// The reader, and what will tell its digest once it is read to the end.
    pub(crate) fn new(inner: R) -> (Hashing<R>, Seen) {
        let seen = Seen::default();
        (Hashing { inner, seen: seen.clone() }, seen)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut seen = self.seen.0.borrow_mut();
        seen.0.update(&buffer[..count]);
        seen.1 += count as u64;
        Ok(count)
    }
}

/// How far a long operation has come; `total` is 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the source read.
    pub done: u64,
    /// Bytes of the source in all.
    pub total: u64,
}

/// A listener for progress, called at most every mebibyte.
pub type Listener<'a> = &'a mut dyn FnMut(Progress);

/// Reports what passes.
pub(crate) struct Reporting<'a, R> {
    inner: R,
    at: Progress,
    told: u64,
    listener: Listener<'a>,
}

impl<'a, R: Read> Reporting<'a, R> {
    pub(crate) fn new(inner: R, total: u64, listener: Listener<'a>) -> Reporting<'a, R> {
        Reporting { inner, at: Progress { done: 0, total }, told: 0, listener }
    }
}

impl<R: Read> Read for Reporting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at.done += count as u64;
        if self.at.done - self.told >= 1 << 20 || count == 0 {
            self.told = self.at.done;
            (self.listener)(self.at);
        }
        Ok(count)
    }
}
