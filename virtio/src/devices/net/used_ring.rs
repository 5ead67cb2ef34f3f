//! Used buffers that become visible together.
//!
//! A frame in several mergeable buffers must not be seen in part: a driver that polls takes the first
//! of them, reads how many there are, and expects the others to be there (virtio 1.3, 5.1.6.4).
//! [`Queue::add_used`] shows each at once, so that this module writes the elements itself and moves
//! the index once for all of them (2.7.8). It belongs to the receive queue of one device, and is used
//! by that device's worker alone.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress};

use crate::queue::{Queue, QueueError};
use crate::{GuestMemory, feature};

/// Bytes before the elements of the used ring, and before the entries of the available ring: `flags`
/// and `idx`.
const RING_HEADER_BYTES: u64 = 4;
/// Offset of `idx` in either ring.
const INDEX_OFFSET: u64 = 2;
/// Bytes of an element of the used ring: `id` and `len`.
const USED_ELEMENT_BYTES: u64 = 8;
/// Bytes of an entry of the available ring.
const AVAILABLE_ENTRY_BYTES: u64 = 2;

/// One buffer to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub head: u16,
    pub written_bytes: u32,
}

/// The used side of one queue.
#[derive(Debug)]
pub(super) struct UsedRing {
    memory: Arc<GuestMemory>,
    features: u64,
    /// The index up to which the driver's wish for an interrupt has been looked at.
    looked_at: Wrapping<u16>,
}

impl UsedRing {
    pub(super) fn new(queue: &Queue, features: u64, memory: Arc<GuestMemory>) -> Self {
        Self {
            memory,
            features,
            looked_at: Wrapping(queue.state().next_used),
        }
    }

    /// Gives all of `used` back in one go. There are at most as many as the queue has descriptors.
    pub(super) fn publish(&mut self, queue: &mut Queue, used: &[Used]) -> Result<(), QueueError> {
        if let [one] = used {
            return queue.add_used(one.head, one.written_bytes);
        }
        let mut state = queue.state();
        let ring = GuestAddress(state.used_ring);
        let mut next = Wrapping(state.next_used);
        for Used {
            head,
            written_bytes,
        } in used
        {
            let position = next.0.checked_rem(state.size).unwrap_or(0);
            let offset = u64::from(position)
                .saturating_mul(USED_ELEMENT_BYTES)
                .saturating_add(RING_HEADER_BYTES);
            let element = u64::from(*head) | u64::from(*written_bytes).wrapping_shl(32);
            self.memory
                .write_obj(element.to_le(), address(ring, offset)?)
                .map_err(|_| QueueError::RingOutsideMemory)?;
            next += 1;
        }
        self.memory
            .store(
                next.0.to_le(),
                address(ring, INDEX_OFFSET)?,
                Ordering::Release,
            )
            .map_err(|_| QueueError::RingOutsideMemory)?;
        // The queue has no way to be told, but is all in its state.
        state.next_used = next.0;
        *queue = Queue::new(state, self.features, Arc::clone(&self.memory))?;
        Ok(())
    }

    /// Whether the driver wants to hear of what was used since the last call (2.7.7). As a queue that
    /// was made anew does not know what came before, the event index is looked at here.
    pub(super) fn needs_notification(&mut self, queue: &mut Queue) -> Result<bool, QueueError> {
        let state = queue.state();
        let old = std::mem::replace(&mut self.looked_at, Wrapping(state.next_used));
        let new = self.looked_at;
        if self.features & feature::RING_EVENT_IDX == 0 {
            return Ok(new != old && queue.needs_notification()?);
        }
        // What was used must be visible before the driver's wish is read (2.7.7.2).
        fence(Ordering::SeqCst);
        let offset = u64::from(state.size)
            .saturating_mul(AVAILABLE_ENTRY_BYTES)
            .saturating_add(RING_HEADER_BYTES);
        let event: u16 = self
            .memory
            .load(
                address(GuestAddress(state.avail_ring), offset)?,
                Ordering::Relaxed,
            )
            .map_err(|_| QueueError::RingOutsideMemory)?;
        Ok(new - Wrapping(u16::from_le(event)) - Wrapping(1) < new - old)
    }
}

fn address(ring: GuestAddress, offset: u64) -> Result<GuestAddress, QueueError> {
    ring.0
        .checked_add(offset)
        .map(GuestAddress)
        .ok_or(QueueError::RingOutsideMemory)
}
