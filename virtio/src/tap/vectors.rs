//! The pieces of memory of one frame, for one gathering write or scattering read.
//!
//! The list is lent by the device and used again for each frame, so that a frame costs no allocation.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;

use libc::{c_int, iovec};

use crate::queue::{Buffers, Segment};

/// The kernel takes no more pieces in one call (`UIO_MAXIOV`).
pub(crate) const MAX_PIECES: usize = 1024;

/// There is no room for another piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyPieces;

/// Storage of an [`IoVectors`], kept between frames.
#[derive(Debug)]
pub(crate) struct IoVectorStorage(Vec<iovec>);

// SAFETY: the pointers in the list are used only through an `IoVectors`, which empties the list when
// it is made: between two of them the storage holds nothing that anyone follows.
unsafe impl Send for IoVectorStorage {}

impl IoVectorStorage {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(MAX_PIECES))
    }
}

/// Pieces of memory, each valid for `'m`.
#[derive(Debug)]
pub(crate) struct IoVectors<'s, 'm> {
    pieces: &'s mut Vec<iovec>,
    memory: PhantomData<&'m mut [u8]>,
}

impl<'s, 'm> IoVectors<'s, 'm> {
    /// An empty list.
    pub(crate) fn new(storage: &'s mut IoVectorStorage) -> Self {
        storage.0.clear();
        Self {
            pieces: &mut storage.0,
            memory: PhantomData,
        }
    }

    /// Adds a piece of the host's own memory.
    pub(crate) fn push_bytes(&mut self, bytes: &'m mut [u8]) -> Result<(), TooManyPieces> {
        self.push(bytes.as_mut_ptr(), bytes.len())
    }

    /// Adds what the guest has lent. It stays volatile: nothing but the kernel follows the pointers.
    pub(crate) fn push_buffers(&mut self, buffers: Buffers<'m>) -> Result<(), TooManyPieces> {
        buffers
            .segments()
            .try_for_each(|segment| self.push(segment.as_ptr(), segment.len()))
    }

    /// Adds a piece of the guest's memory, without its first `skip` bytes.
    ///
    /// # Safety
    ///
    /// The segment's memory stays mapped for `'m`: its chain, or the guest's memory, lives as long.
    pub(crate) unsafe fn push_segment(
        &mut self,
        segment: Segment,
        skip: usize,
    ) -> Result<(), TooManyPieces> {
        let skip = skip.min(segment.len());
        self.push(
            segment.as_ptr().wrapping_add(skip),
            segment.len().saturating_sub(skip),
        )
    }

    /// One gathering write to a socket, which raises no signal where nobody reads.
    pub(crate) fn send_to(&self, socket: &impl AsRawFd) -> io::Result<usize> {
        // SAFETY: the structure is plain data, for which zeroes are a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.pieces.as_ptr().cast_mut();
        message.msg_iovlen = self.pieces.len();
        // SAFETY: as for `write_to`; the kernel does not write to the list.
        check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
    }

    /// One gathering write.
    pub(super) fn write_to(&self, file: &File) -> io::Result<usize> {
        // SAFETY: each of the `count` pieces is memory that is borrowed for `'m`, which outlives this
        // call; the kernel only reads from it, and checks every access.
        check(unsafe { libc::writev(file.as_raw_fd(), self.pieces.as_ptr(), self.count()) })
    }

    /// One scattering read.
    pub(crate) fn read_from(&self, file: &impl AsRawFd) -> io::Result<usize> {
        // SAFETY: each of the `count` pieces is memory that is borrowed for `'m`, exclusively where it
        // is the host's own; the guest's is shared and only ever accessed as volatile.
        check(unsafe { libc::readv(file.as_raw_fd(), self.pieces.as_ptr(), self.count()) })
    }

    fn count(&self) -> c_int {
        c_int::try_from(self.pieces.len()).unwrap_or(c_int::MAX)
    }

    fn push(&mut self, base: *mut u8, length: usize) -> Result<(), TooManyPieces> {
        if length == 0 {
            return Ok(());
        }
        if self.pieces.len() >= MAX_PIECES {
            return Err(TooManyPieces);
        }
        self.pieces.push(iovec {
            iov_base: base.cast::<c_void>(),
            iov_len: length,
        });
        Ok(())
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
