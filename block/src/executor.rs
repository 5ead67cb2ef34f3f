//! One request carried out from its beginning to its end on the thread that calls, by the best means
//! that the host has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bounce::Bounce;
use crate::buffer::Rest;
use crate::disk::{CacheMode, Image};
use crate::qcow2::Qcow2Image;
use crate::request::{Direction, Job, Work};
use crate::transfer::{Fit, fit, transfer};
use crate::{IoBuffer, IoError, host};

/// Zeros to write where the host has nothing better, several times in one system call.
static ZEROS: [u8; 4096] = [0; 4096];
/// How often: 256 KiB in one system call.
const ZEROS_IN_ONE_CALL: usize = 64;

/// Carries requests out, one after the other.
#[derive(Debug)]
pub(crate) struct Executor {
    image: Arc<Image>,
    /// Made at the first request with O_DIRECT whose memory does not suit it.
    bounce: Option<Bounce>,
    /// Pieces of zeros.
    zeros: Rest,
}

impl Executor {
    pub(crate) fn new(image: Arc<Image>) -> Self {
        Self {
            image,
            bounce: None,
            zeros: Rest::default(),
        }
    }

    /// Carries `job` out.
    pub(crate) fn run(&mut self, job: &mut Job) -> Result<(), IoError> {
        if self.image.qcow2.is_some() {
            return Ok(self.run_on_qcow2(job)?);
        }
        match job.work {
            Work::Transfer { direction, offset } => {
                self.transfer(direction, offset, &mut job.rest)?;
                Ok(())
            }
            Work::Flush => {
                host::sync_data(&self.image.file)?;
                Ok(())
            }
            Work::Discard { offset, length } => self.discard(offset, length),
            Work::WriteZeroes {
                offset,
                length,
                may_unmap,
                durable,
            } => {
                self.write_zeroes(offset, length, may_unmap)?;
                if durable {
                    host::sync_data(&self.image.file)?;
                }
                Ok(())
            }
        }
    }

    /// The same for an image that is more than its file.
    fn run_on_qcow2(&mut self, job: &mut Job) -> io::Result<()> {
        let Self { image, bounce, .. } = self;
        let Some(qcow2) = &image.qcow2 else {
            return Ok(());
        };
        let durable = match job.work {
            Work::Transfer {
                direction,
                mut offset,
            } => {
                let bounce = match bounce {
                    Some(bounce) => bounce,
                    None => bounce.insert(Bounce::new()?),
                };
                let reads = direction == Direction::Read;
                bounce.transfer_bytes(&mut job.rest, reads, |bytes| {
                    if reads {
                        qcow2.read(bytes, offset)?;
                    } else {
                        qcow2.write(bytes, offset)?;
                    }
                    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    offset = offset.saturating_add(length);
                    Ok(())
                })?;
                direction == Direction::Write { durable: true }
            }
            Work::Flush => true,
            Work::Discard { offset, length } => {
                match qcow2.discard(offset, length) {
                    // A version 2 image cannot say that a cluster reads as zeros. Nothing has to be done.
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    result => result?,
                }
                false
            }
            Work::WriteZeroes {
                offset,
                length,
                may_unmap,
                durable,
            } => {
                match qcow2.write_zeroes(offset, length, may_unmap) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                        write_zero_bytes_to(qcow2, offset, length)?;
                    }
                    result => result?,
                }
                durable
            }
        };
        if durable { qcow2.flush() } else { Ok(()) }
    }

    fn transfer(
        &mut self,
        direction: Direction,
        mut offset: u64,
        rest: &mut Rest,
    ) -> io::Result<()> {
        if let Some(direct) = &self.image.direct {
            let result = match fit(direct, offset, rest.buffers()) {
                Fit::Whole => transfer(&direct.file, direction, &mut offset, rest),
                Fit::MemoryDoesNot => {
                    let bounce = match &mut self.bounce {
                        Some(bounce) => bounce,
                        None => self.bounce.insert(Bounce::new()?),
                    };
                    bounce.transfer(rest, direction == Direction::Read, |piece| {
                        // What fails in the middle of a piece is begun again with the whole piece.
                        let mut end = offset;
                        transfer(&direct.file, direction, &mut end, piece)?;
                        offset = end;
                        Ok(())
                    })
                }
                // The page cache reads what is around it and writes it back whole.
                Fit::PositionDoesNot => Ok(()),
            };
            match result {
                // After a short transfer the rest may be one that O_DIRECT does not take.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
        // All of it without O_DIRECT; else what O_DIRECT did not take.
        transfer(&self.image.file, direction, &mut offset, rest)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), IoError> {
        if length == 0 {
            return Ok(());
        }
        let result = if self.image.is_device {
            host::discard_device(&self.image.file, offset, length)
        } else {
            host::punch_hole(&self.image.file, offset, length)
        };
        result.map_err(|error| {
            if is_unsupported(&error) {
                IoError::Unsupported
            } else {
                IoError::Host(error)
            }
        })
    }

    /// A hole where that is allowed, else a range of zeros that keeps its blocks, else zeros written.
    fn write_zeroes(&mut self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        if self.image.is_device {
            return host::zero_device(&self.image.file, offset, length);
        }
        if may_unmap {
            match host::punch_hole(&self.image.file, offset, length) {
                Err(error) if is_unsupported(&error) => {}
                result => return result,
            }
        }
        if !self.image.no_zero_range.load(Ordering::Relaxed) {
            match host::zero_range(&self.image.file, offset, length) {
                Err(error) if is_unsupported(&error) => {
                    self.image.no_zero_range.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        self.write_zero_bytes(offset, length)
    }

    /// Through the page cache: that takes any position and any memory.
    pub(crate) fn write_zero_bytes(&mut self, mut offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length);
        while offset < end {
            let mut left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let pieces: [IoBuffer; ZEROS_IN_ONE_CALL] = std::array::from_fn(|_| {
                let count = left.min(ZEROS.len());
                left = left.saturating_sub(count);
                // SAFETY: the zeros are there as long as the process, and a write only reads them.
                unsafe { IoBuffer::new(ZEROS.as_ptr().cast_mut(), count) }
            });
            self.zeros.fill(&pieces);
            let write = Direction::Write { durable: false };
            transfer(&self.image.file, write, &mut offset, &mut self.zeros)?;
        }
        Ok(())
    }
}

impl Image {
    /// What a flush means for this image: a request to the host, or nothing at all.
    pub(crate) fn flushes(&self) -> bool {
        // Where nothing is written there is nothing to flush, and there are file systems on which syncing
        // a file that is open for reading alone fails. An image with tables writes them at a flush, if not
        // to the disk then to its file.
        !self.readonly && (self.cache != CacheMode::Unsafe || self.qcow2.is_some())
    }

    /// Takes note of `error`, which `work` met, if it may mean that something is lost which was written
    /// before. The host says so once, to whoever flushes first, and then forgets what it could not write
    /// (Linux, Documentation/filesystems/vfs.rst, "Handling errors during writeback"): later flushes would
    /// be told that all is well.
    pub(crate) fn note_error(&self, work: &Work, error: &io::Error) {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        let may_lose = match work {
            Work::Flush => true,
            _ => work.is_to_be_durable() && number == libc::EIO,
        };
        // Without the page cache, and without tables of ours, there is nothing that could be forgotten.
        let is_cached = self.direct.is_none() || self.qcow2.is_some();
        if may_lose && is_cached {
            self.lost.store(number, Ordering::Release);
        }
    }

    /// What to answer to whoever wants to know that something is on the disk, once writes were lost.
    pub(crate) fn lost_writes(&self) -> Option<io::Error> {
        match self.lost.load(Ordering::Acquire) {
            0 => None,
            number => Some(io::Error::from_raw_os_error(number)),
        }
    }
}

/// Writes zeros, as to a disk that has nothing better.
fn write_zero_bytes_to(image: &Qcow2Image, mut offset: u64, length: u64) -> io::Result<()> {
    let end = offset.saturating_add(length);
    while offset < end {
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let piece = ZEROS.get(..left).unwrap_or(&ZEROS);
        image.write(piece, offset)?;
        offset = offset.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::ENOTTY)
    )
}
