//! A virtqueue, device side, safe against its driver: split (virtio 1.3, 2.7) or packed (2.8), as was
//! negotiated. No device knows which it has.
//!
//! The first error makes a queue unusable: every later call returns [`QueueError::Unusable`] and does
//! not touch the ring, until the device is reset and gets a new queue.
//!
//! A queue is used by one thread, the worker of its device.

mod buffers;
mod chain;
mod error;
mod packed;
mod split;
mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, Bytes, GuestAddress};

pub use buffers::{Buffers, Segment};
pub use chain::DescriptorChain;
pub use error::QueueError;
pub use state::{Head, Progress, QueueState};

use crate::{GuestMemory, feature};
use packed::PackedRing;
use split::SplitRing;

/// The device side of one virtqueue.
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    state: QueueState,
    memory: Arc<GuestMemory>,
    indirect: bool,
    unusable: bool,
}

#[derive(Debug)]
enum Ring {
    /// The driver does not use the queue.
    Unused,
    Split(SplitRing),
    Packed(PackedRing),
}

impl Queue {
    /// A queue as the driver, or a saved state, describes it. A `state` that is not ready gives a
    /// queue that never has anything; whatever else it says is then not looked at.
    ///
    /// `features` are the negotiated ones; those of the ring count here.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the size is none that the ring can have within the maximum, when a part of the
    /// ring is misaligned or outside of memory, or when the ring has no such place to go on at.
    pub fn new(
        state: QueueState,
        features: u64,
        memory: Arc<GuestMemory>,
    ) -> Result<Self, QueueError> {
        let event_index = features & feature::RING_EVENT_IDX != 0;
        let ring = if !state.ready {
            Ring::Unused
        } else if features & feature::RING_PACKED != 0 {
            Ring::Packed(PackedRing::new(&state, event_index, &memory)?)
        } else {
            Ring::Split(SplitRing::new(&state, event_index, &memory)?)
        };
        Ok(Self {
            ring,
            state,
            memory,
            indirect: features & feature::RING_INDIRECT_DESC != 0,
            unusable: false,
        })
    }

    /// Whether the driver uses this queue.
    pub fn ready(&self) -> bool {
        self.state.ready
    }

    /// Its size in descriptors, as the driver chose it.
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// The largest number of descriptors in a chain that [`pop`](Self::pop) takes: the size that the
    /// device offered. Linux sends indirect chains that are longer than the size that it chose, so
    /// that one is not the bound.
    pub fn longest_chain(&self) -> u16 {
        self.state.max_size
    }

    /// Ring addresses and places in the ring, to make the same queue again. What is staged is not in it:
    /// publish that first.
    pub fn state(&self) -> QueueState {
        QueueState {
            progress: match &self.ring {
                Ring::Unused => self.state.progress,
                Ring::Split(ring) => Some(ring.progress()),
                Ring::Packed(ring) => Some(ring.progress()),
            },
            ..self.state
        }
    }

    /// Takes the next available chain and fills `chain` with it. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the driver broke a rule; the queue is unusable from then on.
    pub fn pop(&mut self, chain: &mut DescriptorChain) -> Result<bool, QueueError> {
        self.guarded(|queue| {
            let Self {
                ring,
                memory,
                indirect,
                state,
                ..
            } = queue;
            chain.fill(memory, state.max_size, |chain| match ring {
                Ring::Unused => Ok(false),
                Ring::Split(ring) => ring.pop(memory, *indirect, chain),
                Ring::Packed(ring) => ring.pop(memory, *indirect, chain),
            })
        })
    }

    /// Puts the chain that [`pop`](Self::pop) took last, `head`, back, so that it comes again. Several go
    /// back from the last one on. None that was taken after it may have been used.
    pub fn undo_pop(&mut self, head: Head) {
        match &mut self.ring {
            Ring::Unused => {}
            Ring::Split(ring) => ring.undo_pop(),
            Ring::Packed(ring) => ring.undo_pop(head),
        }
    }

    /// Gives a chain back to the driver, by its head, with the number of bytes written to its
    /// device-writable part.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable, or `head` did not come from it.
    pub fn add_used(&mut self, head: Head, written_bytes: u32) -> Result<(), QueueError> {
        self.stage_used(head, written_bytes)?;
        self.publish_used()
    }

    /// As [`add_used`](Self::add_used), but the driver does not see it before
    /// [`publish_used`](Self::publish_used): then it sees all that was staged together. What a driver must
    /// not see in part is given back this way, and what completes together is cheaper so.
    ///
    /// # Errors
    ///
    /// As for `add_used`.
    pub fn stage_used(&mut self, head: Head, written_bytes: u32) -> Result<(), QueueError> {
        self.guarded(|queue| match &mut queue.ring {
            Ring::Unused => Ok(()),
            Ring::Split(ring) => ring.stage_used(&queue.memory, head, written_bytes),
            Ring::Packed(ring) => ring.stage_used(&queue.memory, head, written_bytes),
        })
    }

    /// Shows the driver what is staged, if anything is.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn publish_used(&mut self) -> Result<(), QueueError> {
        self.guarded(|queue| match &mut queue.ring {
            Ring::Split(ring) if ring.has_staged() => ring.publish_used(&queue.memory),
            Ring::Packed(ring) if ring.has_staged() => ring.publish_used(&queue.memory),
            Ring::Unused | Ring::Split(_) | Ring::Packed(_) => Ok(()),
        })
    }

    /// Whether the driver wants to hear of the buffers that it could see since the last call (2.7.7,
    /// 2.8.10). When there are none, it does not.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn needs_notification(&mut self) -> Result<bool, QueueError> {
        self.guarded(|queue| match &mut queue.ring {
            Ring::Unused => Ok(false),
            Ring::Split(ring) => ring.needs_notification(&queue.memory),
            Ring::Packed(ring) => ring.needs_notification(&queue.memory),
        })
    }

    /// Asks the driver for a doorbell at the next buffer, and returns whether something has become
    /// available meanwhile: then there may be no doorbell for it (2.7.10, 2.8.10).
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn enable_notification(&mut self) -> Result<bool, QueueError> {
        self.guarded(|queue| match &mut queue.ring {
            Ring::Unused => Ok(false),
            Ring::Split(ring) => ring.enable_notification(&queue.memory),
            Ring::Packed(ring) => ring.enable_notification(&queue.memory),
        })
    }

    /// Tells the driver that no doorbell is needed, while the device looks at the ring by itself.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the queue is unusable.
    pub fn disable_notification(&mut self) -> Result<(), QueueError> {
        self.guarded(|queue| match &mut queue.ring {
            Ring::Unused => Ok(()),
            Ring::Split(ring) => ring.disable_notification(&queue.memory),
            Ring::Packed(ring) => ring.disable_notification(&queue.memory),
        })
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

/// The address `offset` bytes behind `area`, a part of a ring.
fn at(area: u64, offset: u64) -> Result<GuestAddress, QueueError> {
    area.checked_add(offset)
        .map(GuestAddress)
        .ok_or(QueueError::RingOutsideMemory)
}

/// Reads a field of a ring in one access.
fn load<T: AtomicAccess>(
    memory: &GuestMemory,
    address: GuestAddress,
    order: Ordering,
) -> Result<T, QueueError> {
    memory
        .load(address, order)
        .map_err(|_| QueueError::RingOutsideMemory)
}

/// Writes a field of a ring in one access.
fn store<T: AtomicAccess>(
    memory: &GuestMemory,
    value: T,
    address: GuestAddress,
    order: Ordering,
) -> Result<(), QueueError> {
    memory
        .store(value, address, order)
        .map_err(|_| QueueError::RingOutsideMemory)
}

#[cfg(test)]
mod tests;
