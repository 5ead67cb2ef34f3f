//! The packed virtqueue (virtio 1.3, 2.8), device side.
//!
//! One ring of descriptors, which the driver fills and the device overwrites with what it has used, in the
//! order of completion. Which of both a descriptor is follows from two of its flags and the wrap counter.
//!
//! Length, buffer id and flags of a descriptor are eight aligned bytes: they are read in one access and
//! written in one. So no used descriptor is ever there in part, and a batch needs but its first one held
//! back.
//!
//! A driver cannot have more descriptors under way than the ring has: those that the device took and has not
//! used are counted, and what would take more is refused. That also bounds each chain.

mod event;
mod position;

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use super::chain::{
    DESCRIPTOR_BYTES, DescriptorChain, Element, indirect_table_length, read_descriptor,
};
use super::state::{Head, Progress, QueueState};
use super::{QueueError, at, load, store};
use crate::GuestMemory;
use event::{EVENT_BYTES, Wish};
use position::Position;

/// Most descriptors of a ring (2.8).
const SIZE_MAX: u16 = 1 << 15;
/// Offset of length, buffer id and flags in a descriptor.
const TAIL_OFFSET: u64 = 8;
/// VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED (2.8.1).
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A packed ring and where the device is in it.
#[derive(Debug)]
pub(super) struct PackedRing {
    state: QueueState,
    event_index: bool,
    next_available: Position,
    /// Where the next used descriptor becomes visible.
    next_used: Position,
    /// Descriptors that were taken and not given back, staged ones among them.
    in_use: u16,
    /// Descriptors of the chains that are staged.
    staged: u16,
    /// The first staged one: where it goes, and what is written there last.
    first_staged: Option<(GuestAddress, u64)>,
    /// Descriptors of the chains that became visible since the driver's wish was last looked at.
    untold: u32,
}

/// A descriptor but for its address.
#[derive(Debug, Clone, Copy)]
struct Tail {
    length: u32,
    id: u16,
    flags: u16,
}

impl Tail {
    fn from_le(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_ne_bytes();
        Self {
            length: u32::from_le_bytes([a, b, c, d]),
            id: u16::from_le_bytes([e, f]),
            flags: u16::from_le_bytes([g, h]),
        }
    }

    fn to_le(self) -> u64 {
        let [a, b, c, d] = self.length.to_le_bytes();
        let [e, f] = self.id.to_le_bytes();
        let [g, h] = self.flags.to_le_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }

    /// Whether the driver has made it available, this time round.
    fn is_available(self, wrap: bool) -> bool {
        let available = self.flags & AVAILABLE != 0;
        let used = self.flags & USED != 0;
        available == wrap && used != wrap
    }
}

impl PackedRing {
    pub(super) fn new(
        state: &QueueState,
        event_index: bool,
        memory: &GuestMemory,
    ) -> Result<Self, QueueError> {
        let size = state.size;
        if size == 0 || size > state.max_size.min(SIZE_MAX) {
            return Err(QueueError::Size { size });
        }
        let ring_bytes = u64::from(size).saturating_mul(u64::from(DESCRIPTOR_BYTES));
        let parts = [
            (
                state.descriptor_area,
                u64::from(DESCRIPTOR_BYTES),
                ring_bytes,
            ),
            (state.driver_area, EVENT_BYTES, EVENT_BYTES),
            (state.device_area, EVENT_BYTES, EVENT_BYTES),
        ];
        for (address, alignment, length) in parts {
            if !address.is_multiple_of(alignment) {
                return Err(QueueError::Misaligned { address, alignment });
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if !memory.check_range(GuestAddress(address), length, Permissions::ReadWrite) {
                return Err(QueueError::RingOutsideMemory);
            }
        }
        let (next_available, next_used) = match state.progress {
            None => (Position::START, Position::START),
            Some(progress) => {
                let place = |bits| {
                    Position::from_bits(bits, size).ok_or(QueueError::NoSuchPlace { place: bits })
                };
                (place(progress.next_available)?, place(progress.next_used)?)
            }
        };
        let in_use = u16::try_from(next_used.distance(next_available, size)).unwrap_or(u16::MAX);
        if in_use > size {
            return Err(QueueError::NoSuchPlace {
                place: next_available.to_bits(),
            });
        }
        Ok(Self {
            state: *state,
            event_index,
            next_available,
            next_used,
            in_use,
            staged: 0,
            first_staged: None,
            untold: 0,
        })
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            next_available: self.next_available.to_bits(),
            next_used: self.next_used.to_bits(),
        }
    }

    pub(super) fn pop(
        &mut self,
        memory: &GuestMemory,
        indirect: bool,
        chain: &mut DescriptorChain,
    ) -> Result<bool, QueueError> {
        let size = self.state.size;
        let mut tail = self.tail(memory, self.next_available)?;
        if !tail.is_available(self.next_available.wrap) {
            return Ok(false);
        }
        let free = size.saturating_sub(self.in_use);
        let mut position = self.next_available;
        let mut entries = 0_u16;
        loop {
            if entries == free {
                return Err(QueueError::Overrun { size });
            }
            let address = self.address(memory, position)?;
            entries = entries.saturating_add(1);
            position = position.after(1, size);
            if tail.has(VRING_DESC_F_INDIRECT) {
                if !indirect {
                    return Err(QueueError::IndirectNotNegotiated);
                } else if entries > 1 || tail.has(VRING_DESC_F_NEXT) {
                    // A list is all of one kind (2.8.5).
                    return Err(QueueError::IndirectWithNext);
                }
                push_table(memory, address, tail.length, chain)?;
                break;
            }
            chain.push(
                memory,
                Element {
                    address,
                    length: tail.length,
                    writable: tail.has(VRING_DESC_F_WRITE),
                },
            )?;
            if !tail.has(VRING_DESC_F_NEXT) {
                break;
            }
            tail = self.tail(memory, position)?;
        }
        // The last one of a list has the buffer id (2.8.6).
        chain.set_head(Head {
            id: tail.id,
            entries,
        });
        self.next_available = position;
        self.in_use = self.in_use.saturating_add(entries);
        Ok(true)
    }

    pub(super) fn undo_pop(&mut self, head: Head) {
        let entries = head.entries.min(self.in_use);
        self.next_available = self.next_available.before(entries, self.state.size);
        self.in_use = self.in_use.saturating_sub(entries);
    }

    pub(super) fn stage_used(
        &mut self,
        memory: &GuestMemory,
        head: Head,
        written_bytes: u32,
    ) -> Result<(), QueueError> {
        let size = self.state.size;
        let staged = self.staged.saturating_add(head.entries);
        if staged > self.in_use {
            return Err(QueueError::NotTaken { id: head.id });
        }
        let position = self.next_used.after(self.staged, size);
        let mut flags = 0;
        if position.wrap {
            flags |= AVAILABLE | USED;
        }
        if written_bytes > 0 {
            flags |= u16::try_from(VRING_DESC_F_WRITE).unwrap_or(0);
        }
        let tail = Tail {
            length: written_bytes,
            id: head.id,
            flags,
        };
        let place = self.tail_address(position)?;
        // A driver looks at the next used descriptor alone: it does not see what lies behind it.
        match self.first_staged {
            None => self.first_staged = Some((place, tail.to_le())),
            Some(_) => store(memory, tail.to_le(), place, Ordering::Relaxed)?,
        }
        self.staged = staged;
        Ok(())
    }

    pub(super) fn publish_used(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        if let Some((place, tail)) = self.first_staged.take() {
            store(memory, tail, place, Ordering::Release)?;
        }
        let staged = std::mem::take(&mut self.staged);
        self.next_used = self.next_used.after(staged, self.state.size);
        self.in_use = self.in_use.saturating_sub(staged);
        self.untold = self.untold.saturating_add(u32::from(staged));
        Ok(())
    }

    pub(super) fn has_staged(&self) -> bool {
        self.staged != 0
    }

    pub(super) fn needs_notification(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        let untold = std::mem::take(&mut self.untold);
        if untold == 0 {
            return Ok(false);
        }
        let size = self.state.size;
        Ok(
            match event::read_wish(memory, self.state.driver_area, self.event_index)? {
                Wish::Everything => true,
                Wish::Nothing => false,
                // Among the last ones that were used. A place that the ring does not have never comes.
                Wish::At(place) => Position::from_bits(place, size).is_some_and(|place| {
                    let back = place.distance(self.next_used, size);
                    back <= untold && (back > 0 || untold >= u32::from(size).saturating_mul(2))
                }),
            },
        )
    }

    pub(super) fn enable_notification(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        let next = self.event_index.then_some(self.next_available);
        event::ask_for_doorbell(memory, self.state.device_area, next)?;
        // The wish must be visible before the ring is read.
        fence(Ordering::SeqCst);
        let tail = self.tail(memory, self.next_available)?;
        Ok(tail.is_available(self.next_available.wrap))
    }

    /// With the event index nothing is to be said: the descriptor that was last asked for has been taken.
    pub(super) fn disable_notification(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        if self.event_index {
            return Ok(());
        }
        event::refuse_doorbells(memory, self.state.device_area)
    }

    fn tail(&self, memory: &GuestMemory, position: Position) -> Result<Tail, QueueError> {
        // What the driver wrote before the flags is visible after them.
        let bits = load(memory, self.tail_address(position)?, Ordering::Acquire)?;
        Ok(Tail::from_le(bits))
    }

    fn address(
        &self,
        memory: &GuestMemory,
        position: Position,
    ) -> Result<GuestAddress, QueueError> {
        let place = at(self.state.descriptor_area, offset(position))?;
        let bits: u64 = load(memory, place, Ordering::Relaxed)?;
        Ok(GuestAddress(u64::from_le(bits)))
    }

    fn tail_address(&self, position: Position) -> Result<GuestAddress, QueueError> {
        let offset = offset(position).saturating_add(TAIL_OFFSET);
        at(self.state.descriptor_area, offset)
    }
}

fn offset(position: Position) -> u64 {
    u64::from(position.index).saturating_mul(u64::from(DESCRIPTOR_BYTES))
}

/// Takes the elements of an indirect table, of whose descriptors' flags one means something (2.8.7).
fn push_table(
    memory: &GuestMemory,
    table: GuestAddress,
    table_bytes: u32,
    chain: &mut DescriptorChain,
) -> Result<(), QueueError> {
    // Ends: the chain takes only so many elements.
    for index in 0..indirect_table_length(table_bytes)? {
        let descriptor = read_descriptor(memory, table.0, index)?;
        let [_id, flags] = descriptor.words;
        chain.push(
            memory,
            Element {
                address: descriptor.address,
                length: descriptor.length,
                writable: u32::from(flags) & VRING_DESC_F_WRITE != 0,
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
