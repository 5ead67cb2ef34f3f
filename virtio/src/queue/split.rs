//! The split virtqueue (virtio 1.3, 2.7), device side.
//!
//! Ring state, the available ring and the driver's doorbells are those of the `virtio-queue` crate, wrapped
//! here and nowhere else. It falls short in some things, which this module does itself:
//!
//! - Its iterators end silently on a bad chain (a `next` out of range, a loop, an unreadable table, a
//!   nested indirect table), so that the device would serve the part before. Chains are walked here, and
//!   what is wrong has a name.
//! - It follows indirect tables whether or not they were negotiated, and drops the rest of a chain
//!   whose indirect descriptor has a `next`.
//! - It ignores VIRTQ_AVAIL_F_NO_INTERRUPT, which counts when the event index is not negotiated.
//! - It shows each used buffer at once; here several become visible together.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::{DescriptorChain, Element, indirect_table_length, read_descriptor};
use super::state::{Head, Progress, QueueState};
use super::{QueueError, at, load, store};
use crate::GuestMemory;

/// Bytes before the elements of the used ring, and before the entries of the available ring: `flags`
/// and `idx`.
const RING_HEADER_BYTES: u64 = 4;
/// Offset of `idx` in either ring.
const INDEX_OFFSET: u64 = 2;
/// Bytes of an element of the used ring: `id` and `len`.
const USED_ELEMENT_BYTES: u64 = 8;
/// Bytes of an entry of the available ring.
const AVAILABLE_ENTRY_BYTES: u64 = 2;

/// A split ring and where the device is in it.
#[derive(Debug)]
pub(super) struct SplitRing {
    ring: virtio_queue::Queue,
    /// Where the next used buffer becomes visible.
    next_used: Wrapping<u16>,
    /// Used buffers behind that one which are written but not visible.
    staged: Wrapping<u16>,
    /// The used index at which the driver's wish was last looked at.
    told: Wrapping<u16>,
}

impl SplitRing {
    pub(super) fn new(
        state: &QueueState,
        event_index: bool,
        memory: &GuestMemory,
    ) -> Result<Self, QueueError> {
        let progress = state.progress.unwrap_or(Progress {
            next_available: 0,
            next_used: 0,
        });
        let mut ring = virtio_queue::Queue::try_from(virtio_queue::QueueState {
            max_size: state.max_size,
            next_avail: progress.next_available,
            next_used: progress.next_used,
            event_idx_enabled: event_index,
            size: state.size,
            ready: state.ready,
            desc_table: state.descriptor_area,
            avail_ring: state.driver_area,
            used_ring: state.device_area,
        })
        .map_err(QueueError::Ring)?;
        ring.set_event_idx(event_index);
        if !ring.is_valid(memory) {
            return Err(QueueError::RingOutsideMemory);
        }
        Ok(Self {
            ring,
            next_used: Wrapping(progress.next_used),
            staged: Wrapping(0),
            told: Wrapping(progress.next_used),
        })
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            next_available: self.ring.next_avail(),
            next_used: self.next_used.0,
        }
    }

    pub(super) fn pop(
        &mut self,
        memory: &GuestMemory,
        indirect: bool,
        chain: &mut DescriptorChain,
    ) -> Result<bool, QueueError> {
        let id = {
            let mut available = self.ring.iter(memory).map_err(QueueError::Ring)?;
            available.next().map(|found| found.head_index())
        };
        let Some(id) = id else {
            // The iterator would also end when it could not read the ring, but the ring is in memory: a
            // queue is not made otherwise, and memory does not go away.
            return Ok(false);
        };
        chain.set_head(Head { id, entries: 1 });
        self.follow(memory, indirect, chain)?;
        Ok(true)
    }

    pub(super) fn undo_pop(&mut self) {
        self.ring.go_to_previous_position();
    }

    fn follow(
        &self,
        memory: &GuestMemory,
        indirect: bool,
        chain: &mut DescriptorChain,
    ) -> Result<(), QueueError> {
        let mut table = self.ring.desc_table();
        let mut table_length = u32::from(self.ring.size());
        let mut index = chain.head().id;
        let mut in_indirect_table = false;
        if u32::from(index) >= table_length {
            return Err(QueueError::HeadOutOfRange {
                head: index,
                size: table_length,
            });
        }
        // Ends: the chain takes only so many elements, and one indirect table.
        loop {
            let descriptor = read_descriptor(memory, table, u32::from(index))?;
            let [flags, next] = descriptor.words;
            let has = |flag| u32::from(flags) & flag != 0;
            if has(VRING_DESC_F_INDIRECT) {
                if !indirect {
                    return Err(QueueError::IndirectNotNegotiated);
                } else if in_indirect_table {
                    return Err(QueueError::IndirectNested);
                } else if has(VRING_DESC_F_NEXT) {
                    return Err(QueueError::IndirectWithNext);
                }
                table = descriptor.address.0;
                table_length = indirect_table_length(descriptor.length)?;
                index = 0;
                in_indirect_table = true;
                continue;
            }
            chain.push(
                memory,
                Element {
                    address: descriptor.address,
                    length: descriptor.length,
                    writable: has(VRING_DESC_F_WRITE),
                },
            )?;
            if !has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = next;
            if u32::from(index) >= table_length {
                return Err(QueueError::NextOutOfRange {
                    next: index,
                    size: table_length,
                });
            }
        }
    }

    pub(super) fn stage_used(
        &mut self,
        memory: &GuestMemory,
        head: Head,
        written_bytes: u32,
    ) -> Result<(), QueueError> {
        let size = self.ring.size();
        if head.id >= size {
            return Err(QueueError::HeadOutOfRange {
                head: head.id,
                size: u32::from(size),
            });
        }
        if self.staged.0 == size {
            self.publish_used(memory)?;
        }
        let position = (self.next_used + self.staged).0.checked_rem(size);
        let offset = u64::from(position.unwrap_or(0))
            .saturating_mul(USED_ELEMENT_BYTES)
            .saturating_add(RING_HEADER_BYTES);
        let element = u64::from(head.id) | u64::from(written_bytes).wrapping_shl(32);
        memory
            .write_obj(element.to_le(), at(self.ring.used_ring(), offset)?)
            .map_err(|_| QueueError::RingOutsideMemory)?;
        self.staged += 1;
        Ok(())
    }

    pub(super) fn publish_used(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        self.next_used += std::mem::take(&mut self.staged);
        store(
            memory,
            self.next_used.0.to_le(),
            at(self.ring.used_ring(), INDEX_OFFSET)?,
            Ordering::Release,
        )
    }

    pub(super) fn has_staged(&self) -> bool {
        self.staged.0 != 0
    }

    pub(super) fn needs_notification(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        let new = self.next_used;
        let old = std::mem::replace(&mut self.told, new);
        // What was used must be visible before the driver's wish is read (2.7.7.2): a driver writes its wish,
        // then looks at the ring.
        fence(Ordering::SeqCst);
        if self.ring.event_idx_enabled() {
            let offset = u64::from(self.ring.size())
                .saturating_mul(AVAILABLE_ENTRY_BYTES)
                .saturating_add(RING_HEADER_BYTES);
            let event: u16 = load(
                memory,
                at(self.ring.avail_ring(), offset)?,
                Ordering::Relaxed,
            )?;
            return Ok(new - Wrapping(u16::from_le(event)) - Wrapping(1) < new - old);
        }
        let flags: u16 = load(
            memory,
            GuestAddress(self.ring.avail_ring()),
            Ordering::Relaxed,
        )?;
        Ok(new != old && u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    pub(super) fn enable_notification(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        self.ring
            .enable_notification(memory)
            .map_err(QueueError::Ring)
    }

    pub(super) fn disable_notification(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        self.ring
            .disable_notification(memory)
            .map_err(QueueError::Ring)
    }
}
