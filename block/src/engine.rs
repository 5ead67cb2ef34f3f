//! Requests to a disk, and their completions.
//!
//! Requests are submitted with a tag and complete with it, possibly in another order. This engine
//! carries a request out inside [`Engine::submit`], on the calling thread; a user that collects
//! completions after it submitted, and when it is told that there are some, works with an engine that
//! completes later just as well.
//!
//! An engine belongs to one thread at a time: the worker of the device that the disk is in.

mod error_log;
mod zero;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::bounce::Bounce;
use crate::buffer::{IoBuffer, Rest, total_bytes};
use crate::disk::{DirectFile, Image};
use crate::{IoError, SECTOR_BYTES, host};
use error_log::ErrorLog;

/// Most pieces of memory that one system call takes (`UIO_MAXIOV`).
const VECTORS_MAX: usize = 1024;

/// One request. Positions count in sectors, lengths in bytes, whole sectors of them.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// Reads into the buffers, from this sector on.
    Read {
        /// First sector.
        sector: u64,
        /// Where the bytes go.
        buffers: &'a [IoBuffer],
    },
    /// Writes the buffers, from this sector on.
    Write {
        /// First sector.
        sector: u64,
        /// Where the bytes come from.
        buffers: &'a [IoBuffer],
        /// Complete only when it is on the medium.
        durable: bool,
    },
    /// Completes when all that completed before is on the medium.
    Flush,
    /// The sectors are not needed any more; what they read as is undefined.
    Discard {
        /// First sector.
        sector: u64,
        /// Length in bytes.
        length_bytes: u64,
    },
    /// The sectors read as zeros.
    WriteZeroes {
        /// First sector.
        sector: u64,
        /// Length in bytes.
        length_bytes: u64,
        /// The host may give their space back.
        may_unmap: bool,
        /// Complete only when it is on the medium.
        durable: bool,
    },
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    /// The tag with which it was submitted.
    pub tag: u64,
    /// Whether it was done, whole.
    pub result: Result<(), IoError>,
}

/// Carries requests out, one after the other.
#[derive(Debug)]
pub struct Engine {
    image: Arc<Image>,
    rest: Rest,
    /// There with O_DIRECT.
    bounce: Option<Bounce>,
    completions: VecDeque<Completion>,
    /// The file system has no way to make a range of a file zero and keep its blocks.
    no_zero_range: bool,
    log: ErrorLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write { durable: bool },
}

impl Engine {
    pub(crate) fn new(image: Arc<Image>) -> io::Result<Self> {
        let bounce = image.direct.as_ref().map(|_| Bounce::new()).transpose()?;
        Ok(Self {
            image,
            rest: Rest::default(),
            bounce,
            completions: VecDeque::with_capacity(1),
            no_zero_range: false,
            log: ErrorLog::default(),
        })
    }

    /// Takes a request. Its completion comes by [`next_completion`](Self::next_completion), with `tag`.
    pub fn submit(&mut self, tag: u64, operation: Operation<'_>) {
        let result = self.carry_out(operation);
        if let Err(IoError::Host(error)) = &result {
            self.log.write(&self.image.path, &operation, error);
        }
        self.completions.push_back(Completion { tag, result });
    }

    /// The next request that completed.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    fn carry_out(&mut self, operation: Operation<'_>) -> Result<(), IoError> {
        match operation {
            Operation::Read { sector, buffers } => {
                let offset = self.check_range(sector, total_bytes(buffers))?;
                self.transfer(Direction::Read, offset, buffers)?;
                Ok(())
            }
            Operation::Write {
                sector,
                buffers,
                durable,
            } => {
                self.check_writable()?;
                let offset = self.check_range(sector, total_bytes(buffers))?;
                self.transfer(Direction::Write { durable }, offset, buffers)?;
                Ok(())
            }
            Operation::Flush => {
                // Nothing was written, and there are file systems on which syncing a file that is open for
                // reading alone fails.
                if !self.image.readonly {
                    host::sync_data(&self.image.file)?;
                }
                Ok(())
            }
            Operation::Discard {
                sector,
                length_bytes,
            } => {
                self.check_writable()?;
                let offset = self.check_range(sector, length_bytes)?;
                self.discard(offset, length_bytes)
            }
            Operation::WriteZeroes {
                sector,
                length_bytes,
                may_unmap,
                durable,
            } => {
                self.check_writable()?;
                let offset = self.check_range(sector, length_bytes)?;
                self.write_zeroes(offset, length_bytes, may_unmap)?;
                if durable {
                    host::sync_data(&self.image.file)?;
                }
                Ok(())
            }
        }
    }

    fn check_writable(&self) -> Result<(), IoError> {
        if self.image.readonly {
            return Err(IoError::ReadOnly);
        }
        Ok(())
    }

    /// The offset of `sector` in bytes, if all of `length_bytes` from there is on the disk.
    fn check_range(&self, sector: u64, length_bytes: u64) -> Result<u64, IoError> {
        if !length_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(IoError::PartialSector);
        }
        sector
            .checked_mul(SECTOR_BYTES)
            .filter(|offset| {
                offset
                    .checked_add(length_bytes)
                    .is_some_and(|end| end <= self.image.size_bytes)
            })
            .ok_or(IoError::OutOfRange)
    }

    fn transfer(
        &mut self,
        direction: Direction,
        mut offset: u64,
        buffers: &[IoBuffer],
    ) -> io::Result<()> {
        self.rest.fill(buffers);
        if let Some(direct) = &self.image.direct {
            let result = match (fit(direct, offset, buffers), &mut self.bounce) {
                (Fit::Whole, _) => transfer(&direct.file, direction, &mut offset, &mut self.rest),
                (Fit::MemoryDoesNot, Some(bounce)) => {
                    bounce.transfer(&mut self.rest, direction == Direction::Read, |piece| {
                        // What fails in the middle of a piece is begun again with the whole piece.
                        let mut end = offset;
                        transfer(&direct.file, direction, &mut end, piece)?;
                        offset = end;
                        Ok(())
                    })
                }
                // The page cache reads what is around it and writes it back whole.
                (Fit::MemoryDoesNot, None) | (Fit::PositionDoesNot, _) => Ok(()),
            };
            match result {
                // After a short transfer the rest may be one that O_DIRECT does not take.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
        // All of it without O_DIRECT; else what O_DIRECT did not take.
        transfer(&self.image.file, direction, &mut offset, &mut self.rest)
    }
}

/// Whether O_DIRECT takes a request.
enum Fit {
    Whole,
    /// Through other memory it does.
    MemoryDoesNot,
    /// It begins or ends inside a block.
    PositionDoesNot,
}

fn fit(direct: &DirectFile, offset: u64, buffers: &[IoBuffer]) -> Fit {
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
fn transfer(
    file: &File,
    direction: Direction,
    offset: &mut u64,
    rest: &mut Rest,
) -> io::Result<()> {
    while !rest.is_empty() {
        let count = host::retry(|| transfer_once(file, direction, *offset, rest.buffers()))?;
        if count == 0 {
            // A file that was made shorter, or a device that went away.
            return Err(match direction {
                Direction::Read => io::ErrorKind::UnexpectedEof.into(),
                Direction::Write { .. } => io::ErrorKind::WriteZero.into(),
            });
        }
        rest.advance(count);
        *offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}

fn transfer_once(
    file: &File,
    direction: Direction,
    offset: u64,
    buffers: &[IoBuffer],
) -> io::Result<usize> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off64_t::try_from(offset).map_err(invalid)?;
    let count = libc::c_int::try_from(buffers.len().min(VECTORS_MAX)).map_err(invalid)?;
    // A buffer is a transparent iovec.
    let vectors: *const libc::iovec = buffers.as_ptr().cast();
    let transferred = match direction {
        Direction::Read => {
            // SAFETY: `vectors` has `count` entries, and whoever made the buffers promised that their
            // memory can be written until the request has completed.
            unsafe { libc::preadv64(file.as_raw_fd(), vectors, count, offset) }
        }
        Direction::Write { durable } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            // SAFETY: as above, for reading.
            unsafe { libc::pwritev64v2(file.as_raw_fd(), vectors, count, offset, flags) }
        }
    };
    usize::try_from(transferred).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests;
