//! The driver side of a packed virtqueue (virtio 1.3, 2.8).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress};

use super::driver_queue::{Buffer, INDIRECT, NEXT};
use crate::GuestMemory;

pub const AVAILABLE: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;
/// `RING_EVENT_FLAGS_*`.
pub const DISABLE: u16 = 1;
pub const DESC: u16 = 2;

/// A descriptor: address, length, buffer id, flags.
pub type Descriptor = (u64, u32, u16, u16);

/// A ring with its driver's state.
#[derive(Debug)]
pub struct PackedQueue {
    memory: Arc<GuestMemory>,
    pub size: u16,
    pub ring: u64,
    pub driver_area: u64,
    pub device_area: u64,
    event_index: bool,
    /// Descriptors made available and used buffers taken so far, in descriptors.
    pub next_available: u64,
    pub next_used: u64,
    announced: u64,
    free_ids: Vec<u16>,
    /// How many descriptors the chain with this id has.
    lengths: Vec<u16>,
}

impl PackedQueue {
    pub fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        [ring, driver_area, device_area]: [u64; 3],
        event_index: bool,
    ) -> Self {
        Self {
            memory,
            size,
            ring,
            driver_area,
            device_area,
            event_index,
            next_available: 0,
            next_used: 0,
            announced: 0,
            free_ids: (0..size).collect(),
            lengths: vec![0; usize::from(size)],
        }
    }

    /// Index and wrap counter after `count` descriptors.
    fn place(&self, count: u64) -> (u16, bool) {
        let index = u16::try_from(count % u64::from(self.size)).unwrap();
        let round = count / u64::from(self.size);
        (index, round.is_multiple_of(2))
    }

    /// As event suppression has it.
    fn place_bits(&self, count: u64) -> u16 {
        let (index, wrap) = self.place(count);
        index | u16::from(wrap) << 15
    }

    /// The bits that make a descriptor available after `count` others.
    pub fn available_bits(&self, count: u64) -> u16 {
        if self.place(count).1 { AVAILABLE } else { USED }
    }

    pub fn write_descriptor_at(&self, table: u64, index: u16, descriptor: Descriptor) {
        let (address, length, id, flags) = descriptor;
        let at = table + 16 * u64::from(index);
        let write = |offset, bytes: &[u8]| {
            let place = GuestAddress(at + offset);
            self.memory.write_slice(bytes, place).unwrap();
        };
        write(0, &address.to_le_bytes());
        write(8, &length.to_le_bytes());
        write(12, &id.to_le_bytes());
        self.memory
            .store(flags.to_le(), GuestAddress(at + 14), Ordering::Release)
            .unwrap();
    }

    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.write_descriptor_at(self.ring, index, descriptor);
    }

    fn flags(&self, index: u16) -> u16 {
        let at = GuestAddress(self.ring + 16 * u64::from(index) + 14);
        let flags: u16 = self.memory.load(at, Ordering::Acquire).unwrap();
        u16::from_le(flags)
    }

    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let list: Vec<_> = buffers.iter().map(|buffer| buffer.parts()).collect();
        self.offer(&list)
    }

    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (index, buffer) in (0..).zip(buffers) {
            let (address, length, flags) = buffer.parts();
            // Ids, and flags but one, mean nothing there.
            let junk = if index % 2 == 0 { NEXT } else { 0 };
            self.write_descriptor_at(table, index, (address, length, 0xdead, flags | junk));
        }
        let bytes = 16 * u32::try_from(buffers.len()).unwrap();
        self.offer(&[(table, bytes, INDIRECT)])
    }

    /// Makes a list of descriptors available, all but the last with a next one, the first one last.
    pub fn offer(&mut self, list: &[(u64, u32, u16)]) -> u16 {
        let id = self.free_ids.pop().expect("no free buffer id");
        let count = u64::try_from(list.len()).unwrap();
        let under_way = self.next_available - self.next_used;
        assert!(
            under_way + count <= u64::from(self.size),
            "the ring is full"
        );
        self.lengths[usize::from(id)] = u16::try_from(list.len()).unwrap();
        for (number, (address, length, flags)) in list.iter().enumerate().rev() {
            let more = if number + 1 < list.len() { NEXT } else { 0 };
            let place = self.next_available + u64::try_from(number).unwrap();
            let flags = flags | more | self.available_bits(place);
            // The id counts in the last one alone.
            let id = if more == 0 { id } else { 0xbeef };
            self.write_descriptor(self.place(place).0, (*address, *length, id, flags));
        }
        self.next_available += count;
        id
    }

    pub fn has_used(&self) -> bool {
        let (index, wrap) = self.place(self.next_used);
        let flags = self.flags(index);
        (flags & AVAILABLE != 0) == wrap && (flags & USED != 0) == wrap
    }

    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if !self.has_used() {
            return None;
        }
        let (index, _) = self.place(self.next_used);
        let at = self.ring + 16 * u64::from(index);
        let length: u32 = self.memory.read_obj(GuestAddress(at + 8)).unwrap();
        let id: u16 = self.memory.read_obj(GuestAddress(at + 12)).unwrap();
        let (length, id) = (u32::from_le(length), u16::from_le(id));
        let written = if self.flags(index) & super::driver_queue::WRITE == 0 {
            assert_eq!(length, 0);
            0
        } else {
            length
        };
        assert!(!self.free_ids.contains(&id), "buffer {id} is not under way");
        self.next_used += u64::from(self.lengths[usize::from(id)]);
        self.free_ids.push(id);
        if self.event_index {
            self.set_event(self.next_used);
        }
        Some((u32::from(id), written))
    }

    fn write_wish(&self, place: u16, flags: u16) {
        let wish = u32::from(place) | u32::from(flags) << 16;
        self.memory
            .store(
                wish.to_le(),
                GuestAddress(self.driver_area),
                Ordering::SeqCst,
            )
            .unwrap();
    }

    /// Asks for an interrupt when the descriptor after `count` others is used.
    pub fn set_event(&self, count: u64) {
        self.write_wish(self.place_bits(count), DESC);
    }

    /// Asks for one at these bits, whatever they are.
    pub fn set_event_bits(&self, place: u16) {
        self.write_wish(place, DESC);
    }

    pub fn set_no_interrupt(&self, no_interrupt: bool) {
        self.write_wish(0, if no_interrupt { DISABLE } else { 0 });
    }

    /// What the device wants to hear of: place and flags.
    pub fn device_wish(&self) -> (u16, u16) {
        let at = GuestAddress(self.device_area);
        let wish: u32 = self.memory.load(at, Ordering::SeqCst).unwrap();
        let [a, b, c, d] = u32::from_le(wish).to_le_bytes();
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    }

    pub fn wants_doorbell(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let since = std::mem::replace(&mut self.announced, self.next_available);
        match self.device_wish() {
            (place, DESC) => (since..self.next_available).any(|at| self.place_bits(at) == place),
            (_, flags) => flags != DISABLE,
        }
    }
}
