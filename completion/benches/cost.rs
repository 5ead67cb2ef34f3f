//! What a completion costs without KVM: time, and allocations.
//!
//! `cargo bench -p completion` prints nanoseconds for each of a few instructions, with 4-level paging on and
//! bytes given as KVM gives them. The vCPU's state is in fields, so that all of the time is this crate's.

use std::alloc::{GlobalAlloc, Layout, System, alloc_zeroed, dealloc};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use completion::{
    Cpu, CpuError, Feature, GuestMemory, Outcome, Registers, Segment, SystemRegisters, XsaveLayout,
    complete,
};

/// Counts what is allocated.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const RAM_BYTES: usize = 0x1_0000;
const CODE: u64 = 0x1000;
const DATA: u64 = 0x4000;
const TABLES: u64 = 0x8000;

struct Vcpu {
    registers: Registers,
    system: SystemRegisters,
    area: Vec<u8>,
    layout: XsaveLayout,
}

impl Vcpu {
    fn new() -> Self {
        let code = Segment {
            kind: 0xb,
            usable: true,
            long: true,
            limit: u32::MAX,
            ..Segment::default()
        };
        let data = Segment {
            kind: 3,
            long: false,
            default_32_bit: true,
            ..code
        };
        let mut area = vec![0; 4096];
        area[24..26].copy_from_slice(&[0x80, 0x1f]);
        area[512] = 7;
        let mut registers = Registers {
            rflags: 2,
            ..Registers::default()
        };
        registers.general[0] = 7;
        registers.general[6] = DATA;
        Self {
            registers,
            system: SystemRegisters {
                segments: [data, code, data, data, data, data],
                cr0: 0x8001_0001,
                cr3: TABLES,
                cr4: 0x4_0620,
                efer: 0xd00,
                ..SystemRegisters::default()
            },
            area,
            layout: XsaveLayout::from_cpuid(|subleaf| match subleaf {
                0 => [7, 0, 0, 0],
                2 => [256, 576, 0, 0],
                _ => [0; 4],
            }),
        }
    }
}

impl Cpu for Vcpu {
    fn registers(&mut self) -> Result<Registers, CpuError> {
        Ok(self.registers)
    }
    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        // All but the pointer, so that the instruction can be carried out again.
        self.registers = Registers {
            rip: CODE,
            ..*registers
        };
        Ok(())
    }
    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        Ok(self.system)
    }
    fn set_segment_bases(&mut self, _: u64, _: u64) -> Result<(), CpuError> {
        Ok(())
    }
    fn xcr0(&mut self) -> Result<u64, CpuError> {
        Ok(7)
    }
    fn set_xcr0(&mut self, _: u64) -> Result<(), CpuError> {
        Ok(())
    }
    fn msr(&mut self, _: u32) -> Result<u64, CpuError> {
        Ok(0)
    }
    fn set_msr(&mut self, _: u32, _: u64) -> Result<(), CpuError> {
        Ok(())
    }
    fn read_xsave_area(&mut self, area: &mut Vec<u8>) -> Result<(), CpuError> {
        area.extend_from_slice(&self.area);
        Ok(())
    }
    fn write_xsave_area(&mut self, area: &[u8]) -> Result<(), CpuError> {
        self.area.copy_from_slice(area);
        Ok(())
    }
    fn xsave_layout(&self) -> &XsaveLayout {
        &self.layout
    }
    fn flush_tlb(&mut self) -> Result<(), CpuError> {
        Ok(())
    }
    fn has(&self, _: Feature) -> bool {
        true
    }
    fn random(&mut self) -> Option<u64> {
        Some(4)
    }
    fn physical_address_bits(&self) -> u8 {
        40
    }
}

struct Ram(NonNull<u8>);

fn ram_layout() -> Layout {
    Layout::from_size_align(RAM_BYTES, 4096).expect("a size and a page")
}

impl Ram {
    fn new() -> Self {
        // SAFETY: the layout is not empty.
        let ram = Self(NonNull::new(unsafe { alloc_zeroed(ram_layout()) }).expect("memory"));
        for level in 0..3u64 {
            ram.put(TABLES + 0x1000 * level, (TABLES + 0x1000 * (level + 1)) | 3);
        }
        for page in 0..16u64 {
            ram.put(TABLES + 0x3000 + 8 * page, page << 12 | 3);
        }
        ram
    }

    fn put(&self, address: u64, value: u64) {
        let to = self.ram(address, 8).expect("RAM");
        // SAFETY: 8 bytes of the allocation, aligned.
        unsafe { to.cast::<u64>().write(value) };
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.0.as_ptr(), ram_layout()) };
    }
}

// SAFETY: the bytes live as long as self, and nobody makes references to them.
unsafe impl GuestMemory for Ram {
    fn ram(&self, address: u64, length: usize) -> Option<NonNull<u8>> {
        let start = usize::try_from(address).ok()?;
        if start.checked_add(length)? > RAM_BYTES {
            return None;
        }
        // SAFETY: within the allocation.
        Some(unsafe { self.0.add(start) })
    }
    fn mmio_read(&mut self, _: u64, _: &mut [u8]) {}
    fn mmio_write(&mut self, _: u64, _: &[u8]) {}
}

/// The least of some rounds, in nanoseconds each, and how often one allocates.
fn measure(code: &[u8]) -> (u128, u64) {
    const ROUNDS: usize = 40;
    const TIMES: u32 = 2000;
    let (mut cpu, mut ram) = (Vcpu::new(), Ram::new());
    cpu.registers.rip = CODE;
    let mut least = u128::MAX;
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Instant::now();
        for _ in 0..TIMES {
            let outcome = complete(&mut cpu, &mut ram, black_box(code)).expect("a state");
            assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
        }
        least = least.min(start.elapsed().as_nanos() / u128::from(TIMES));
        allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) / u64::from(TIMES);
    }
    (least, allocations)
}

fn main() {
    for (name, code) in [
        ("clac", &[0x0f, 0x01, 0xca][..]),
        ("popcnt rax, [rsi]", &[0xf3, 0x48, 0x0f, 0xb8, 0x06]),
        ("lock cmpxchg16b [rsi]", &[0xf0, 0x48, 0x0f, 0xc7, 0x0e]),
        ("lock xadd [rsi], eax", &[0xf0, 0x0f, 0xc1, 0x06]),
        ("movups xmm0, [rsi]", &[0x0f, 0x10, 0x06]),
        ("movups [rsi], xmm0", &[0x0f, 0x11, 0x06]),
        ("vpxor ymm0, ymm1, [rsi]", &[0xc5, 0xf5, 0xef, 0x06]),
        ("aesenc xmm0, xmm1", &[0x66, 0x0f, 0x38, 0xdc, 0xc1]),
        (
            "pclmulqdq xmm0, xmm1, 0",
            &[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0],
        ),
        ("sha256rnds2 xmm1, xmm2", &[0x0f, 0x38, 0xcb, 0xca]),
        ("xsave64 [rsi]", &[0x48, 0x0f, 0xae, 0x26]),
        ("xrstor64 [rsi]", &[0x48, 0x0f, 0xae, 0x2e]),
    ] {
        let (nanoseconds, allocations) = measure(code);
        println!("{name:<26} {nanoseconds:>6} ns {allocations:>3} allocations");
    }
}
