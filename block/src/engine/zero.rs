//! Discard and write-zeroes, by the best means that the host has.

use std::io;

use super::{Direction, Engine, transfer};
use crate::{IoBuffer, IoError, host};

/// Zeros to write where the host has nothing better, several times in one system call.
static ZEROS: [u8; 4096] = [0; 4096];
/// How often: 256 KiB in one system call.
const ZEROS_IN_ONE_CALL: usize = 64;

impl Engine {
    pub(super) fn discard(&mut self, offset: u64, length: u64) -> Result<(), IoError> {
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
    pub(super) fn write_zeroes(
        &mut self,
        offset: u64,
        length: u64,
        may_unmap: bool,
    ) -> io::Result<()> {
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
        if !self.no_zero_range {
            match host::zero_range(&self.image.file, offset, length) {
                Err(error) if is_unsupported(&error) => self.no_zero_range = true,
                result => return result,
            }
        }
        self.write_zero_bytes(offset, length)
    }

    /// Through the page cache: that takes any position and any memory.
    pub(super) fn write_zero_bytes(&mut self, mut offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length);
        while offset < end {
            let mut left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let pieces: [IoBuffer; ZEROS_IN_ONE_CALL] = std::array::from_fn(|_| {
                let count = left.min(ZEROS.len());
                left = left.saturating_sub(count);
                // SAFETY: the zeros are there as long as the process, and a write only reads them.
                unsafe { IoBuffer::new(ZEROS.as_ptr().cast_mut(), count) }
            });
            self.rest.fill(&pieces);
            let write = Direction::Write { durable: false };
            transfer(&self.image.file, write, &mut offset, &mut self.rest)?;
        }
        Ok(())
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::ENOTTY)
    )
}
