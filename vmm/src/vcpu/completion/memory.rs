//! Guest memory and devices, for completions.

use std::ptr::NonNull;

use bus::{Effect, MmioBus};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The memory that a vCPU sees.
#[derive(Debug)]
pub struct KvmMemory<'a> {
    memory: &'a GuestMemoryMmap<()>,
    mmio: &'a MmioBus,
    effect: Effect,
}

impl<'a> KvmMemory<'a> {
    /// `memory` as RAM, `mmio` everywhere else.
    pub const fn new(memory: &'a GuestMemoryMmap<()>, mmio: &'a MmioBus) -> Self {
        Self {
            memory,
            mmio,
            effect: Effect::None,
        }
    }

    /// What is in RAM at a guest-physical address.
    pub fn read_obj<T: ByteValued>(&self, address: u64) -> Option<T> {
        self.memory.read_obj(GuestAddress(address)).ok()
    }

    /// What the writes to devices ask for.
    pub const fn effect(&self) -> Effect {
        self.effect
    }
}

// SAFETY: a slice's pointer is valid for its length as long as the memory is mapped, which the borrow of it
// outlives; guest memory is never a Rust reference.
unsafe impl completion::GuestMemory for KvmMemory<'_> {
    fn ram(&self, address: u64, length: usize) -> Option<NonNull<u8>> {
        let slice = self.memory.get_slice(GuestAddress(address), length).ok()?;
        NonNull::new(slice.ptr_guard_mut().as_ptr())
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.mmio.read(address, data);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        match self.mmio.write(address, data) {
            Effect::None => {}
            effect => self.effect = effect,
        }
    }
}
