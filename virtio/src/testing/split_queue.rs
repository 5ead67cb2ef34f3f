//! The driver side of a split virtqueue (virtio 1.3, 2.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress};

use super::driver_queue::{Buffer, INDIRECT, NEXT, WRITE};
use crate::GuestMemory;

/// A ring with its driver's state. Descriptors are used one after the other, round and round: a test
/// never has as many chains under way as would overwrite each other.
#[derive(Debug)]
pub struct SplitQueue {
    memory: Arc<GuestMemory>,
    pub size: u16,
    pub table: u64,
    pub available: u64,
    pub used: u64,
    event_idx: bool,
    next_descriptor: u16,
    announced: u16,
    pub next_available: u16,
    pub next_used: u16,
}

impl SplitQueue {
    pub fn new(
        memory: Arc<GuestMemory>,
        size: u16,
        [table, available, used]: [u64; 3],
        event_idx: bool,
    ) -> Self {
        Self {
            memory,
            size,
            table,
            available,
            used,
            event_idx,
            next_descriptor: 0,
            announced: 0,
            next_available: 0,
            next_used: 0,
        }
    }

    pub fn write_descriptor_at(
        &self,
        table: u64,
        index: u16,
        (address, length, flags, next): (u64, u32, u16, u16),
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory
            .write_slice(&bytes, GuestAddress(table + 16 * u64::from(index)))
            .unwrap();
    }

    pub fn write_descriptor(&self, index: u16, descriptor: (u64, u32, u16, u16)) {
        self.write_descriptor_at(self.table, index, descriptor);
    }

    /// Writes a chain of `buffers`, makes it available, and returns its head.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (position, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let more = if position + 1 < buffers.len() {
                NEXT
            } else {
                0
            };
            let (address, length, flags) = match *buffer {
                Buffer::Readable(address, length) => (address, length, more),
                Buffer::Writable(address, length) => (address, length, more | WRITE),
            };
            self.write_descriptor(index, (address, length, flags, self.next_descriptor));
        }
        self.offer(head);
        head
    }

    /// Writes `buffers` into an indirect table at `table` and makes it available.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        let count = u16::try_from(buffers.len()).unwrap();
        for (index, buffer) in (0..).zip(buffers) {
            let more = if index + 1 < count { NEXT } else { 0 };
            let (address, length, flags) = match *buffer {
                Buffer::Readable(address, length) => (address, length, more),
                Buffer::Writable(address, length) => (address, length, more | WRITE),
            };
            self.write_descriptor_at(table, index, (address, length, flags, index + 1));
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        self.write_descriptor(head, (table, 16 * u32::from(count), INDIRECT, 0));
        self.offer(head);
        head
    }

    /// Makes the chain with this head available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        self.memory
            .write_obj(head.to_le(), GuestAddress(self.available + 4 + 2 * slot))
            .unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available_index(self.next_available);
    }

    pub fn set_available_index(&self, index: u16) {
        self.memory
            .store(
                index.to_le(),
                GuestAddress(self.available + 2),
                Ordering::SeqCst,
            )
            .unwrap();
    }

    /// VIRTQ_AVAIL_F_NO_INTERRUPT.
    pub fn set_no_interrupt(&self, no_interrupt: bool) {
        self.memory
            .store(
                u16::from(no_interrupt).to_le(),
                GuestAddress(self.available),
                Ordering::SeqCst,
            )
            .unwrap();
    }

    /// Asks for an interrupt at the used buffer with this index (2.7.7.1).
    pub fn set_used_event(&self, index: u16) {
        let address = self.available + 4 + 2 * u64::from(self.size);
        self.memory
            .store(index.to_le(), GuestAddress(address), Ordering::SeqCst)
            .unwrap();
    }

    /// At which available index the device wants its doorbell (2.7.10).
    pub fn available_event(&self) -> u16 {
        let address = self.used + 4 + 8 * u64::from(self.size);
        let value: u16 = self
            .memory
            .load(GuestAddress(address), Ordering::SeqCst)
            .unwrap();
        u16::from_le(value)
    }

    /// Whether a driver rings the doorbell for the chains that it made available since the last call
    /// (2.7.10.1).
    pub fn wants_doorbell(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let new = self.next_available;
        let old = std::mem::replace(&mut self.announced, new);
        if !self.event_idx {
            return self.used_flags() & 1 == 0;
        }
        let event = self.available_event();
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    pub fn used_flags(&self) -> u16 {
        let value: u16 = self
            .memory
            .load(GuestAddress(self.used), Ordering::SeqCst)
            .unwrap();
        u16::from_le(value)
    }

    pub fn used_index(&self) -> u16 {
        let value: u16 = self
            .memory
            .load(GuestAddress(self.used + 2), Ordering::SeqCst)
            .unwrap();
        u16::from_le(value)
    }

    /// The next used buffer, if there is one: its head and the bytes written. Asks for an interrupt
    /// at the one after it.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        let entry: [u32; 2] = self
            .memory
            .read_obj(GuestAddress(self.used + 4 + 8 * slot))
            .unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        if self.event_idx {
            self.set_used_event(self.next_used);
        }
        Some((u32::from_le(entry[0]), u32::from_le(entry[1])))
    }
}
