//! One descriptor chain, checked whole before a device sees any of it (virtio 1.3, 2.7.5).

use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, GuestMemoryError, Permissions};

use super::buffers::{Buffers, Segment};
use super::{Queue, QueueError};
use crate::GuestMemory;

/// Bytes of one descriptor (2.7.5).
const DESCRIPTOR_BYTES: u32 = 16;

/// Most bytes of a chain (2.7.5.2).
const CHAIN_MAX_BYTES: u64 = 1 << 32;

/// A place for one chain of a queue, used again for the next: taking a chain allocates nothing.
///
/// The chain's buffers are memory of the guest, which it can write at any moment: read what decides
/// something once.
#[derive(Debug)]
pub struct DescriptorChain {
    head: u16,
    /// The readable ones, then the writable ones.
    segments: Vec<Segment>,
    readable_count: usize,
    readable_bytes: u64,
    writable_bytes: u64,
    /// Keeps what the segments point to mapped.
    memory: Arc<GuestMemory>,
}

/// Where a chain begins, and what it must keep to.
pub(super) struct Walk<'a> {
    pub memory: &'a Arc<GuestMemory>,
    pub table: GuestAddress,
    /// Size of the table in descriptors.
    pub table_length: u32,
    pub head: u16,
    /// Most descriptors with a buffer.
    pub longest: u16,
    /// Whether indirect descriptors were negotiated.
    pub indirect: bool,
}

impl DescriptorChain {
    /// A place large enough for the longest chain that `queue` takes.
    pub fn new(queue: &Queue) -> Self {
        Self {
            head: 0,
            segments: Vec::with_capacity(usize::from(queue.longest_chain())),
            readable_count: 0,
            readable_bytes: 0,
            writable_bytes: 0,
            memory: Arc::clone(&queue.memory),
        }
    }

    /// Index of the first descriptor, by which the chain is given back ([`Queue::add_used`]).
    pub fn head(&self) -> u16 {
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

    /// Replaces the chain by the one at `walk`. After an error the chain is empty.
    pub(super) fn fill(&mut self, walk: Walk<'_>) -> Result<(), QueueError> {
        self.clear();
        if !Arc::ptr_eq(&self.memory, walk.memory) {
            self.memory = Arc::clone(walk.memory);
        }
        self.head = walk.head;
        let result = self.follow(walk);
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

    fn follow(&mut self, walk: Walk<'_>) -> Result<(), QueueError> {
        let (mut table, mut table_length) = (walk.table, walk.table_length);
        let mut index = walk.head;
        let mut in_indirect_table = false;
        if u32::from(index) >= table_length {
            return Err(QueueError::HeadOutOfRange {
                head: index,
                size: table_length,
            });
        }
        // One round more than the longest chain has: for the indirect descriptor itself.
        let mut buffers = 0_u16;
        loop {
            let descriptor = read_descriptor(walk.memory, table, index)?;
            if descriptor.refers_to_indirect_table() {
                let length = check_indirect(&descriptor, walk.indirect, in_indirect_table)?;
                table = descriptor.addr();
                table_length = length;
                index = 0;
                in_indirect_table = true;
                continue;
            }
            if buffers == walk.longest {
                return Err(QueueError::TooLong {
                    longest: walk.longest,
                });
            }
            buffers = buffers.saturating_add(1);
            self.push(walk.memory, &descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
            if u32::from(index) >= table_length {
                return Err(QueueError::NextOutOfRange {
                    next: index,
                    size: table_length,
                });
            }
        }
    }

    fn push(&mut self, memory: &GuestMemory, descriptor: &Descriptor) -> Result<(), QueueError> {
        let length = descriptor.len();
        if length == 0 {
            return Err(QueueError::EmptyDescriptor);
        }
        let total = self.readable_bytes.saturating_add(self.writable_bytes);
        if total.saturating_add(u64::from(length)) > CHAIN_MAX_BYTES {
            return Err(QueueError::TooManyBytes);
        }
        let access = if descriptor.is_write_only() {
            Permissions::Write
        } else if self.writable_bytes > 0 {
            return Err(QueueError::ReadableAfterWritable);
        } else {
            Permissions::Read
        };
        let outside = || QueueError::OutsideMemory {
            address: descriptor.addr().0,
            length: u64::from(length),
        };
        let count = usize::try_from(length).map_err(|_| outside())?;
        if let Ok(slice) =
            vm_memory::GuestMemoryBackend::get_slice(memory, descriptor.addr(), count)
        {
            self.segments.push(Segment::new(&slice));
            self.count(access, length);
            return Ok(());
        }
        // The buffer goes from one region of memory into the next, or is not in memory.
        let slices = memory
            .get_slices(descriptor.addr(), count, access)
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

fn read_descriptor(
    memory: &GuestMemory,
    table: GuestAddress,
    index: u16,
) -> Result<Descriptor, QueueError> {
    let offset = u64::from(index).saturating_mul(u64::from(DESCRIPTOR_BYTES));
    let outside = || QueueError::OutsideMemory {
        address: table.0.saturating_add(offset),
        length: u64::from(DESCRIPTOR_BYTES),
    };
    let address = GuestAddress(table.0.checked_add(offset).ok_or_else(outside)?);
    let in_one_region =
        vm_memory::GuestMemoryBackend::get_slice(memory, address, size_of::<Descriptor>());
    let descriptor = match in_one_region {
        Ok(slice) => slice.read_obj(0).map_err(GuestMemoryError::from),
        Err(_) => memory.read_obj(address),
    };
    descriptor.map_err(|_| outside())
}

/// The number of descriptors in the table that `descriptor` refers to. Its write flag means nothing
/// (2.7.5.3.2).
fn check_indirect(
    descriptor: &Descriptor,
    negotiated: bool,
    in_indirect_table: bool,
) -> Result<u32, QueueError> {
    let length = descriptor.len();
    if !negotiated {
        Err(QueueError::IndirectNotNegotiated)
    } else if in_indirect_table {
        Err(QueueError::IndirectNested)
    } else if descriptor.has_next() {
        Err(QueueError::IndirectWithNext)
    } else if length == 0 || !length.is_multiple_of(DESCRIPTOR_BYTES) {
        Err(QueueError::IndirectTableSize { length })
    } else {
        Ok(length / DESCRIPTOR_BYTES)
    }
}
