//! The same work for each of many, in as many processes as are worth it.
//!
//! Processes and not threads: to make a container is to fork without exec, which only a process with one thread may do.

use crate::error::{Error, Result};
use offshoot_sys::{event, fork, path, socket};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// Numbers that fit a pipe of the kernel's usual size at once.
const AT_ONCE: usize = 16_000;
/// Longest answer. The kernel's send buffer takes more.
const ANSWER: usize = 16 << 10;

#[derive(Serialize, Deserialize)]
struct Answer {
    at: usize,
    error: Option<Error>,
}

/// More processes than there are processors: each waits three times a machine for the kernel to let go of mounts (RCU), and of
/// few processors that wait leaves a third idle.
const MORE: usize = 4;

/// How many processes are worth it on this machine.
pub fn width() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors + processors.min(MORE)
}

/// Does `work` for each of `items`, `width` of them at a time. `report` gets each result when it is there, with the
/// item's index. One that fails does not keep the others.
///
/// # Errors
/// No process can be made.
pub fn each(
    items: &[String],
    width: usize,
    report: &mut dyn FnMut(usize, Result<()>),
    work: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    if items.len() == 1 || width <= 1 {
        items.iter().enumerate().for_each(|(at, item)| report(at, work(item)));
        return Ok(());
    }
    apart(items, width, report, work)
}

/// As [`each`], but never in this process: what `work` leaves running is nobody's child here.
///
/// # Errors
/// No process can be made.
pub fn apart(
    items: &[String],
    width: usize,
    report: &mut dyn FnMut(usize, Result<()>),
    work: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    for (part, items) in items.chunks(AT_ONCE).enumerate() {
        in_processes(items, width.min(items.len()), &mut |at, result| report(part * AT_ONCE + at, result), work)?;
    }
    Ok(())
}

fn in_processes(
    items: &[String],
    width: usize,
    report: &mut dyn FnMut(usize, Result<()>),
    work: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    let (queue, fill) = event::pipe()?;
    let numbers: Vec<u8> = (0..items.len() as u32).flat_map(u32::to_ne_bytes).collect();
    path::write_all(&fill, &numbers)?;
    drop(fill);
    let (ours, theirs) = socket::seqpacket_pair()?;
    let mut workers = Vec::new();
    for _ in 0..width {
        match fork::fork(0, None, || labour(items, &queue, &theirs, work)) {
            Ok(child) => workers.push(child),
            // Fewer do it, too.
            Err(error) if workers.is_empty() => return Err(error.into()),
            Err(_) => break,
        }
    }
    drop((theirs, queue));
    let mut done = vec![false; items.len()];
    let mut buffer = vec![0; ANSWER];
    loop {
        // The end: every worker has closed its end.
        let (length, _) = socket::recv(&ours, &mut buffer)?;
        if length == 0 {
            break;
        }
        if let Ok(Answer { at, error }) = serde_json::from_slice(&buffer[..length])
            && let Some(done) = done.get_mut(at)
        {
            *done = true;
            report(at, error.map_or(Ok(()), Err));
        }
    }
    let ends: Vec<_> = workers.iter().filter_map(|worker| fork::wait(&worker.pidfd).ok()).collect();
    let bad = ends.iter().find(|end| !end.success());
    for (at, _) in done.iter().enumerate().filter(|(_, done)| !**done) {
        let how = bad.map_or("without a word".to_owned(), ToString::to_string);
        report(at, Err(Error::failed("do it", format_args!("the process that was to do it ended: {how}"))));
    }
    Ok(())
}

/// A worker takes the next number until there is none.
fn labour(items: &[String], queue: &OwnedFd, answers: &OwnedFd, work: &dyn Fn(&str) -> Result<()>) -> i32 {
    let mut number = [0; 4];
    while let Ok(4) = path::read(queue, &mut number) {
        let at = u32::from_ne_bytes(number) as usize;
        let Some(item) = items.get(at) else { return 1 };
        let answer = Answer { at, error: work(item).err() };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        if text.len() > ANSWER {
            let short = Error::failed("tell the error", "it is too long");
            text = serde_json::to_vec(&Answer { at, error: Some(short) }).unwrap_or_default();
        }
        if socket::send(answers, &text, &[]).is_err() {
            return 1;
        }
    }
    0
}
