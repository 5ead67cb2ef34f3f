//! The memory of a request.

use std::fmt::{self, Debug};

use vm_memory::VolatileSlice;

/// A piece of memory that a request reads or writes: an `iovec` that may go to another thread.
///
/// It may be memory of a guest, which writes it at any moment, so it is only ever accessed by system
/// calls and by volatile copies.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct IoBuffer(libc::iovec);

// SAFETY: whoever makes a buffer promises that its memory can be used until the request has completed,
// on whatever thread that is.
unsafe impl Send for IoBuffer {}
// SAFETY: as for `Send`; a shared buffer gives nothing but copies of itself.
unsafe impl Sync for IoBuffer {}

impl IoBuffer {
    /// The `length` bytes from `start`.
    ///
    /// # Safety
    ///
    /// The memory is readable, and writable for a request that writes to it, until the request has
    /// completed, and no Rust reference to it is used meanwhile.
    pub unsafe fn new(start: *mut u8, length: usize) -> Self {
        Self(libc::iovec {
            iov_base: start.cast(),
            iov_len: length,
        })
    }

    /// First byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same pieces for `readv` and its relatives.
    pub(crate) fn as_iovecs(buffers: &[Self]) -> &[libc::iovec] {
        let pointer: *const libc::iovec = buffers.as_ptr().cast();
        // SAFETY: a buffer is a transparent iovec, so the slice has the same layout.
        unsafe { std::slice::from_raw_parts(pointer, buffers.len()) }
    }

    /// Takes the first `count` bytes off; all of them, if it has no more.
    fn advance(&mut self, count: usize) {
        let count = count.min(self.len());
        self.0.iov_base = self.as_ptr().wrapping_add(count).cast();
        self.0.iov_len = self.len().saturating_sub(count);
    }

    pub(crate) fn volatile(&self) -> VolatileSlice<'_> {
        // SAFETY: the maker of the buffer promised that the memory is there while the request runs,
        // and that is longer than this borrow.
        unsafe { VolatileSlice::new(self.as_ptr(), self.len()) }
    }
}

impl Debug for IoBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:p}+{:#x}", self.0.iov_base, self.0.iov_len)
    }
}

/// Sum of the lengths in bytes.
pub(crate) fn total_bytes(buffers: &[IoBuffer]) -> u64 {
    buffers.iter().fold(0, |sum: u64, buffer| {
        sum.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX))
    })
}

/// What is left of a request's buffers while it is carried out piece by piece. Its memory is used
/// again by the next request.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    buffers: Vec<IoBuffer>,
    /// Buffers that are done with.
    done: usize,
}

impl Rest {
    /// One with room for the buffers of most requests.
    pub(crate) fn with_room() -> Self {
        Self {
            buffers: Vec::with_capacity(8),
            done: 0,
        }
    }

    /// Starts over with `buffers`.
    pub(crate) fn fill(&mut self, buffers: &[IoBuffer]) {
        self.buffers.clear();
        self.buffers.extend_from_slice(buffers);
        self.done = 0;
        self.advance(0);
    }

    /// What is left.
    pub(crate) fn buffers(&self) -> &[IoBuffer] {
        self.buffers.get(self.done..).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffers().is_empty()
    }

    /// Takes the first `count` bytes off, and buffers that have nothing left.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while let Some(buffer) = self.buffers.get_mut(self.done) {
            let here = count.min(buffer.len());
            buffer.advance(here);
            count = count.saturating_sub(here);
            if !buffer.is_empty() {
                return;
            }
            self.done = self.done.saturating_add(1);
        }
    }

    /// Copies from the front into `destination`, as much as that holds, and takes nothing off.
    pub(crate) fn copy_out(&self, destination: &VolatileSlice<'_>) {
        let mut copied = 0_usize;
        for buffer in self.buffers() {
            let Ok(part) = destination.offset(copied) else {
                return;
            };
            // As much as the shorter of the two has.
            buffer.volatile().copy_to_volatile_slice(part);
            copied = copied.saturating_add(buffer.len());
        }
    }

    /// Copies `source` to the front, and takes that off.
    pub(crate) fn copy_in(&mut self, source: &VolatileSlice<'_>) {
        let mut copied = 0_usize;
        for buffer in self.buffers() {
            let Ok(part) = source.offset(copied) else {
                break;
            };
            part.copy_to_volatile_slice(buffer.volatile());
            copied = copied.saturating_add(buffer.len());
        }
        self.advance(source.len());
    }
}

#[cfg(test)]
mod tests;
