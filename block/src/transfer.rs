//! Reads and writes by system calls that wait, and what O_DIRECT takes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::buffer::{IoBuffer, Rest, total_bytes};
use crate::disk::DirectFile;
use crate::host;
use crate::request::Direction;

/// Most pieces of memory that one system call takes (`UIO_MAXIOV`).
pub(crate) const VECTORS_MAX: usize = 1024;

/// Whether O_DIRECT takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Whole,
    /// Through other memory it does.
    MemoryDoesNot,
    /// It begins or ends inside a block.
    PositionDoesNot,
}

pub(crate) fn fit(direct: &DirectFile, offset: u64, buffers: &[IoBuffer]) -> Fit {
    let block = u64::from(direct.alignment.offset);
    if !offset.is_multiple_of(block) || !total_bytes(buffers).is_multiple_of(block) {
        return Fit::PositionDoesNot;
    }
    let aligned =
        |number: usize, to: u32| usize::try_from(to).is_ok_and(|to| number.is_multiple_of(to));
    let suits = |buffer: &IoBuffer| {
        aligned(buffer.as_ptr().addr(), direct.alignment.memory)
            && aligned(buffer.len(), direct.alignment.offset)
    };
    if buffers.iter().all(suits) {
        Fit::Whole
    } else {
        Fit::MemoryDoesNot
    }
}

/// Transfers all of `rest`, in as many system calls as it takes; `offset` goes along.
pub(crate) fn transfer(
    file: &File,
    direction: Direction,
    offset: &mut u64,
    rest: &mut Rest,
) -> io::Result<()> {
    while !rest.is_empty() {
        let count = host::retry(|| transfer_once(file, direction, *offset, rest.buffers(), 0))?;
        if count == 0 {
            return Err(direction.cut_short());
        }
        rest.advance(count);
        *offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// One system call, with `flags` (`RWF_…`) beside those of the direction. Returns the bytes transferred.
pub(crate) fn transfer_once(
    file: &File,
    direction: Direction,
    offset: u64,
    buffers: &[IoBuffer],
    flags: libc::c_int,
) -> io::Result<usize> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off64_t::try_from(offset).map_err(invalid)?;
    let count = libc::c_int::try_from(buffers.len().min(VECTORS_MAX)).map_err(invalid)?;
    let vectors = IoBuffer::as_iovecs(buffers).as_ptr();
    let flags = flags | write_flags(direction);
    let transferred = match (direction, buffers) {
        // One piece without flags has a cheaper system call.
        (Direction::Read, [buffer]) if flags == 0 => {
            // SAFETY: whoever made the buffer promised that its memory can be written until the request
            // has completed.
            unsafe {
                libc::pread64(
                    file.as_raw_fd(),
                    buffer.as_ptr().cast(),
                    buffer.len(),
                    offset,
                )
            }
        }
        (Direction::Write { .. }, [buffer]) if flags == 0 => {
            // SAFETY: as above, for reading.
            unsafe {
                libc::pwrite64(
                    file.as_raw_fd(),
                    buffer.as_ptr().cast(),
                    buffer.len(),
                    offset,
                )
            }
        }
        (Direction::Read, _) => {
            // SAFETY: `vectors` has `count` entries, and whoever made the buffers promised that their
            // memory can be written until the request has completed.
            unsafe { libc::preadv64v2(file.as_raw_fd(), vectors, count, offset, flags) }
        }
        (Direction::Write { .. }, _) => {
            // SAFETY: as above, for reading.
            unsafe { libc::pwritev64v2(file.as_raw_fd(), vectors, count, offset, flags) }
        }
    };
    usize::try_from(transferred).map_err(|_| io::Error::last_os_error())
}

/// The flags of a system call, or an entry of io_uring, for this direction.
pub(crate) fn write_flags(direction: Direction) -> libc::c_int {
    match direction {
        Direction::Write { durable: true } => libc::RWF_DSYNC,
        Direction::Read | Direction::Write { durable: false } => 0,
    }
}
