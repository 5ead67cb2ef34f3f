//! Memory-mapped registers, by plain volatile moves.

/// A device's registers from one guest-physical address on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    base: usize,
}

impl Registers {
    /// The registers from `base` on.
    ///
    /// # Safety
    ///
    /// `base` is below 4 GiB and outside of memory that the guest uses for itself; offsets that are
    /// accessed later stay so.
    pub const unsafe fn at(base: usize) -> Self {
        Self { base }
    }

    /// Guest-physical address of the first register.
    pub const fn base(self) -> usize {
        self.base
    }

    /// Reads a byte at `offset`.
    pub fn read_u8(self, offset: usize) -> u8 {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *const u8).read_volatile() }
    }

    /// Reads 16 bits at `offset`.
    pub fn read_u16(self, offset: usize) -> u16 {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *const u16).read_volatile() }
    }

    /// Reads 32 bits at `offset`.
    pub fn read_u32(self, offset: usize) -> u32 {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *const u32).read_volatile() }
    }

    /// Reads 64 bits at `offset` in one access.
    pub fn read_u64(self, offset: usize) -> u64 {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *const u64).read_volatile() }
    }

    /// Writes a byte at `offset`.
    pub fn write_u8(self, offset: usize, value: u8) {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *mut u8).write_volatile(value) };
    }

    /// Writes 16 bits at `offset`.
    pub fn write_u16(self, offset: usize, value: u16) {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *mut u16).write_volatile(value) };
    }

    /// Writes 32 bits at `offset`.
    pub fn write_u32(self, offset: usize, value: u32) {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *mut u32).write_volatile(value) };
    }

    /// Writes 64 bits at `offset` in one access.
    pub fn write_u64(self, offset: usize, value: u64) {
        // SAFETY: `at` was promised a device's registers.
        unsafe { ((self.base + offset) as *mut u64).write_volatile(value) };
    }
}

/// Copies `bytes.len()` bytes of guest memory from `address`, which another agent (boot loader, device)
/// may have written.
///
/// # Panics
///
/// When the range is not within 4 GiB.
pub fn read_memory(address: u64, bytes: &mut [u8]) {
    assert!(
        address + bytes.len() as u64 <= 1 << 32,
        "{address:#x} is not mapped"
    );
    for (offset, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: all addresses below 4 GiB are mapped and readable.
        *byte = unsafe { ((address as usize + offset) as *const u8).read_volatile() };
    }
}

/// Reads one little-endian 16-bit number of guest memory.
pub fn read_memory_u16(address: u64) -> u16 {
    let mut bytes = [0; 2];
    read_memory(address, &mut bytes);
    u16::from_le_bytes(bytes)
}

/// Reads one little-endian 32-bit number of guest memory.
pub fn read_memory_u32(address: u64) -> u32 {
    let mut bytes = [0; 4];
    read_memory(address, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Reads one little-endian 64-bit number of guest memory.
pub fn read_memory_u64(address: u64) -> u64 {
    let mut bytes = [0; 8];
    read_memory(address, &mut bytes);
    u64::from_le_bytes(bytes)
}
