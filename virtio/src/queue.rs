//! The split virtqueue (virtio 1.3, 2.7), device side, safe against its driver.
//!
//! Ring state, indices and event suppression are those of the `virtio-queue` crate, wrapped here and
//! nowhere else. It falls short in four things, which this module does itself:
//!
//! - Its iterators end silently on a bad chain (a `next` out of range, a loop, an unreadable table, a
//!   nested indirect table), so that the device would serve the part before. [`Queue::pop`] walks
//!   chains itself and names what is wrong.
//! - It follows indirect tables whether or not they were negotiated, and drops the rest of a chain
//!   whose indirect descriptor has a `next`.
//! - It ignores VIRTQ_AVAIL_F_NO_INTERRUPT, which counts when the event index is not negotiated.
//! - It hands descriptors out, not memory: each user would have to check addresses again.
//!
//! The first error makes a queue unusable: every later call returns [`QueueError::Unusable`] and does
//! not touch the ring, until the device is reset and gets a new queue.
//!
//! A queue is used by one thread, the worker of its device.

mod buffers;
mod chain;
mod error;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

pub use buffers::{Buffers, Segment};
pub use chain::DescriptorChain;
pub use error::QueueError;

use crate::{GuestMemory, feature};
use chain::Walk;

/// The device side of one split virtqueue.
#[derive(Debug)]
pub struct Queue {
    ring: virtio_queue::Queue,
    memory: Arc<GuestMemory>,
    indirect: bool,
    unusable: bool,
}

impl Queue {
    /// A queue as the driver, or a saved state, describes it. A `state` that is not ready gives a
    /// queue that never has anything; whatever else it says is then not looked at.
    ///
    /// `features` are the negotiated ones; those of the ring count here.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the size is not a power of two within the maximum, when a part of the ring
    /// is misaligned or outside of memory.
    pub fn new(
        state: QueueState,
        features: u64,
        memory: Arc<GuestMemory>,
    ) -> Result<Self, QueueError> {
        let state = if state.ready {
            state
        } else {
            let unused = virtio_queue::Queue::new(state.max_size).map_err(QueueError::Ring)?;
            unused.state()
        };
        let mut ring = virtio_queue::Queue::try_from(state).map_err(QueueError::Ring)?;
        ring.set_event_idx(features & feature::RING_EVENT_IDX != 0);
        if state.ready && !ring.is_valid(&*memory) {
            return Err(QueueError::RingOutsideMemory);
        }
        Ok(Self {
            ring,
            memory,
            indirect: features & feature::RING_INDIRECT_DESC != 0,
            unusable: false,
        })
    }

    /// Whether the driver uses this queue.
    pub fn ready(&self) -> bool {
        self.ring.ready()
    }

    /// Its size in descriptors, as the driver chose it.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The largest number of descriptors in a chain that [`pop`](Self::pop) takes: the size that the
    /// device offered. Linux sends indirect chains that are longer than the size that it chose, so
    /// that one is not the bound.
    pub fn longest_chain(&self) -> u16 {
        self.ring.max_size()
    }

    /// Ring addresses and indices, to make the same queue again.
    pub fn state(&self) -> QueueState {
        self.ring.state()
    }

    /// Takes the next available chain and fills `chain` with it. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the driver broke a rule; the queue is unusable from then on.
    pub fn pop(&mut self, chain: &mut DescriptorChain) -> Result<bool, QueueError> {
        self.guarded(|queue| queue.try_pop(chain))
    }

    /// Puts the last `count` chains that [`pop`](Self::pop) took back, so that they come again. None of
    /// them may have been used in between.
    pub fn undo_pop(&mut self, count: u16) {
        for _ in 0..count {
            self.ring.go_to_previous_position();
        }
    }

    /// Gives a chain back to the driver, by its head, with the number of bytes written to its
    /// device-writable part.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable, or `head` did not come from it.
    pub fn add_used(&mut self, head: u16, written_bytes: u32) -> Result<(), QueueError> {
        self.guarded(|queue| {
            queue
                .ring
                .add_used(&*queue.memory, head, written_bytes)
                .map_err(QueueError::Ring)
        })
    }

    /// Whether the driver wants to hear of the buffers used since the last call (2.7.7).
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn needs_notification(&mut self) -> Result<bool, QueueError> {
        self.guarded(|queue| {
            if queue.ring.event_idx_enabled() {
                return queue
                    .ring
                    .needs_notification(&*queue.memory)
                    .map_err(QueueError::Ring);
            }
            // What was used must be visible before the driver's wish is read (2.7.7.2): a driver
            // writes its wish, then looks at the ring.
            fence(Ordering::SeqCst);
            let flags: u16 = queue
                .memory
                .load(GuestAddress(queue.ring.avail_ring()), Ordering::Relaxed)
                .map_err(|_| QueueError::RingOutsideMemory)?;
            Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
        })
    }

    /// Asks the driver for a doorbell at the next buffer, and returns whether something has become
    /// available meanwhile: then there may be no doorbell for it (2.7.10).
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn enable_notification(&mut self) -> Result<bool, QueueError> {
        self.guarded(|queue| {
            if !queue.ready() {
                return Ok(false);
            }
            queue
                .ring
                .enable_notification(&*queue.memory)
                .map_err(QueueError::Ring)
        })
    }

    /// Tells the driver that no doorbell is needed, while the device looks at the ring by itself.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn disable_notification(&mut self) -> Result<(), QueueError> {
        self.guarded(|queue| {
            if !queue.ready() {
                return Ok(());
            }
            queue
                .ring
                .disable_notification(&*queue.memory)
                .map_err(QueueError::Ring)
        })
    }

    fn try_pop(&mut self, chain: &mut DescriptorChain) -> Result<bool, QueueError> {
        if !self.ring.ready() {
            return Ok(false);
        }
        let head = {
            let mut available = self.ring.iter(&*self.memory).map_err(QueueError::Ring)?;
            available.next().map(|found| found.head_index())
        };
        let Some(head) = head else {
            // The iterator would also end when it could not read the ring, but the ring is in memory: a
            // queue is not made otherwise, and memory does not go away.
            return Ok(false);
        };
        chain.fill(Walk {
            memory: &self.memory,
            table: GuestAddress(self.ring.desc_table()),
            table_length: u32::from(self.ring.size()),
            head,
            longest: self.ring.max_size(),
            indirect: self.indirect,
        })?;
        Ok(true)
    }

    fn guarded<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        if self.unusable {
            return Err(QueueError::Unusable);
        }
        let result = action(self);
        self.unusable = result.is_err();
        result
    }
}

#[cfg(test)]
mod tests;
