//! Receive buffers that were taken from the ring and wait for a frame.
//!
//! Mergeable buffers are many and small; a frame may need dozens of them or one. They are taken from
//! the ring once, ahead of the frames, and kept here in their order, without an allocation.

use std::collections::VecDeque;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::GuestMemory;
use crate::queue::{DescriptorChain, Head, Queue, QueueError, Segment};
use crate::tap::{HEADER_BYTES, IoVectors, MAX_PIECES, TooManyPieces};

/// Pieces that a read needs beside those of the guest: the header and what overflows.
const OTHER_PIECES: usize = 2;

/// One chain that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    head: Head,
    segment_count: usize,
    bytes: usize,
}

/// The chains that wait, oldest first.
#[derive(Debug)]
pub(super) struct Stage {
    chains: VecDeque<Waiting>,
    segments: VecDeque<Segment>,
    bytes: usize,
    /// Keeps what the segments point to mapped.
    _memory: Arc<GuestMemory>,
}

impl Stage {
    /// A stage for at most `chain_count` chains.
    pub(super) fn new(chain_count: u16, memory: Arc<GuestMemory>) -> Self {
        Self {
            chains: VecDeque::with_capacity(usize::from(chain_count)),
            segments: VecDeque::with_capacity(MAX_PIECES),
            bytes: 0,
            _memory: memory,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    /// Room of all chains.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Room of the oldest chain; 0 when there is none.
    pub(super) fn front_bytes(&self) -> usize {
        self.chains.front().map_or(0, |chain| chain.bytes)
    }

    /// Adds a chain; `false` when there is no room for it.
    pub(super) fn push(&mut self, chain: &DescriptorChain) -> bool {
        let writable = chain.writable();
        let before = self.segments.len();
        for segment in writable.segments() {
            if self.segments.len().saturating_add(OTHER_PIECES) >= MAX_PIECES {
                self.segments.truncate(before);
                return false;
            }
            self.segments.push_back(segment);
        }
        let bytes = usize::try_from(writable.len()).unwrap_or(usize::MAX);
        self.chains.push_back(Waiting {
            head: chain.head(),
            segment_count: self.segments.len().saturating_sub(before),
            bytes,
        });
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }

    /// Takes the oldest chain; gives its head.
    pub(super) fn pop(&mut self) -> Option<Head> {
        let chain = self.chains.pop_front()?;
        self.segments
            .drain(..chain.segment_count.min(self.segments.len()));
        self.bytes = self.bytes.saturating_sub(chain.bytes);
        Some(chain.head)
    }

    /// Puts all chains back into `queue`, so that they come again.
    pub(super) fn put_back(&mut self, queue: &mut Queue) {
        while let Some(chain) = self.chains.pop_back() {
            queue.undo_pop(chain.head);
        }
        self.segments.clear();
        self.bytes = 0;
    }

    /// Adds to `vectors` where the frame behind a header goes: to the oldest chain, or to `all`.
    pub(super) fn push_to<'m>(
        &'m self,
        vectors: &mut IoVectors<'_, 'm>,
        all: bool,
    ) -> Result<(), TooManyPieces> {
        let count = if all {
            self.segments.len()
        } else {
            self.chains.front().map_or(0, |chain| chain.segment_count)
        };
        let mut skip = HEADER_BYTES;
        for segment in self.segments.iter().take(count) {
            // SAFETY: the segment is memory of the guest, which `self` keeps mapped for `'m`.
            unsafe { vectors.push_segment(*segment, skip)? };
            skip = skip.saturating_sub(segment.len());
        }
        Ok(())
    }

    /// Copies `bytes` into the chains, from the byte `offset` of the oldest on.
    pub(super) fn write(&self, mut offset: usize, mut bytes: &[u8]) {
        for segment in &self.segments {
            if bytes.is_empty() {
                break;
            }
            if offset >= segment.len() {
                offset = offset.saturating_sub(segment.len());
                continue;
            }
            let room = segment.len().saturating_sub(offset);
            let (here, rest) = bytes.split_at(room.min(bytes.len()));
            // SAFETY: `offset` is within the segment, which is memory of the guest that `self` keeps
            // mapped; it is only ever accessed as volatile.
            let to = unsafe { VolatileSlice::new(segment.as_ptr().wrapping_add(offset), room) };
            to.copy_from(here);
            bytes = rest;
            offset = 0;
        }
    }

    /// Gives the chains into which `bytes` went back to `queue`, oldest first. They become visible with the
    /// next [`Queue::publish_used`]: a driver that polls takes the first of a frame, reads how many there are,
    /// and expects the others to be there (virtio 1.3, 5.1.6.4).
    pub(super) fn use_up(&mut self, mut bytes: usize, queue: &mut Queue) -> Result<(), QueueError> {
        while bytes > 0 {
            let here = bytes.min(self.front_bytes());
            let Some(head) = self.pop() else {
                break;
            };
            let written_bytes = u32::try_from(here).unwrap_or(u32::MAX);
            queue.stage_used(head, written_bytes)?;
            bytes = bytes.saturating_sub(here);
        }
        Ok(())
    }

    /// How many chains `bytes` go into, from the oldest on; `None` when they do not fit.
    pub(super) fn chains_for(&self, mut bytes: usize) -> Option<usize> {
        for (count, chain) in (1_usize..).zip(&self.chains) {
            bytes = bytes.saturating_sub(chain.bytes);
            if bytes == 0 {
                return Some(count);
            }
        }
        None
    }
}
