//! A vCPU and a memory for tests, and the same instructions on the processor that runs the tests.

pub mod against_host;
pub mod host;
pub mod native;

use std::collections::BTreeMap;

use crate::cpu::{Cpu, CpuError, Registers, Segment, SystemRegisters, bits, msr};
use crate::exception::Exception;
use crate::outcome::{Completed, Outcome};
use crate::{Feature, XsaveLayout};

pub use native::Ram;

/// Where code is in tests.
pub const CODE: u64 = 0x1000;
/// Where data is in tests: a page of its own, and pages behind it.
pub const DATA: u64 = 0x4000;
/// RAM from address 0.
pub const RAM_BYTES: usize = 0x2_0000;
/// Address of a device.
pub const DEVICE: u64 = 0x40_0000;

/// A vCPU whose state are plain fields.
#[derive(Debug, Clone)]
pub struct TestCpu {
    pub registers: Registers,
    pub system: SystemRegisters,
    pub xcr0: u64,
    pub xss: u64,
    pub tsc_aux: u64,
    pub kernel_gs_base: u64,
    pub msrs: BTreeMap<u32, u64>,
    pub area: Vec<u8>,
    pub layout: XsaveLayout,
    pub missing: Vec<Feature>,
    pub random: Option<u64>,
    pub flushes: u32,
    pub interrupt_table: Option<(u64, u16)>,
}

impl TestCpu {
    /// At level 0 of 64-bit code without paging, with everything enabled.
    pub fn new() -> Self {
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
        let layout = native::layout();
        let mut area = vec![0; layout.area_bytes(u64::MAX >> 1, false).max(4096)];
        crate::word::put(&mut area, 0, &[0x7f, 3]);
        crate::word::put(&mut area, 24, &[0x80, 0x1f, 0, 0, 0xff, 0xff, 2, 0]);
        Self {
            registers: Registers {
                rip: CODE,
                rflags: 2,
                ..Registers::default()
            },
            system: SystemRegisters {
                segments: [data, code, data, data, data, data],
                cr0: bits::CR0_PE,
                cr4: bits::CR4_OSFXSR | bits::CR4_OSXSAVE | bits::CR4_PAE,
                efer: bits::EFER_LMA,
                ..SystemRegisters::default()
            },
            xcr0: layout.user_components(),
            xss: 0,
            tsc_aux: 7,
            kernel_gs_base: 0,
            msrs: BTreeMap::new(),
            area,
            layout,
            missing: Vec::new(),
            random: Some(0x1234_5678_9abc_def0),
            flushes: 0,
            interrupt_table: None,
        }
    }

    /// With AVX-512, whether the host has it or not: the layout of Intel's processors.
    pub fn with_avx512() -> Self {
        let mut cpu = Self::new();
        cpu.layout = XsaveLayout::from_cpuid(|subleaf| match subleaf {
            0 => [0xe7, 0, 0, 0],
            2 => [256, 576, 0, 0],
            5 => [64, 1088, 0, 0],
            6 => [512, 1152, 0, 0],
            7 => [1024, 1664, 0, 0],
            _ => [0; 4],
        });
        cpu.xcr0 = 0xe7;
        cpu.area.resize(4096, 0);
        cpu
    }

    /// Gives vector register `number` its 64 bytes.
    pub fn set_vector(&mut self, number: usize, value: &[u8; 64]) {
        use crate::word::put;
        let layout = &self.layout;
        if number >= 16 {
            let offset = layout.component(7).offset_bytes + 64 * (number - 16);
            put(&mut self.area, offset, value);
        } else {
            let (low, rest) = value.split_at(16);
            let (middle, high) = rest.split_at(16);
            let offsets = [2, 6].map(|number| layout.component(number).offset_bytes);
            put(&mut self.area, 160 + 16 * number, low);
            put(&mut self.area, offsets[0] + 16 * number, middle);
            put(&mut self.area, offsets[1] + 32 * number, high);
        }
        put(&mut self.area, 512, &0xe7u64.to_le_bytes());
    }

    /// The 64 bytes of vector register `number`, all state components being in use.
    pub fn vector(&self, number: usize) -> [u8; 64] {
        use crate::word::{at, put};
        let layout = &self.layout;
        if number >= 16 {
            return at(
                &self.area,
                layout.component(7).offset_bytes + 64 * (number - 16),
            );
        }
        let mut value = [0; 64];
        let offsets = [2, 6].map(|number| layout.component(number).offset_bytes);
        put(&mut value, 0, &at::<16>(&self.area, 160 + 16 * number));
        put(
            &mut value,
            16,
            &at::<16>(&self.area, offsets[0] + 16 * number),
        );
        put(
            &mut value,
            32,
            &at::<32>(&self.area, offsets[1] + 32 * number),
        );
        value
    }

    /// Gives opmask register `number` its value.
    pub fn set_opmask(&mut self, number: usize, value: u64) {
        let offset = self.layout.component(5).offset_bytes + 8 * number;
        crate::word::put(&mut self.area, offset, &value.to_le_bytes());
        crate::word::put(&mut self.area, 512, &0xe7u64.to_le_bytes());
    }

    /// Opmask register `number`.
    pub fn opmask(&self, number: usize) -> u64 {
        let offset = self.layout.component(5).offset_bytes + 8 * number;
        u64::from_le_bytes(crate::word::at(&self.area, offset))
    }

    /// Sets the current privilege level.
    pub fn at_level(mut self, level: u8) -> Self {
        for segment in &mut self.system.segments {
            segment.dpl = level;
        }
        self
    }
}

impl Cpu for TestCpu {
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
        self.xcr0 = value;
        Ok(())
    }
    fn msr(&mut self, index: u32) -> Result<u64, CpuError> {
        Ok(match index {
            msr::TSC => 0x1_0000_0002,
            msr::TSC_AUX => self.tsc_aux,
            msr::XSS => self.xss,
            msr::KERNEL_GS_BASE => self.kernel_gs_base,
            msr::PKRS | msr::U_CET..=msr::PL3_SSP => self.msrs.get(&index).copied().unwrap_or(0),
            other => panic!("MSR {other:#x}"),
        })
    }
    fn set_msr(&mut self, index: u32, value: u64) -> Result<(), CpuError> {
        match index {
            msr::KERNEL_GS_BASE => self.kernel_gs_base = value,
            msr::U_CET..=msr::PL3_SSP => {
                self.msrs.insert(index, value);
            }
            other => panic!("MSR {other:#x}"),
        }
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
        self.flushes += 1;
        Ok(())
    }
    fn has(&self, feature: Feature) -> bool {
        !self.missing.contains(&feature)
    }
    fn random(&mut self) -> Option<u64> {
        self.random
    }
    fn interrupt_table(&mut self) -> Result<Option<(u64, u16)>, CpuError> {
        Ok(self.interrupt_table)
    }
    fn physical_address_bits(&self) -> u8 {
        48
    }
}

/// Carries out `code` and takes for granted that it completes.
pub fn run(cpu: &mut TestCpu, ram: &mut Ram, code: &[u8]) -> Completed {
    let before = cpu.registers.rip;
    ram.put(before, code);
    match crate::complete(cpu, ram, code).expect("a vCPU that has its state") {
        Outcome::Completed(completed) => {
            let length = u64::try_from(code.len()).expect("a short instruction");
            assert_eq!(
                cpu.registers.rip,
                before + length,
                "the instruction pointer"
            );
            completed
        }
        other => panic!("{code:02x?}: {other:?}"),
    }
}

/// Carries out `code`, which raises an exception and changes no register but, for a trap, the pointer.
pub fn fault(cpu: &mut TestCpu, ram: &mut Ram, code: &[u8]) -> Exception {
    let before = cpu.clone();
    // The decoder may want more bytes than an instruction that does not exist has.
    ram.put(before.registers.rip, code);
    match crate::complete(cpu, ram, code).expect("a vCPU that has its state") {
        Outcome::Exception { exception, .. } => {
            assert_eq!(cpu.registers.general, before.registers.general);
            assert_eq!(cpu.area, before.area);
            exception
        }
        other => panic!("{code:02x?}: {other:?}"),
    }
}

/// Whether `code` is an instruction that this crate does not know.
pub fn is_unknown(cpu: &mut TestCpu, ram: &mut Ram, code: &[u8]) -> bool {
    let before = cpu.registers;
    let outcome = crate::complete(cpu, ram, code).expect("a vCPU that has its state");
    assert_eq!(cpu.registers, before);
    matches!(outcome, Outcome::Unknown(_))
}

/// The number of `N` bytes of RAM.
pub fn word(ram: &Ram, address: u64) -> u64 {
    let mut bytes = [0; 8];
    ram.get(address, &mut bytes);
    u64::from_le_bytes(bytes)
}
