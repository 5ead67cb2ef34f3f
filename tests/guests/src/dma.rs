//! Memory that is shared with devices: taken from free RAM above the guest's image, never given back, and
//! accessed by volatile copies alone.

use core::sync::atomic::{AtomicUsize, Ordering};

/// The first address that is handed out: above the image, below what small machines have.
const START: usize = 16 << 20;
/// The end of what is handed out; tests run with 64 MiB of RAM or more.
const END: usize = 48 << 20;

static NEXT: AtomicUsize = AtomicUsize::new(START);

/// A piece of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaBuffer {
    address: usize,
    length: usize,
}

impl DmaBuffer {
    /// Takes `length` bytes at a multiple of `alignment`, which is a power of two. They read as 0 unless a
    /// test has used the address directly.
    ///
    /// # Panics
    ///
    /// When the memory is used up.
    pub fn allocate(length: usize, alignment: usize) -> Self {
        let address = NEXT.load(Ordering::Relaxed).next_multiple_of(alignment);
        assert!(address + length <= END, "memory for devices is used up");
        NEXT.store(address + length, Ordering::Relaxed);
        Self { address, length }
    }

    /// Guest-physical address of the first byte.
    pub const fn address(self) -> u64 {
        self.address as u64
    }

    /// Length in bytes.
    pub const fn len(self) -> usize {
        self.length
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The `length` bytes from `offset`.
    ///
    /// # Panics
    ///
    /// When they are not all in the buffer.
    pub fn slice(self, offset: usize, length: usize) -> Self {
        assert!(offset + length <= self.length, "slice leaves the buffer");
        Self {
            address: self.address + offset,
            length,
        }
    }

    /// Copies `bytes` to `offset`.
    pub fn write(self, offset: usize, bytes: &[u8]) {
        let place = self.slice(offset, bytes.len());
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: free RAM, in bounds by the slice above; no Rust reference to it exists.
            unsafe { ((place.address + index) as *mut u8).write_volatile(*byte) };
        }
    }

    /// Copies from `offset` to `bytes`.
    pub fn read(self, offset: usize, bytes: &mut [u8]) {
        let place = self.slice(offset, bytes.len());
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: free RAM, in bounds by the slice above; no Rust reference to it exists.
            *byte = unsafe { ((place.address + index) as *const u8).read_volatile() };
        }
    }

    /// Sets all bytes to `value`.
    pub fn fill(self, value: u8) {
        for index in 0..self.length {
            // SAFETY: free RAM, in bounds; no Rust reference to it exists.
            unsafe { ((self.address + index) as *mut u8).write_volatile(value) };
        }
    }

    /// Reads the byte at `offset`.
    pub fn read_u8(self, offset: usize) -> u8 {
        let mut bytes = [0];
        self.read(offset, &mut bytes);
        bytes[0]
    }

    /// Reads the 16-bit number at the even address `offset` bytes in, in one access.
    pub fn read_u16(self, offset: usize) -> u16 {
        let place = self.slice(offset, 2);
        assert!(place.address.is_multiple_of(2));
        // SAFETY: free RAM, in bounds, aligned.
        unsafe { (place.address as *const u16).read_volatile() }
    }

    /// Writes the 16-bit number at the even address `offset` bytes in, in one access.
    pub fn write_u16(self, offset: usize, value: u16) {
        let place = self.slice(offset, 2);
        assert!(place.address.is_multiple_of(2));
        // SAFETY: free RAM, in bounds, aligned.
        unsafe { (place.address as *mut u16).write_volatile(value) };
    }

    /// Writes the 64-bit number at `offset` bytes, a multiple of eight, in one access.
    pub fn write_u64(self, offset: usize, value: u64) {
        let place = self.slice(offset, 8);
        assert!(place.address.is_multiple_of(8));
        // SAFETY: free RAM, in bounds, aligned; no Rust reference to it exists.
        unsafe { (place.address as *mut u64).write_volatile(value) };
    }

    /// Reads the 32-bit number at `offset`.
    pub fn read_u32(self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Reads the 64-bit number at `offset`.
    pub fn read_u64(self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}
