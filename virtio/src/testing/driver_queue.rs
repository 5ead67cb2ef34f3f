//! The driver side of a virtqueue, split or packed.

use std::sync::Arc;

use super::packed_queue::PackedQueue;
use super::split_queue::SplitQueue;
use crate::{GuestMemory, feature};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// One buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub enum Buffer {
    /// The device reads this many bytes at this address.
    Readable(u64, u32),
    /// The device writes there.
    Writable(u64, u32),
}

impl Buffer {
    /// Address, length and flags of its descriptor.
    pub fn parts(self) -> (u64, u32, u16) {
        match self {
            Self::Readable(address, length) => (address, length, 0),
            Self::Writable(address, length) => (address, length, WRITE),
        }
    }
}

/// A ring with its driver's state.
#[derive(Debug)]
pub enum DriverQueue {
    Split(SplitQueue),
    Packed(PackedQueue),
}

impl DriverQueue {
    /// A ring of the kind that `features` say, with its descriptor, driver and device areas.
    pub fn new(memory: Arc<GuestMemory>, size: u16, areas: [u64; 3], features: u64) -> Self {
        let event_index = features & feature::RING_EVENT_IDX != 0;
        if features & feature::RING_PACKED == 0 {
            Self::Split(SplitQueue::new(memory, size, areas, event_index))
        } else {
            Self::Packed(PackedQueue::new(memory, size, areas, event_index))
        }
    }

    /// The ring, which is split.
    pub fn split(&mut self) -> &mut SplitQueue {
        match self {
            Self::Split(queue) => queue,
            Self::Packed(_) => panic!("the ring is packed"),
        }
    }

    /// The ring, which is packed.
    pub fn packed(&mut self) -> &mut PackedQueue {
        match self {
            Self::Split(_) => panic!("the ring is split"),
            Self::Packed(queue) => queue,
        }
    }

    /// Makes a chain of `buffers` available; returns the head, or buffer id.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        match self {
            Self::Split(queue) => queue.add(buffers),
            Self::Packed(queue) => queue.add(buffers),
        }
    }

    /// Writes `buffers` into an indirect table at `table` and makes it available.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        match self {
            Self::Split(queue) => queue.add_indirect(table, buffers),
            Self::Packed(queue) => queue.add_indirect(table, buffers),
        }
    }

    /// The next used buffer, if there is one: its head or id, and the bytes written. With the event index,
    /// asks for an interrupt at the one after it.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        match self {
            Self::Split(queue) => queue.take_used(),
            Self::Packed(queue) => queue.take_used(),
        }
    }

    /// Whether there is a used buffer.
    pub fn has_used(&self) -> bool {
        match self {
            Self::Split(queue) => queue.used_index() != queue.next_used,
            Self::Packed(queue) => queue.has_used(),
        }
    }

    /// Whether a driver rings the doorbell for what it made available since the last call.
    pub fn wants_doorbell(&mut self) -> bool {
        match self {
            Self::Split(queue) => queue.wants_doorbell(),
            Self::Packed(queue) => queue.wants_doorbell(),
        }
    }

    /// Says by flags, without the event index, that no interrupt is wanted, or that all are.
    pub fn set_no_interrupt(&self, no_interrupt: bool) {
        match self {
            Self::Split(queue) => queue.set_no_interrupt(no_interrupt),
            Self::Packed(queue) => queue.set_no_interrupt(no_interrupt),
        }
    }
}
