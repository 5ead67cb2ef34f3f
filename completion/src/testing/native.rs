//! RAM for tests, and instructions on the processor that runs them.
#![expect(unsafe_code, reason = "the processor is the reference")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::arch::x86_64::__cpuid_count;
use std::ptr::NonNull;

use super::{DEVICE, RAM_BYTES};
use crate::XsaveLayout;
use crate::memory::GuestMemory;

/// The flags that instructions set.
pub const FLAGS: u64 = 0x8d5;

/// RAM from address 0, and a device that remembers what is done to it.
#[derive(Debug)]
pub struct Ram {
    bytes: NonNull<u8>,
    /// Reads and writes of the device: address and length, or address and data.
    pub reads: Vec<(u64, usize)>,
    pub writes: Vec<(u64, Vec<u8>)>,
}

// SAFETY: the bytes are accessed atomically or volatilely where threads share them.
unsafe impl Send for Ram {}

fn ram_layout() -> Layout {
    Layout::from_size_align(RAM_BYTES, 4096).expect("a size and a page")
}

impl Ram {
    pub fn new() -> Self {
        // SAFETY: the layout is not empty.
        let bytes = unsafe { alloc_zeroed(ram_layout()) };
        Self {
            bytes: NonNull::new(bytes).expect("memory"),
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// Copies out.
    pub fn get(&self, address: u64, data: &mut [u8]) {
        let from = self.ram(address, data.len()).expect("RAM");
        // SAFETY: `ram` has checked the range; nothing else uses it now.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut *data).cast(), data.len()) };
    }

    /// Copies in.
    pub fn put(&self, address: u64, data: &[u8]) {
        let to = self.ram(address, data.len()).expect("RAM");
        // SAFETY: as above.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(data).cast(), data.len()) };
    }

    /// Another view of the same bytes, as another vCPU has it. To be dropped first, by `forget`.
    pub fn share(&self) -> Self {
        Self {
            bytes: self.bytes,
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and views are forgotten.
        unsafe { dealloc(self.bytes.as_ptr(), ram_layout()) };
    }
}

// SAFETY: the bytes live as long as self, and nobody makes references to them.
unsafe impl GuestMemory for Ram {
    fn ram(&self, address: u64, length: usize) -> Option<NonNull<u8>> {
        let start = usize::try_from(address).ok()?;
        let end = start.checked_add(length)?;
        if end > RAM_BYTES {
            return None;
        }
        // SAFETY: within the allocation.
        Some(unsafe { self.bytes.add(start) })
    }
    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.reads.push((address, data.len()));
        let number = u8::try_from(self.reads.len()).unwrap_or(0);
        data.fill(if address >= DEVICE { number } else { 0xff });
    }
    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.writes.push((address, data.to_vec()));
    }
}

/// The XSAVE layout of this processor.
pub fn layout() -> XsaveLayout {
    XsaveLayout::from_cpuid(|subleaf| {
        let answer = __cpuid_count(0xd, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    })
}

/// XCR0 of this processor.
pub fn enabled_components() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 is there wherever the instruction is.
        unsafe { std::arch::x86_64::_xgetbv(0) }
    }
    if !std::is_x86_feature_detected!("xsave") {
        return 3;
    }
    // SAFETY: the instruction is there.
    unsafe { read() }
}

/// Registers before and after a native instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Native {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub flags: u64,
}

/// Defines a function that executes one instruction natively and tells its bytes.
macro_rules! native {
    ($name:ident, $text:literal) => {
        fn $name(state: &mut $crate::testing::native::Native) -> &'static [u8] {
            let (start, end): (u64, u64);
            // SAFETY: the instruction uses RAX, RCX, RDX, the flags, and memory at RSI if at all, which the
            // caller has made point to memory of its own.
            unsafe {
                std::arch::asm!(
                    "lea r8, [rip + 2f]",
                    "lea r9, [rip + 3f]",
                    "push r10",
                    "popfq",
                    "2:",
                    $text,
                    "3:",
                    "pushfq",
                    "pop r10",
                    inout("rax") state.rax,
                    inout("rcx") state.rcx,
                    inout("rdx") state.rdx,
                    inout("rsi") state.rsi,
                    inout("r10") state.flags & $crate::testing::native::FLAGS | 0x202 => state.flags,
                    out("r8") start,
                    out("r9") end,
                );
            }
            state.flags &= $crate::testing::native::FLAGS;
            $crate::testing::native::code(start, end)
        }
    };
}
pub(crate) use native;

/// The code from `start` to `end`.
pub fn code(start: u64, end: u64) -> &'static [u8] {
    let (start, end) = (
        usize::try_from(start).expect("an address"),
        usize::try_from(end).expect("an address"),
    );
    let pointer = std::ptr::with_exposed_provenance::<u8>(start);
    // SAFETY: two labels in this program's text, which is mapped for good.
    unsafe { std::slice::from_raw_parts(pointer, end - start) }
}

/// A buffer aligned as XSAVE wants it.
#[repr(C, align(64))]
#[derive(Debug, Clone)]
pub struct Area(pub [u8; 16384]);

impl Area {
    pub fn new(fill: u8) -> Box<Self> {
        Box::new(Self([fill; 16384]))
    }
}

/// Defines a function that loads a state with XRSTOR64, then saves it with one instruction.
macro_rules! native_save {
    ($name:ident, $text:literal) => {
        /// # Safety
        /// `state` is an area in standard form that XRSTOR takes, and the processor has the instruction.
        pub unsafe fn $name(state: &Area, mask: u64, to: &mut Area) {
            let mut own = Area::new(0);
            let [a, b, c, d, ..] = mask.to_le_bytes();
            let low = u32::from_le_bytes([a, b, c, d]);
            // SAFETY: the caller's word; the thread's own state is saved before and loaded after.
            unsafe {
                std::arch::asm!(
                    "mov r8d, eax",
                    "mov eax, 0xffffffff",
                    "mov edx, 0xffffffff",
                    "xsave64 [{own}]",
                    "xrstor64 [{state}]",
                    "mov eax, r8d",
                    "xor edx, edx",
                    $text,
                    "mov eax, 0xffffffff",
                    "mov edx, 0xffffffff",
                    "xrstor64 [{own}]",
                    own = in(reg) &raw mut own.0,
                    state = in(reg) &raw const state.0,
                    to = in(reg) &raw mut to.0,
                    inout("eax") low => _,
                    out("edx") _,
                    out("r8") _,
                );
            }
        }
    };
}

native_save!(xsave, "xsave64 [{to}]");
native_save!(xsaveopt, "xsaveopt64 [{to}]");
native_save!(xsavec, "xsavec64 [{to}]");
native_save!(fxsave, "fxsave64 [{to}]");
