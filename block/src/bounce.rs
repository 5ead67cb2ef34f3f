//! Memory that suits O_DIRECT, for requests whose own memory does not.

use std::io;
use std::ptr;

use crate::IoBuffer;
use crate::buffer::{Rest, total_bytes};

/// Bytes of a bounce buffer: larger requests go through it in pieces. A multiple of every alignment
/// that O_DIRECT asks for.
pub(crate) const BOUNCE_BYTES: usize = 256 * 1024;

/// A private mapping: aligned to a page, filled with zeros, and without memory behind it until it is
/// used.
#[derive(Debug)]
pub(crate) struct Bounce {
    start: *mut u8,
    piece: Rest,
}

// SAFETY: the mapping belongs to this value alone and is freed with it, on any thread.
unsafe impl Send for Bounce {}

impl Bounce {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a new private mapping touches no memory that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BOUNCE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            piece: Rest::default(),
        })
    }

    /// The first `length` bytes of the memory, or all there are.
    pub(crate) fn buffer(&mut self, length: usize) -> IoBuffer {
        // SAFETY: the mapping is readable and writable; whoever uses the buffer keeps this value.
        unsafe { IoBuffer::new(self.start, length.min(BOUNCE_BYTES)) }
    }

    /// Carries `rest` out in pieces of this memory: `transfer` is called with each, and does all of it
    /// or fails. What fails is not taken off `rest`.
    pub(crate) fn transfer(
        &mut self,
        rest: &mut Rest,
        reads: bool,
        mut transfer: impl FnMut(&mut Rest) -> io::Result<()>,
    ) -> io::Result<()> {
        while !rest.is_empty() {
            let left = total_bytes(rest.buffers());
            let length = usize::try_from(left).map_or(BOUNCE_BYTES, |left| left.min(BOUNCE_BYTES));
            // SAFETY: the mapping is readable and writable, it is borrowed mutably, and the transfer
            // has ended when `transfer` returns.
            let buffer = unsafe { IoBuffer::new(self.start, length) };
            if !reads {
                rest.copy_out(&buffer.volatile());
            }
            self.piece.fill(&[buffer]);
            transfer(&mut self.piece)?;
            if reads {
                rest.copy_in(&buffer.volatile());
            } else {
                rest.advance(length);
            }
        }
        Ok(())
    }
}

impl Bounce {
    /// As [`transfer`](Self::transfer), for users of plain bytes.
    pub(crate) fn transfer_bytes(
        &mut self,
        rest: &mut Rest,
        reads: bool,
        mut transfer: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = self.start;
        self.transfer(rest, reads, |piece| {
            let length = usize::try_from(total_bytes(piece.buffers())).unwrap_or(0);
            // SAFETY: the piece is this long from the start of the mapping, which is borrowed mutably and
            // which no system call uses now.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, length) };
            transfer(bytes)
        })
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length, and nothing points to it any more.
        unsafe { libc::munmap(self.start.cast(), BOUNCE_BYTES) };
    }
}
