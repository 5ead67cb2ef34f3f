//! Packed rings, the driver's side (virtio 1.3, 2.8).
//!
//! A request is laid out as for a split ring, in a table that the device does not know; publishing copies it
//! into the ring, with its head as buffer id.

use core::sync::atomic::{Ordering, fence};

use crate::dma::DmaBuffer;
use crate::virtio::{Descriptor, flag};

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: usize = 16;
/// The largest ring of the tests.
const SIZE_MAX: usize = 64;
/// Bits of a descriptor's flags (2.8.1).
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Flags of event suppression (2.8.14): all events, none, that of one descriptor.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;
/// A place that no ring of ours has: nothing happens there.
const NEVER: u16 = 0x7fff;

/// A ring. Places are counted in descriptors from the start, on and on.
#[derive(Debug)]
pub struct PackedRing {
    size: u16,
    ring: DmaBuffer,
    driver_event: DmaBuffer,
    device_event: DmaBuffer,
    next_available: u32,
    announced: u32,
    next_used: u32,
    /// Requests to be published until the one at whose completion an interrupt is wanted.
    until_event: Option<u16>,
    /// Descriptors of the request with this id.
    lengths: [u16; SIZE_MAX],
}

impl PackedRing {
    /// An empty ring.
    pub fn new(size: u16) -> Self {
        assert!(usize::from(size) <= SIZE_MAX, "a ring of {size}");
        let ring = Self {
            size,
            ring: DmaBuffer::allocate(usize::from(size) * DESCRIPTOR_BYTES, 16),
            driver_event: DmaBuffer::allocate(4, 4),
            device_event: DmaBuffer::allocate(4, 4),
            next_available: 0,
            announced: 0,
            next_used: 0,
            until_event: None,
            lengths: [0; SIZE_MAX],
        };
        for memory in [ring.ring, ring.driver_event, ring.device_event] {
            memory.fill(0);
        }
        ring
    }

    /// Guest-physical addresses of the ring, of the driver's event suppression and of the device's.
    pub const fn addresses(&self) -> [u64; 3] {
        [
            self.ring.address(),
            self.driver_event.address(),
            self.device_event.address(),
        ]
    }

    /// Index and wrap counter of a place.
    fn place(&self, count: u32) -> (usize, bool) {
        let size = u32::from(self.size);
        ((count % size) as usize, (count / size).is_multiple_of(2))
    }

    /// A place as event suppression has it.
    fn place_bits(&self, count: u32) -> u16 {
        let (index, wrap) = self.place(count);
        index as u16 | u16::from(wrap) << 15
    }

    /// Makes the chain available that begins at `head` of `table`, which `next` reads.
    pub fn publish(&mut self, head: u16, next: impl Fn(u16) -> Descriptor) {
        let first = self.next_available;
        let (mut index, mut place) = (head, first);
        let mut first_flags = 0;
        loop {
            let descriptor = next(index);
            let (slot, wrap) = self.place(place);
            let flags = descriptor.flags | if wrap { AVAILABLE } else { USED };
            let offset = slot * DESCRIPTOR_BYTES;
            self.ring.write(offset, &descriptor.address.to_le_bytes());
            self.ring
                .write(offset + 8, &descriptor.length.to_le_bytes());
            self.ring.write_u16(offset + 12, head);
            if place == first {
                first_flags = flags;
            } else {
                self.ring.write_u16(offset + 14, flags);
            }
            place += 1;
            if descriptor.flags & flag::NEXT == 0 {
                break;
            }
            index = descriptor.next;
        }
        let length = place - first;
        assert!(
            place - self.next_used <= u32::from(self.size),
            "more than the ring has"
        );
        self.lengths[usize::from(head)] = length as u16;
        self.next_available = place;
        if let Some(left) = self.until_event.as_mut() {
            *left -= 1;
            if *left == 0 {
                self.until_event = None;
                self.write_wish(self.place_bits(first), DESC);
            }
        }
        fence(Ordering::SeqCst);
        let offset = self.place(first).0 * DESCRIPTOR_BYTES;
        self.ring.write_u16(offset + 14, first_flags);
        fence(Ordering::SeqCst);
    }

    /// Whether the device wants its doorbell for what was published since the last time.
    pub fn wants_doorbell(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let since = core::mem::replace(&mut self.announced, self.next_available);
        match self.device_event.read_u16(2) {
            ENABLE => true,
            DESC => {
                let wanted = self.device_event.read_u16(0);
                (since..self.next_available).any(|place| self.place_bits(place) == wanted)
            }
            _ => false,
        }
    }

    /// Asks for an interrupt when so many more requests are completed, which are yet to be published.
    pub fn set_used_event(&mut self, completions: u16) {
        self.until_event = Some(completions);
        self.write_wish(NEVER, DESC);
    }

    /// Whether completions interrupt.
    pub fn set_interrupts(&self, on: bool) {
        self.write_wish(0, if on { ENABLE } else { DISABLE });
    }

    fn write_wish(&self, place: u16, flags: u16) {
        self.driver_event.write_u16(0, place);
        fence(Ordering::SeqCst);
        self.driver_event.write_u16(2, flags);
        fence(Ordering::SeqCst);
    }

    /// Whether there is a completed request.
    pub fn has_used(&self) -> bool {
        let (slot, wrap) = self.place(self.next_used);
        let flags = self.ring.read_u16(slot * DESCRIPTOR_BYTES + 14);
        (flags & AVAILABLE != 0) == wrap && (flags & USED != 0) == wrap
    }

    /// Descriptors of the requests whose completion was taken or could be seen: changes with the next one.
    pub fn used_index(&self) -> u16 {
        self.next_used as u16 + u16::from(self.has_used())
    }

    /// The next completed request: its id and how many bytes the device wrote.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if !self.has_used() {
            return None;
        }
        fence(Ordering::SeqCst);
        let offset = self.place(self.next_used).0 * DESCRIPTOR_BYTES;
        let id = self.ring.read_u16(offset + 12);
        assert!(id < self.size, "used id {id}");
        // The length counts where something was written (2.8.4).
        let written = match self.ring.read_u16(offset + 14) & flag::WRITE {
            0 => 0,
            _ => self.ring.read_u32(offset + 8),
        };
        self.next_used += u32::from(self.lengths[usize::from(id)]);
        Some((id, written))
    }
}
