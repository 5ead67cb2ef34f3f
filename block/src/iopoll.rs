//! Looking for completions where the device leaves them, instead of waiting for its interrupt
//! (io_uring_setup(2), IORING_SETUP_IOPOLL): whether a file allows that.
//!
//! It needs O_DIRECT, a file system that knows of it, and a device with queues for it: others answer with
//! EOPNOTSUPP, or, worse, by interrupts all the same, while a processor looks for them in vain. So the device is
//! asked in sysfs, and then a block is read. Runs where a disk is opened.
//!
//! Requests that the kernel would have to cut for the device are not polled for: it cannot poll for the pieces, and
//! Linux 6.1 was seen never to complete such ones. Large as they are they have little from it.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, types};

use crate::IoBuffer;
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
    /// The file is on no device, or on one that says nothing.
    #[error("the host does not say what its device can do")]
    Unknown,
    /// The device has interrupts alone.
    #[error("its device has no queues for it (NVMe has with the module's parameter poll_queues)")]
    NoQueues,
    /// The device is made of others, or wants requests cut where they cross some boundary.
    #[error("its device has requests cut")]
    Cuts,
    /// The host refuses to read in that way.
    #[error("the host refuses it: {0}")]
    Host(io::Error),
}

/// Bytes of a page, or of a part of it: memory is in one piece within one.
const PAGE_BYTES: usize = 4096;

/// The requests whose completions can be polled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PollLimits {
    pub max_bytes: u64,
    pub max_segments: u32,
}

impl PollLimits {
    /// Whether the device gets a request with these buffers in one piece, wherever their pages are: within its
    /// limits, and without gaps between the pages (NVM Express 1.4, 4.3).
    pub(crate) fn fit(&self, buffers: &[IoBuffer]) -> bool {
        let is_aligned = |number: usize| number.is_multiple_of(PAGE_BYTES);
        let mut pages = 0_usize;
        let mut bytes = 0_u64;
        let last = buffers.len().saturating_sub(1);
        for (index, buffer) in buffers.iter().enumerate() {
            let start = buffer.as_ptr().addr();
            let end = start.saturating_add(buffer.len());
            if (index > 0 && !is_aligned(start)) || (index < last && !is_aligned(end)) {
                return false;
            }
            let first_page = start / PAGE_BYTES;
            pages = pages.saturating_add(end.div_ceil(PAGE_BYTES).saturating_sub(first_page));
            bytes = bytes.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        }
        bytes <= self.max_bytes
            && u32::try_from(pages).is_ok_and(|pages| pages <= self.max_segments)
    }
}

/// Finds out whether completions can be polled for on `direct`, if the file was opened so, and of which requests.
pub(crate) fn probe(
    direct: Option<&DirectFile>,
    metadata: &Metadata,
) -> Result<PollLimits, PollRefused> {
    let direct = direct.ok_or(PollRefused::PageCache)?;
    let queue = host::queue_limits(metadata).ok_or(PollRefused::Unknown)?;
    if !queue.polls {
        return Err(PollRefused::NoQueues);
    }
    if queue.cuts {
        return Err(PollRefused::Cuts);
    }
    read_block(direct).map_err(PollRefused::Host)?;
    Ok(PollLimits {
        max_bytes: queue.max_bytes,
        max_segments: queue.max_segments,
    })
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
