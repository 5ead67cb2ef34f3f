//! Looking for completions where the device leaves them, instead of waiting for its interrupt
//! (io_uring_setup(2), IORING_SETUP_IOPOLL): whether a file allows that.
//!
//! It needs O_DIRECT, a file system that knows of it, and a device with queues for it: others answer with
//! EOPNOTSUPP, or, worse, by interrupts all the same, while a processor looks for them in vain. So the device is
//! asked in sysfs, and then a block is read. Runs where a disk is opened.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, types};

use crate::bounce::Bounce;
use crate::disk::DirectFile;
use crate::host;

/// Whether completions of a disk are polled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoPoll {
    /// They are not.
    #[default]
    Off,
    /// They are where the file allows it.
    Auto,
    /// They have to be.
    On,
}

/// Why completions cannot be polled for.
#[derive(Debug, thiserror::Error)]
pub enum PollRefused {
    /// The page cache completes requests.
    #[error("the page cache is in between: use cache=none or directsync")]
    PageCache,
    /// The device has interrupts alone.
    #[error("its device has no queues for it (NVMe has with the module's parameter poll_queues)")]
    NoQueues,
    /// The host refuses to read in that way.
    #[error("the host refuses it: {0}")]
    Host(io::Error),
}

/// Finds out whether completions can be polled for on `direct`, if the file was opened so.
pub(crate) fn probe(direct: Option<&DirectFile>, metadata: &Metadata) -> Result<(), PollRefused> {
    let direct = direct.ok_or(PollRefused::PageCache)?;
    // A file system over several devices, or none, says nothing.
    if host::has_poll_queues(metadata) == Some(false) {
        return Err(PollRefused::NoQueues);
    }
    read_block(direct).map_err(PollRefused::Host)
}

/// Reads the first block by polling.
fn read_block(direct: &DirectFile) -> io::Result<()> {
    let mut memory = Bounce::new()?;
    let mut ring = IoUring::builder().dontfork().setup_iopoll().build(1)?;
    let block = direct.alignment.offset.max(512);
    let buffer = memory.buffer(usize::try_from(block).unwrap_or(usize::MAX));
    let file = types::Fd(direct.file.as_raw_fd());
    let entry = opcode::Read::new(file, buffer.as_ptr(), block).build();
    // SAFETY: the file and the memory are there until the end of this function, and the read has completed
    // then, or the ring is closed, which waits for it.
    let pushed = unsafe { ring.submission().push(&entry) };
    pushed.map_err(io::Error::other)?;
    host::retry(|| ring.submit_and_wait(1))?;
    let answer = ring
        .completion()
        .next()
        .map(|entry: cqueue::Entry| entry.result());
    match answer {
        Some(0..) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests;
