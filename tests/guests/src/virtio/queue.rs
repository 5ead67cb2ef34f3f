//! Rings, the driver's side: split ones (virtio 1.3, 2.7), and packed ones behind the same methods.

use core::sync::atomic::{Ordering, fence};

use crate::dma::DmaBuffer;
use crate::time::{SECONDS, wait_until};
use crate::virtio::packed::PackedRing;
use crate::virtio::{Device, feature, status};

/// Flags of a descriptor.
pub mod flag {
    /// Another descriptor follows.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: usize = 16;
/// Descriptors of the indirect table that each head has.
const INDIRECT_DESCRIPTORS: usize = 16;

/// A descriptor (virtio 1.3, 2.7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub address: u64,
    /// Its length in bytes.
    pub length: u32,
    /// [`flag`]s.
    pub flags: u16,
    /// The following descriptor with [`flag::NEXT`].
    pub next: u16,
}

/// A piece of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The device reads it.
    ToDevice(DmaBuffer),
    /// The device writes it.
    FromDevice(DmaBuffer),
}

/// How a request's descriptors are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A chain in the queue's table.
    Chain,
    /// One descriptor in the queue's table, the others in an indirect table.
    Indirect,
}

/// A queue. Heads are chosen by the caller; a request takes descriptors from its head upwards.
#[derive(Debug)]
pub struct Queue {
    number: u16,
    size: u16,
    event_index: bool,
    descriptors: DmaBuffer,
    available: DmaBuffer,
    used: DmaBuffer,
    indirect: DmaBuffer,
    next_available: u16,
    announced: u16,
    next_used: u16,
    /// Takes the place of both rings, where that was agreed upon.
    packed: Option<PackedRing>,
}

impl Queue {
    /// An empty queue with the ring that was agreed upon.
    pub fn with(features: u64, number: u16, size: u16) -> Self {
        let mut queue = Self::new(number, size, features & feature::EVENT_IDX != 0);
        if features & feature::RING_PACKED != 0 {
            queue.packed = Some(PackedRing::new(size));
        }
        queue
    }

    /// An empty queue with a split ring; `event_index` when VIRTIO_F_EVENT_IDX was agreed upon.
    pub fn new(number: u16, size: u16, event_index: bool) -> Self {
        let entries = usize::from(size);
        let queue = Self {
            number,
            size,
            event_index,
            descriptors: DmaBuffer::allocate(entries * DESCRIPTOR_BYTES, 16),
            available: DmaBuffer::allocate(6 + entries * 2, 2),
            used: DmaBuffer::allocate(6 + entries * 8, 4),
            indirect: DmaBuffer::allocate(entries * INDIRECT_DESCRIPTORS * DESCRIPTOR_BYTES, 16),
            next_available: 0,
            announced: 0,
            next_used: 0,
            packed: None,
        };
        for memory in [queue.descriptors, queue.available, queue.used] {
            memory.fill(0);
        }
        queue
    }

    /// Its number among the device's queues.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Its number of descriptors.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Guest-physical addresses of its descriptor, driver and device areas.
    pub fn areas(&self) -> [u64; 3] {
        match &self.packed {
            Some(ring) => ring.addresses(),
            None => [
                self.descriptors_address(),
                self.available_address(),
                self.used_address(),
            ],
        }
    }

    /// Guest-physical address of the descriptor table.
    pub const fn descriptors_address(&self) -> u64 {
        self.descriptors.address()
    }

    /// Guest-physical address of the available ring.
    pub const fn available_address(&self) -> u64 {
        self.available.address()
    }

    /// Guest-physical address of the used ring.
    pub const fn used_address(&self) -> u64 {
        self.used.address()
    }

    /// Guest-physical address of the indirect table of `head`.
    pub fn indirect_address(&self, head: u16) -> u64 {
        self.indirect_table(head).address()
    }

    /// Writes descriptor `index` of the queue's table.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        write_descriptor(self.descriptors, usize::from(index), descriptor);
    }

    /// Writes descriptor `index` of the indirect table of `head`.
    pub fn set_indirect_descriptor(&self, head: u16, index: usize, descriptor: Descriptor) {
        let mut words = [descriptor.flags, descriptor.next];
        if self.packed.is_some() {
            // The id, which means nothing there, and the flags.
            words.reverse();
        }
        write_parts(self.indirect_table(head), index, descriptor, words);
    }

    /// Writes the descriptors of a request from `head` on.
    pub fn set_request(&self, head: u16, layout: Layout, buffers: &[Buffer]) {
        for (index, buffer) in buffers.iter().enumerate() {
            let (memory, direction) = match *buffer {
                Buffer::ToDevice(memory) => (memory, 0),
                Buffer::FromDevice(memory) => (memory, flag::WRITE),
            };
            let first = match layout {
                Layout::Chain => head,
                Layout::Indirect => 0,
            };
            let more = if index + 1 < buffers.len() {
                flag::NEXT
            } else {
                0
            };
            let descriptor = Descriptor {
                address: memory.address(),
                length: memory.len() as u32,
                flags: direction | more,
                next: first + index as u16 + 1,
            };
            match layout {
                Layout::Chain => self.set_descriptor(head + index as u16, descriptor),
                Layout::Indirect => self.set_indirect_descriptor(head, index, descriptor),
            }
        }
        if layout == Layout::Indirect {
            self.set_descriptor(
                head,
                Descriptor {
                    address: self.indirect_address(head),
                    length: (buffers.len() * DESCRIPTOR_BYTES) as u32,
                    flags: flag::INDIRECT,
                    next: 0,
                },
            );
        }
    }

    /// Puts `head` into the available ring.
    pub fn publish(&mut self, head: u16) {
        if let Some(ring) = &mut self.packed {
            let table = self.descriptors;
            return ring.publish(head, |index| read_descriptor(table, usize::from(index)));
        }
        let slot = usize::from(self.next_available % self.size);
        self.available.write_u16(4 + slot * 2, head);
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available_index(self.next_available);
    }

    /// Writes the available ring's index, whatever it is.
    pub fn set_available_index(&self, index: u16) {
        fence(Ordering::SeqCst);
        self.available.write_u16(2, index);
        fence(Ordering::SeqCst);
    }

    /// The available ring's index that follows from what was published.
    pub const fn next_available(&self) -> u16 {
        self.next_available
    }

    /// Rings the doorbell if the device wants that for what was published since the last time (virtio
    /// 1.3, 2.7.10); whether it did.
    pub fn notify(&mut self, device: Device) -> bool {
        fence(Ordering::SeqCst);
        let wanted = if let Some(ring) = &mut self.packed {
            ring.wants_doorbell()
        } else if self.event_index {
            let event = self.used.read_u16(4 + usize::from(self.size) * 8);
            let distance = self.next_available.wrapping_sub(event).wrapping_sub(1);
            distance < self.next_available.wrapping_sub(self.announced)
        } else {
            self.used.read_u16(0) & 1 == 0
        };
        self.announced = self.next_available;
        if wanted {
            device.notify(self.number);
        }
        wanted
    }

    /// Asks for an interrupt when `completions` more requests are completed, with the event index.
    pub fn set_used_event(&mut self, completions: u16) {
        if let Some(ring) = &mut self.packed {
            return ring.set_used_event(completions);
        }
        let event = self.next_used.wrapping_add(completions).wrapping_sub(1);
        self.available
            .write_u16(4 + usize::from(self.size) * 2, event);
        fence(Ordering::SeqCst);
    }

    /// Says by the ring's flag, without the event index, whether completions interrupt.
    pub fn set_interrupts(&self, on: bool) {
        if let Some(ring) = &self.packed {
            return ring.set_interrupts(on);
        }
        self.available.write_u16(0, u16::from(!on));
        fence(Ordering::SeqCst);
    }

    /// The used ring's index, or what else changes with the next completion.
    pub fn used_index(&self) -> u16 {
        if let Some(ring) = &self.packed {
            return ring.used_index();
        }
        self.used.read_u16(2)
    }

    /// The next completed request: its head and how many bytes the device wrote.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if let Some(ring) = &mut self.packed {
            return ring.take_used();
        }
        if self.used_index() == self.next_used {
            return None;
        }
        fence(Ordering::SeqCst);
        let offset = 4 + usize::from(self.next_used % self.size) * 8;
        self.next_used = self.next_used.wrapping_add(1);
        let head = self.used.read_u32(offset);
        assert!(head < u32::from(self.size), "used head {head}");
        Some((head as u16, self.used.read_u32(offset + 4)))
    }

    /// Waits for a completion, at most five seconds.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub fn wait_used(&mut self, device: Device) -> (u16, u32) {
        let mut used = None;
        let in_time = wait_until(5 * SECONDS, || {
            used = self.take_used();
            used.is_some()
        });
        assert!(
            in_time,
            "queue {}: no completion, status {:#x}, interrupt status {:#x}",
            self.number,
            device.status(),
            device.take_interrupt_status(),
        );
        used.unwrap_or_default()
    }

    /// One request from descriptor 0 on, start to end: how many bytes the device wrote.
    ///
    /// # Panics
    ///
    /// When it is not completed, or the device has broken.
    pub fn request(&mut self, device: Device, layout: Layout, buffers: &[Buffer]) -> u32 {
        self.set_request(0, layout, buffers);
        self.publish(0);
        self.notify(device);
        let (head, written) = self.wait_used(device);
        assert_eq!(head, 0, "completed head");
        assert_eq!(device.status() & status::NEEDS_RESET, 0, "device is broken");
        written
    }

    fn indirect_table(&self, head: u16) -> DmaBuffer {
        let bytes = INDIRECT_DESCRIPTORS * DESCRIPTOR_BYTES;
        self.indirect.slice(usize::from(head) * bytes, bytes)
    }
}

fn write_descriptor(table: DmaBuffer, index: usize, descriptor: Descriptor) {
    write_parts(
        table,
        index,
        descriptor,
        [descriptor.flags, descriptor.next],
    );
}

fn read_descriptor(table: DmaBuffer, index: usize) -> Descriptor {
    let offset = index * DESCRIPTOR_BYTES;
    Descriptor {
        address: table.read_u64(offset),
        length: table.read_u32(offset + 8),
        flags: table.read_u16(offset + 12),
        next: table.read_u16(offset + 14),
    }
}

/// Address and length of `descriptor`, and `words` behind them.
fn write_parts(table: DmaBuffer, index: usize, descriptor: Descriptor, words: [u16; 2]) {
    let mut bytes = [0; DESCRIPTOR_BYTES];
    bytes[..8].copy_from_slice(&descriptor.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&descriptor.length.to_le_bytes());
    bytes[12..14].copy_from_slice(&words[0].to_le_bytes());
    bytes[14..].copy_from_slice(&words[1].to_le_bytes());
    table.write(index * DESCRIPTOR_BYTES, &bytes);
}
