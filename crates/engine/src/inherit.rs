//! What the container's first process keeps of the host's descriptors.
//!
//! It closes the others before anything else. The host's end of the socket among them would keep it from noticing
//! that the host died; the lock of the state directory would outlive its holder.

use crate::error::Result;
use crate::protocol::ChildEnd;
use offshoot_sys::process;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What the host opened before the clone; the child finds it by descriptor.
#[derive(Default)]
pub(crate) struct Opened {
    /// Namespaces to join.
    pub namespaces: Vec<(offshoot_plan::Kind, OwnedFd)>,
    /// init, whose namespaces are joined all at once.
    pub init: Option<OwnedFd>,
    /// Sources of bind mounts, as detached trees.
    pub sources: Vec<OwnedFd>,
    /// The container's cgroup directories as detached trees, where it could not reach them by path.
    pub cgroups: Vec<OwnedFd>,
    /// What shows nothing at /proc and /sys, if the caller brings it: see [`crate::Hollow`].
    pub hollow: Vec<OwnedFd>,
    /// A mount namespace with nothing in it, if the plan wants it.
    pub void: Option<OwnedFd>,
    /// `tasks` files of v1 cgroups.
    pub tasks: Vec<OwnedFd>,
    /// The root filesystem as a detached mount, if the caller brings one.
    pub root: Option<OwnedFd>,
    /// What `start` writes to.
    pub fifo: Option<OwnedFd>,
    /// Where the terminal's master is sent.
    pub console: Option<OwnedFd>,
    /// What takes the place of the standard streams.
    pub streams: [Option<OwnedFd>; 3],
}

/// Takes the standard streams that it is given, and closes all but these, the first `preserved` others, what the host opened
/// for this process, and the way back to the host. Messages go that way, too: the host writes the log.
///
/// # Errors
/// close_range(2) is not there.
pub(crate) fn keep_own(preserved: u32, opened: &Opened, host: &ChildEnd) -> Result<()> {
    for (number, stream) in (0..).zip(&opened.streams) {
        if let Some(stream) = stream {
            process::dup2(stream, number)?;
        }
    }
    let mut keep = vec![host.number()];
    keep.extend(opened.namespaces.iter().map(|(_, fd)| fd.as_raw_fd()));
    let lists: [&[OwnedFd]; 4] = [&opened.sources, &opened.cgroups, &opened.hollow, &opened.tasks];
    keep.extend(lists.into_iter().flatten().map(AsRawFd::as_raw_fd));
    let singles = [&opened.init, &opened.void, &opened.root, &opened.fifo, &opened.console];
    keep.extend(singles.into_iter().chain(&opened.streams).flatten().map(AsRawFd::as_raw_fd));
    close_all_but(preserved, &keep)
}

/// Closes all but the standard streams, the first `preserved` others, and `keep`.
///
/// # Errors
/// close_range(2) is not there.
pub(crate) fn close_all_but(preserved: u32, keep: &[RawFd]) -> Result<()> {
    for (first, last) in gaps(3 + preserved, keep) {
        process::close_range(first, last, 0)?;
    }
    Ok(())
}

/// The ranges from `first` on that leave out `keep`.
fn gaps(first: u32, keep: &[RawFd]) -> Vec<(u32, u32)> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let (mut gaps, mut next) = (Vec::new(), first);
    for fd in keep {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = next.max(fd + 1);
    }
    gaps.push((next, u32::MAX));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_leave_out_what_is_kept() {
        assert_eq!(gaps(3, &[]), [(3, u32::MAX)]);
        assert_eq!(gaps(3, &[7, 3, 4, -1]), [(5, 6), (8, u32::MAX)]);
        assert_eq!(gaps(5, &[3, 9, 9]), [(5, 8), (10, u32::MAX)]);
    }
}
