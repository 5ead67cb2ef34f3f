//! Random instructions on random vCPUs: `completion::complete` ends without a panic, changes nothing when it
//! does not know the instruction, and moves by one instruction when it does.
//!
//! An input is the state of a vCPU, then code, then what memory is filled with; see [`Input`].
#![no_main]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use completion::{
    Cpu, CpuError, Feature, GuestMemory, Outcome, Registers, Segment, SystemRegisters, XsaveLayout,
    complete,
};
use libfuzzer_sys::fuzz_target;

/// RAM from address 0.
const RAM_BYTES: usize = 0x1_0000;
const CODE: u64 = 0x1000;
const DATA: u64 = 0x4000;
/// Where page tables begin, when there are any.
const TABLES: u64 = 0x8000;

/// Bytes of the fuzzer's, one after the other; zeros behind the last.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A register: mostly a place in memory, at edges and across pages, or any number.
    fn register(&mut self) -> u64 {
        match self.byte() {
            kind @ 0..0x80 => DATA + u64::from(kind & 0x3f) * 8,
            0x80..0xa0 => DATA + 0xff8 + u64::from(self.byte() & 15),
            0xa0..0xc0 => u64::from(self.byte()),
            0xc0..0xd0 => u64::MAX - u64::from(self.byte()),
            _ => self.word(),
        }
    }
}

struct Vcpu {
    registers: Registers,
    system: SystemRegisters,
    xcr0: u64,
    xss: u64,
    area: Vec<u8>,
    layout: XsaveLayout,
    features: u64,
    random: Option<u64>,
}

impl Vcpu {
    fn new(input: &mut Input<'_>) -> Self {
        let kind = input.byte();
        let level = input.byte() & 3;
        let (long, paging) = (kind & 3 != 0, kind & 4 != 0);
        let layout = XsaveLayout::from_cpuid(|subleaf| match subleaf {
            0 => [if kind & 8 != 0 { 0x2e7 } else { 7 }, 0, 0, 0],
            2 => [256, 576, 0, 0],
            5 => [64, 1088, 0, 0],
            6 => [512, 1152, 0, 0],
            7 => [1024, 1664, 0, 0],
            9 => [8, 2688, 0, 0],
            _ => [0; 4],
        });
        let code = Segment {
            kind: 0xb,
            usable: true,
            long,
            default_32_bit: !long && kind & 16 != 0,
            limit: u32::MAX,
            dpl: level,
            ..Segment::default()
        };
        let data = Segment {
            kind: 3,
            long: false,
            default_32_bit: true,
            ..code
        };
        let mut system = SystemRegisters {
            segments: [data, code, data, data, data, data],
            cr0: 1,
            cr3: TABLES,
            cr4: 0x4_0620,
            efer: if long { 0xd00 } else { 0x800 },
            gdt_base: DATA,
            gdt_limit: 0xfff,
            ..SystemRegisters::default()
        };
        if paging {
            system.cr0 |= 1 << 31;
        }
        if kind & 0x20 != 0 {
            // Anything at all.
            system.cr0 = input.word();
            system.cr4 = input.word();
            system.efer = input.word();
            for segment in &mut system.segments {
                segment.kind = input.byte() & 15;
                segment.base = input.register();
                segment.limit = u32::try_from(input.word() >> 32).unwrap_or(0);
                segment.usable = input.byte() & 7 != 0;
            }
        }
        let mut registers = Registers {
            rip: CODE,
            rflags: if kind & 0x40 != 0 { input.word() } else { 2 },
            ..Registers::default()
        };
        for register in &mut registers.general {
            *register = input.register();
        }
        let mut area: Vec<u8> = (0..4096)
            .map(|number: u32| number.to_le_bytes()[0])
            .collect();
        area[24..32].copy_from_slice(&[0x80, 0x1f, 0, 0, 0xff, 0xff, 2, 0]);
        area[512..576].fill(0);
        area[512] = input.byte();
        area[2..5].copy_from_slice(&[0, input.byte(), input.byte()]);
        let xcr0 = match kind & 0x80 {
            0 => layout.user_components(),
            _ => input.word() & layout.user_components() | 1,
        };
        Self {
            registers,
            system,
            xcr0,
            xss: u64::from(input.byte()) << 8 & 0x1900,
            area,
            layout,
            features: input.word() | input.word() | input.word(),
            random: (kind & 1 == 0).then_some(0x1234_5678_9abc_def0),
        }
    }
}

impl Cpu for Vcpu {
    fn registers(&mut self) -> Result<Registers, CpuError> {
        Ok(self.registers)
    }
    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        self.registers = *registers;
        Ok(())
    }
    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        Ok(self.system)
    }
    fn set_segment_bases(&mut self, fs: u64, gs: u64) -> Result<(), CpuError> {
        self.system.segments[4].base = fs;
        self.system.segments[5].base = gs;
        Ok(())
    }
    fn xcr0(&mut self) -> Result<u64, CpuError> {
        Ok(self.xcr0)
    }
    fn set_xcr0(&mut self, value: u64) -> Result<(), CpuError> {
        assert_eq!(value & !self.layout.user_components(), 0);
        self.xcr0 = value;
        Ok(())
    }
    fn msr(&mut self, index: u32) -> Result<u64, CpuError> {
        Ok(match index {
            completion::msr::XSS => self.xss,
            other => u64::from(other) * 0x1111,
        })
    }
    fn set_msr(&mut self, _: u32, _: u64) -> Result<(), CpuError> {
        Ok(())
    }
    fn read_xsave_area(&mut self, area: &mut Vec<u8>) -> Result<(), CpuError> {
        area.clone_from(&self.area);
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
    fn has(&self, feature: Feature) -> bool {
        let number = Feature::ALL.iter().position(|one| *one == feature);
        number.is_some_and(|number| self.features >> (number % 64) & 1 != 0)
    }
    fn random(&mut self) -> Option<u64> {
        self.random
    }
    fn interrupt_table(&mut self) -> Result<Option<(u64, u16)>, CpuError> {
        Ok(Some((DATA, 0x7ff)))
    }
    fn physical_address_bits(&self) -> u8 {
        40
    }
}

struct Ram(NonNull<u8>);

fn layout() -> Layout {
    Layout::from_size_align(RAM_BYTES, 4096).expect("a size and a page")
}

impl Ram {
    fn new() -> Self {
        // SAFETY: the layout is not empty.
        Self(NonNull::new(unsafe { alloc_zeroed(layout()) }).expect("memory"))
    }

    fn put(&self, address: u64, data: &[u8]) {
        if let Some(to) = self.ram(address, data.len()) {
            // SAFETY: `ram` has checked the range.
            unsafe { to.copy_from_nonoverlapping(NonNull::from(data).cast(), data.len()) };
        }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.0.as_ptr(), layout()) };
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
    fn mmio_read(&mut self, _: u64, data: &mut [u8]) {
        assert!((1..=8).contains(&data.len()));
        data.fill(0xa5);
    }
    fn mmio_write(&mut self, _: u64, data: &[u8]) {
        assert!((1..=8).contains(&data.len()));
    }
}

fuzz_target!(|data: &[u8]| {
    // Code first: where the fuzzer changes bytes most.
    let (code, rest) = data.split_at(data.len().min(15));
    let mut input = Input(rest);
    let mut cpu = Vcpu::new(&mut input);
    let mut ram = Ram::new();
    // Tables of four levels, whose last maps the pages of the first 64 KiB with rights of the fuzzer's.
    for level in 0..3u64 {
        let entry = TABLES + 0x1000 * (level + 1) | 7;
        ram.put(TABLES + 0x1000 * level, &entry.to_le_bytes());
    }
    for page in 0..16u64 {
        let rights = match page {
            1 => 7,
            _ => u64::from(input.byte()) ^ 7,
        };
        let entry = page << 12 | rights & 0x67;
        ram.put(TABLES + 0x3000 + 8 * page, &entry.to_le_bytes());
    }
    for (number, chunk) in (0..).zip(input.0.chunks(64).take(64)) {
        ram.put(DATA + 64 * number, chunk);
    }
    ram.put(CODE, code);
    let given = if code.first().is_some_and(|byte| byte & 1 != 0) {
        code
    } else {
        &[]
    };
    let before = (cpu.registers, cpu.area.clone());
    let outcome = complete(&mut cpu, &mut ram, given).expect("a vCPU that has its state");
    let moved = cpu.registers.rip.wrapping_sub(before.0.rip);
    match outcome {
        Outcome::Completed(_) => assert!((1..=15).contains(&moved)),
        Outcome::Exception { exception, .. } => {
            assert!(exception.software || exception.vector < 32);
            assert!(moved <= 15);
            assert_eq!(cpu.registers.general, before.0.general);
            assert_eq!(cpu.area, before.1);
        }
        Outcome::Unknown(_) => {
            assert_eq!(cpu.registers, before.0);
            assert_eq!(cpu.area, before.1);
        }
    }
});
