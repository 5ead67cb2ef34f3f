//! The memory of a descriptor chain: pieces of guest memory, never a Rust reference to it.

use std::fmt::{self, Debug};

use vm_memory::VolatileSlice;

/// One contiguous piece of guest memory, laid out as an `iovec`.
///
/// Whoever holds one has its [`DescriptorChain`](super::DescriptorChain), or the guest's memory
/// itself, as well: that keeps the memory mapped.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Segment(libc::iovec);

// SAFETY: a segment is an address and a length. The memory is mapped for the whole process and is used
// by volatile accesses and system calls alone, which any thread may do.
unsafe impl Send for Segment {}
// SAFETY: as for `Send`; a shared segment gives nothing but a copy of itself.
unsafe impl Sync for Segment {}

/// A run of bytes in a descriptor chain, possibly in many pieces.
#[derive(Debug, Clone, Copy)]
pub struct Buffers<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that come before the run.
    skip: usize,
    /// Length of the run; segments may go on beyond it.
    length: u64,
}

impl Segment {
    pub(super) fn new(slice: &VolatileSlice<'_>) -> Self {
        Self(libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        })
    }

    /// First byte, for a system call that reads or writes it. Other threads and the guest may write
    /// the memory at any moment.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// Length in bytes, never 0.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// The same pieces for `readv` and its relatives.
    pub fn as_iovecs(segments: &[Self]) -> &[libc::iovec] {
        let pointer: *const libc::iovec = segments.as_ptr().cast();
        // SAFETY: a segment is a transparent iovec, so the slice has the same layout.
        unsafe { std::slice::from_raw_parts(pointer, segments.len()) }
    }

    /// The `length` bytes from `offset`, as far as they are in this segment.
    fn part(&self, offset: usize, length: usize) -> Self {
        let offset = offset.min(self.0.iov_len);
        let left = self.0.iov_len.saturating_sub(offset);
        Self(libc::iovec {
            iov_base: self.as_ptr().wrapping_add(offset).cast(),
            iov_len: left.min(length),
        })
    }

    fn volatile(&self) -> VolatileSlice<'_> {
        // SAFETY: the segment was made from a volatile slice with this address and at least this
        // length, of memory that its chain keeps mapped.
        unsafe { VolatileSlice::new(self.as_ptr(), self.0.iov_len) }
    }
}

impl Debug for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:p}+{:#x}", self.0.iov_base, self.0.iov_len)
    }
}

impl<'a> Buffers<'a> {
    pub(super) fn new(segments: &'a [Segment], length: u64) -> Self {
        Self {
            segments,
            skip: 0,
            length,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first `at` bytes and the rest, or `None` when there are fewer than `at`.
    pub fn split_at(self, at: u64) -> Option<(Self, Self)> {
        let rest_length = self.length.checked_sub(at)?;
        let first = Self { length: at, ..self };
        let mut rest = Self {
            length: rest_length,
            ..self
        };
        let mut ahead = at;
        while ahead > 0 {
            let (segment, others) = rest.segments.split_first()?;
            let here = bytes(segment.len().saturating_sub(rest.skip));
            if ahead < here {
                let ahead = usize::try_from(ahead).ok()?;
                rest.skip = rest.skip.saturating_add(ahead);
                break;
            }
            ahead = ahead.saturating_sub(here);
            rest.segments = others;
            rest.skip = 0;
        }
        Some((first, rest))
    }

    /// The pieces, in order; none is empty.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + use<'a> {
        let mut skip = self.skip;
        let mut left = self.length;
        self.segments.iter().map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let part = segment.part(std::mem::take(&mut skip), most);
            left = left.saturating_sub(bytes(part.len()));
            Some(part)
        })
    }

    /// Copies from the start of the run into `destination`; returns how many bytes there were.
    pub fn copy_to(&self, destination: &mut [u8]) -> usize {
        let mut done = 0_usize;
        for segment in self.segments() {
            let Some(rest) = destination.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            done = done.saturating_add(segment.volatile().copy_to(rest));
        }
        done
    }

    /// Copies `source` to the start of the run; returns how many bytes had room.
    pub fn copy_from(&self, source: &[u8]) -> usize {
        let mut done = 0_usize;
        for segment in self.segments() {
            let Some(rest) = source.get(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let count = rest.len().min(segment.len());
            segment.volatile().copy_from(rest);
            done = done.saturating_add(count);
        }
        done
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
