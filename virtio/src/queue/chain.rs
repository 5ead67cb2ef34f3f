//! One descriptor chain, checked whole before a device sees any of it (virtio 1.3, 2.7.5 and 2.8.5).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::buffers::{Buffers, Segment};
use super::{Head, Queue, QueueError};
use crate::GuestMemory;

/// Bytes of one descriptor (2.7.5, 2.8.13).
pub(super) const DESCRIPTOR_BYTES: u32 = 16;

/// Most bytes of a chain (2.7.5.2).
const CHAIN_MAX_BYTES: u64 = 1 << 32;

/// A place for one chain of a queue, used again for the next: taking a chain allocates nothing.
///
/// The chain's buffers are memory of the guest, which it can write at any moment: read what decides
/// something once.
#[derive(Debug)]
pub struct DescriptorChain {
    head: Head,
    /// Pieces that may still come, and how many there could be.
    room: u16,
    longest: u16,
    /// The readable ones, then the writable ones.
    segments: Vec<Segment>,
    readable_count: usize,
    readable_bytes: u64,
    writable_bytes: u64,
    /// Keeps what the segments point to mapped.
    memory: Arc<GuestMemory>,
}

/// A piece of a chain, as a descriptor says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub address: GuestAddress,
    pub length: u32,
    /// The device writes it; otherwise it reads it.
    pub writable: bool,
}

impl DescriptorChain {
    /// A place large enough for the longest chain that `queue` takes.
    pub fn new(queue: &Queue) -> Self {
        Self {
            head: Head { id: 0, entries: 0 },
            room: 0,
            longest: 0,
            segments: Vec::with_capacity(usize::from(queue.longest_chain())),
            readable_count: 0,
            readable_bytes: 0,
            writable_bytes: 0,
            memory: Arc::clone(&queue.memory),
        }
    }

    /// By what the chain is given back ([`Queue::add_used`]).
    pub fn head(&self) -> Head {
        self.head
    }

    /// What the driver wrote for the device.
    pub fn readable(&self) -> Buffers<'_> {
        let segments = self.segments.get(..self.readable_count).unwrap_or_default();
        Buffers::new(segments, self.readable_bytes)
    }

    /// Where the driver waits for what the device writes.
    pub fn writable(&self) -> Buffers<'_> {
        let segments = self.segments.get(self.readable_count..).unwrap_or_default();
        Buffers::new(segments, self.writable_bytes)
    }

    /// Replaces the chain by one of `memory` that `walk` puts together, if there is one. Otherwise, and after
    /// an error, the chain is empty.
    pub(super) fn fill(
        &mut self,
        memory: &Arc<GuestMemory>,
        longest: u16,
        walk: impl FnOnce(&mut Self) -> Result<bool, QueueError>,
    ) -> Result<bool, QueueError> {
        self.clear();
        if !Arc::ptr_eq(&self.memory, memory) {
            self.memory = Arc::clone(memory);
        }
        self.room = longest;
        self.longest = longest;
        let result = walk(self);
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.readable_count = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
    }

    /// Says by what the chain is given back.
    pub(super) fn set_head(&mut self, head: Head) {
        self.head = head;
    }

    /// Adds a piece, or says what is wrong with it.
    pub(super) fn push(
        &mut self,
        memory: &GuestMemory,
        element: Element,
    ) -> Result<(), QueueError> {
        let length = element.length;
        self.room = self.room.checked_sub(1).ok_or(QueueError::TooLong {
            longest: self.longest,
        })?;
        if length == 0 {
            return Err(QueueError::EmptyDescriptor);
        }
        let total = self.readable_bytes.saturating_add(self.writable_bytes);
        if total.saturating_add(u64::from(length)) > CHAIN_MAX_BYTES {
            return Err(QueueError::TooManyBytes);
        }
        let access = if element.writable {
            Permissions::Write
        } else if self.writable_bytes > 0 {
            return Err(QueueError::ReadableAfterWritable);
        } else {
            Permissions::Read
        };
        let outside = || QueueError::OutsideMemory {
            address: element.address.0,
            length: u64::from(length),
        };
        let count = usize::try_from(length).map_err(|_| outside())?;
        if let Ok(slice) = vm_memory::GuestMemoryBackend::get_slice(memory, element.address, count)
        {
            self.segments.push(Segment::new(&slice));
            self.count(access, length);
            return Ok(());
        }
        // The buffer goes from one region of memory into the next, or is not in memory.
        let slices = memory
            .get_slices(element.address, count, access)
            .map_err(|_| outside())?;
        for slice in slices {
            self.segments
                .push(Segment::new(&slice.map_err(|_| outside())?));
        }
        self.count(access, length);
        Ok(())
    }

    /// Counts a buffer whose segments are there.
    fn count(&mut self, access: Permissions, length: u32) {
        if access == Permissions::Write {
            self.writable_bytes = self.writable_bytes.saturating_add(u64::from(length));
        } else {
            self.readable_bytes = self.readable_bytes.saturating_add(u64::from(length));
            self.readable_count = self.segments.len();
        }
    }
}

/// A descriptor of either format.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawDescriptor {
    pub address: GuestAddress,
    pub length: u32,
    /// Flags and next one of a split ring, buffer id and flags of a packed one.
    pub words: [u16; 2],
}

/// Reads the descriptor with this index.
pub(super) fn read_descriptor(
    memory: &GuestMemory,
    table: u64,
    index: u32,
) -> Result<RawDescriptor, QueueError> {
    let offset = u64::from(index).saturating_mul(u64::from(DESCRIPTOR_BYTES));
    let outside = || QueueError::OutsideMemory {
        address: table.saturating_add(offset),
        length: u64::from(DESCRIPTOR_BYTES),
    };
    let address = table.checked_add(offset).ok_or_else(outside)?;
    let whole = usize::try_from(DESCRIPTOR_BYTES).unwrap_or(usize::MAX);
    let in_one_region =
        vm_memory::GuestMemoryBackend::get_slice(memory, GuestAddress(address), whole);
    let halves: [u64; 2] = match in_one_region {
        // Rings are aligned, indirect tables mostly: two accesses cost less than a copy of any alignment.
        Ok(slice) if address.is_multiple_of(8) => {
            let load = |at| slice.load(at, Ordering::Relaxed).map_err(|_| outside());
            [load(0)?, load(8)?]
        }
        Ok(slice) => slice.read_obj(0).map_err(|_| outside())?,
        Err(_) => memory
            .read_obj(GuestAddress(address))
            .map_err(|_| outside())?,
    };
    let [a, b, c, d, e, f, g, h] = halves[1].to_ne_bytes();
    Ok(RawDescriptor {
        address: GuestAddress(u64::from_le(halves[0])),
        length: u32::from_le_bytes([a, b, c, d]),
        words: [u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h])],
    })
}

/// The number of descriptors in an indirect table of `bytes` bytes.
pub(super) fn indirect_table_length(bytes: u32) -> Result<u32, QueueError> {
    if bytes == 0 || !bytes.is_multiple_of(DESCRIPTOR_BYTES) {
        return Err(QueueError::IndirectTableSize { length: bytes });
    }
    Ok(bytes / DESCRIPTOR_BYTES)
}
