//! The floating-point and vector registers, which are in the XSAVE area in standard form (Intel SDM volume 1,
//! 13.4), and what must be enabled before they are used.
//!
//! A component whose bit in XSTATE_BV is clear has its initial values, whatever the area's bytes are.

use iced_x86::{EncodingKind, Register};

use crate::cpu::bits;
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::word::{at, put};
use crate::xsave_layout::component;

/// Bytes of the widest vector register.
pub const VECTOR_BYTES: usize = 64;

/// Offsets in the legacy region (Intel SDM volume 1, tables 10-2 and 13-1).
pub mod legacy {
    pub const MXCSR: usize = 24;
    pub const MXCSR_MASK: usize = 28;
    pub const ST: usize = 32;
    pub const XMM: usize = 160;
    pub const END: usize = 416;
    pub const BYTES: usize = 512;
    pub const HEADER: usize = 512;
}

/// MXCSR after a reset.
pub const MXCSR_INITIAL: u32 = 0x1f80;
/// The bits that MXCSR has where MXCSR_MASK is 0.
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;
/// FCW after FNINIT.
pub const FCW_INITIAL: u16 = 0x37f;

impl Execution<'_> {
    /// The XSAVE area, read if it was not yet.
    pub fn area(&mut self) -> Step<&mut Vec<u8>> {
        if self.area.is_none() {
            let mut area = Vec::new();
            self.cpu.read_xsave_area(&mut area)?;
            self.area = Some(area);
        }
        match &mut self.area {
            Some(area) if area.len() >= crate::xsave_layout::EXTENDED_REGION => Ok(area),
            _ => Err(Stop::Unknown),
        }
    }

    /// XSTATE_BV: the components that do not have their initial values. SSE counts when MXCSR has not.
    pub fn in_use(&mut self) -> Step<u64> {
        let area = self.area()?;
        Ok(u64::from_le_bytes(at(area, legacy::HEADER)))
    }

    /// Sets XSTATE_BV.
    pub fn set_in_use(&mut self, value: u64) -> Step {
        self.area_modified = true;
        put(self.area()?, legacy::HEADER, &value.to_le_bytes());
        Ok(())
    }

    /// The area, for a change in component `number`, which is in use from now on.
    pub fn component_mut(&mut self, number: u32) -> Step<&mut Vec<u8>> {
        let in_use = self.in_use()?;
        let bit = 1u64.wrapping_shl(number);
        if in_use & bit == 0 {
            self.initialise_component(number)?;
            self.set_in_use(in_use | bit)?;
        }
        self.area_modified = true;
        self.area()
    }

    /// Puts the initial values of component `number` into the area (Intel SDM volume 1, 13.6).
    pub fn initialise_component(&mut self, number: u32) -> Step {
        let extended = self.cpu.xsave_layout().component(number);
        self.area_modified = true;
        let area = self.area()?;
        let range = match number {
            component::X87 => {
                area.get_mut(..legacy::MXCSR).unwrap_or_default().fill(0);
                put(area, 0, &FCW_INITIAL.to_le_bytes());
                legacy::ST..legacy::XMM
            }
            component::SSE => legacy::XMM..legacy::END,
            _ => {
                let start = extended.offset_bytes;
                start..start.saturating_add(extended.size_bytes)
            }
        };
        area.get_mut(range).unwrap_or_default().fill(0);
        Ok(())
    }

    /// Makes the area's bytes say what XSTATE_BV says, for those that are read as a whole.
    pub fn settle(&mut self, components: u64) -> Step {
        let unused = components & !self.in_use()?;
        let modified = self.area_modified;
        for number in (0..63u32).filter(|number| unused & 1u64.wrapping_shl(*number) != 0) {
            self.initialise_component(number)?;
        }
        // Nothing that the guest sees.
        self.area_modified = modified;
        Ok(())
    }

    /// MXCSR.
    pub fn mxcsr(&mut self) -> Step<u32> {
        Ok(u32::from_le_bytes(at(self.area()?, legacy::MXCSR)))
    }

    /// Sets MXCSR.
    pub fn set_mxcsr(&mut self, value: u32) -> Step {
        let area = match value {
            MXCSR_INITIAL => self.area()?,
            _ => self.component_mut(component::SSE)?,
        };
        put(area, legacy::MXCSR, &value.to_le_bytes());
        self.area_modified = true;
        Ok(())
    }

    /// #GP for bits that MXCSR does not have.
    pub fn check_mxcsr(&mut self, value: u32) -> Step {
        let mask = match u32::from_le_bytes(at(self.area()?, legacy::MXCSR_MASK)) {
            0 => MXCSR_MASK_DEFAULT,
            mask => mask,
        };
        match value & !mask {
            0 => Ok(()),
            _ => Err(Exception::general_protection().into()),
        }
    }

    /// Whether vector instructions of this encoding may be used now (Intel SDM volume 3, 15.1 to 15.4;
    /// volume 2, tables 2-14 to 2-50): #UD or #NM if not.
    pub fn require_vectors(&mut self) -> Step {
        let vector_state: u64 = match self.instruction.encoding() {
            EncodingKind::Legacy => {
                if self.system.cr0 & bits::CR0_EM != 0 || self.system.cr4 & bits::CR4_OSFXSR == 0 {
                    return Err(Exception::invalid_opcode().into());
                }
                return self.require_device();
            }
            EncodingKind::VEX => 0b110,
            EncodingKind::EVEX => 0b1110_0110,
            _ => return Err(Stop::Unknown),
        };
        let protected = self.system.is_protected() && !self.has_flags(bits::VM);
        let enabled =
            self.system.cr4 & bits::CR4_OSXSAVE != 0 && self.xcr0()? & vector_state == vector_state;
        if !protected || !enabled {
            return Err(Exception::invalid_opcode().into());
        }
        self.require_device()
    }

    /// Whether opmask registers may be used now: their instructions have VEX encoding and need the state of
    /// AVX-512 (Intel SDM volume 2, tables 2-61 and 2-62).
    pub fn require_opmasks(&mut self) -> Step {
        const STATE: u64 = 0b1110_0110;
        self.require_vectors()?;
        match self.xcr0()? & STATE {
            STATE => Ok(()),
            _ => Err(Exception::invalid_opcode().into()),
        }
    }

    /// #NM where the guest's kernel saves this state lazily.
    pub fn require_device(&self) -> Step {
        match self.system.cr0 & bits::CR0_TS {
            0 => Ok(()),
            _ => Err(Exception::device_not_available().into()),
        }
    }

    /// A vector register, zeros above its width.
    pub fn vector(&mut self, register: Register) -> Step<[u8; VECTOR_BYTES]> {
        let mut value = [0; VECTOR_BYTES];
        for part in parts(register).ok_or(Stop::Unknown)?.into_iter().flatten() {
            if self.in_use()? & 1u64.wrapping_shl(part.component) != 0 {
                let start = self.part_offset(part);
                let area = self.area()?;
                let from: [u8; VECTOR_BYTES] = at(area, start);
                put(
                    &mut value,
                    part.at,
                    from.get(..part.bytes).unwrap_or_default(),
                );
            }
        }
        Ok(value)
    }

    /// Sets a vector register to the first bytes of `value`, as many as it is wide.
    pub fn set_vector(&mut self, register: Register, value: &[u8; VECTOR_BYTES]) -> Step {
        for part in parts(register).ok_or(Stop::Unknown)?.into_iter().flatten() {
            let start = self.part_offset(part);
            let from = value.get(part.at..).unwrap_or_default();
            let from = from.get(..part.bytes).unwrap_or(from);
            // Zeros in a component with its initial values change nothing.
            let unused = self.in_use()? & 1u64.wrapping_shl(part.component) == 0;
            if unused && from.iter().all(|byte| *byte == 0) {
                continue;
            }
            put(self.component_mut(part.component)?, start, from);
        }
        Ok(())
    }

    fn part_offset(&self, part: Part) -> usize {
        let base = match part.component {
            component::SSE => legacy::XMM,
            number => self.cpu.xsave_layout().component(number).offset_bytes,
        };
        base.saturating_add(part.offset)
    }

    /// The widest register with the number of `register` that the guest has enabled: what an instruction
    /// with a VEX or EVEX prefix clears.
    pub fn widest(&mut self, register: Register) -> Step<Register> {
        let xcr0 = self.xcr0()?;
        let first = match xcr0 & 0b1110_0000 {
            0b1110_0000 => Register::ZMM0,
            _ => Register::YMM0,
        };
        numbered(first, register.number())
    }
}

/// The register `number` places after `first`.
pub fn numbered(first: Register, number: usize) -> Step<Register> {
    Register::try_from((first as usize).wrapping_add(number)).map_err(|_| Stop::Unknown)
}

/// A piece of a vector register in one component.
#[derive(Debug, Clone, Copy)]
struct Part {
    component: u32,
    /// Offset in the component.
    offset: usize,
    /// Offset in the register.
    at: usize,
    bytes: usize,
}

/// Where the pieces of a vector register are.
fn parts(register: Register) -> Option<[Option<Part>; 3]> {
    let (number, bytes) = (register.number(), register.size());
    if !register.is_vector_register() {
        return None;
    }
    if number >= 16 {
        return Some([
            Some(Part {
                component: component::HIGH_ZMM,
                offset: number.wrapping_sub(16).wrapping_mul(64),
                at: 0,
                bytes,
            }),
            None,
            None,
        ]);
    }
    let part = |component, width: usize, at, wanted| {
        (bytes >= wanted).then(|| Part {
            component,
            offset: number.wrapping_mul(width),
            at,
            bytes: width,
        })
    };
    Some([
        part(component::SSE, 16, 0, 16),
        part(component::AVX, 16, 16, 32),
        part(component::ZMM_HIGH, 32, 32, 64),
    ])
}
