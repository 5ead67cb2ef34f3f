//! An instruction's operands: registers, immediates, and memory through segments and pages.

use iced_x86::{Mnemonic, OpKind, Register};

use crate::atomic;
use crate::cpu::{SegmentName, bits};
use crate::exception::{Exception, Step, Stop, vector};
use crate::execution::Execution;
use crate::memory::{self, Piece, Pieces};
use crate::paging::{Access, PAGE_BYTES};
use crate::segmentation::linear_address;
use crate::word::{from_le, index, length, mask};

impl Execution<'_> {
    /// Whether operand `number` is in memory.
    pub fn is_memory(&self, number: u32) -> bool {
        !matches!(
            self.instruction.op_kind(number),
            OpKind::Register
                | OpKind::NearBranch16
                | OpKind::NearBranch32
                | OpKind::NearBranch64
                | OpKind::FarBranch16
                | OpKind::FarBranch32
                | OpKind::Immediate8
                | OpKind::Immediate8_2nd
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64
        )
    }

    /// The linear address of memory operand `number`, of which `bytes` are accessed.
    pub fn linear(&self, number: u32, bytes: usize, access: Access) -> Step<u64> {
        self.linear_beyond(number, 0, bytes, access)
    }

    /// As [`Execution::linear`], `beyond` bytes behind where the operand says, or before it.
    pub fn linear_beyond(
        &self,
        number: u32,
        beyond: i64,
        bytes: usize,
        access: Access,
    ) -> Step<u64> {
        let mut offset = self.effective_address(number).ok_or(Stop::Unknown)?;
        if beyond != 0 {
            offset = offset.wrapping_add_signed(beyond) & self.address_mask(number);
        }
        let segment = match self.instruction.op_kind(number) {
            OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => Register::ES,
            _ => self.instruction.memory_segment(),
        };
        let name = match segment {
            Register::ES => SegmentName::Es,
            Register::CS => SegmentName::Cs,
            Register::SS => SegmentName::Ss,
            Register::FS => SegmentName::Fs,
            Register::GS => SegmentName::Gs,
            _ => SegmentName::Ds,
        };
        Ok(linear_address(&self.system, name, offset, bytes, access)?)
    }

    /// The offset in its segment of memory operand `number`.
    pub fn effective_address(&self, number: u32) -> Option<u64> {
        self.instruction
            .virtual_address(number, 0, |register, _, _| {
                Some(match register.is_segment_register() {
                    true => 0,
                    false => self.register(register),
                })
            })
    }

    /// The bits that the address of memory operand `number` has in its segment.
    fn address_mask(&self, number: u32) -> u64 {
        let register = match (
            self.instruction.memory_base(),
            self.instruction.memory_index(),
        ) {
            (Register::None, index) => index,
            (base, _) => base,
        };
        match (register.size(), self.instruction.op_kind(number)) {
            (bytes @ (2 | 4), OpKind::Memory) => mask(bytes),
            // Without a register the displacement tells.
            (0, OpKind::Memory) => match self.instruction.memory_displ_size() {
                2 => mask(2),
                4 => mask(4),
                _ => u64::MAX,
            },
            _ => u64::MAX,
        }
    }

    /// Where `bytes` at `linear` are, page by page; all of them may be accessed.
    pub fn translate(&self, linear: u64, bytes: usize, access: Access) -> Step<Pieces> {
        let mut pieces = Pieces::default();
        if let Some(translations) = self.translations {
            // A run has RAM alone, and what crosses pages is rare enough to be left to others.
            let page = translations.page(&self.paging, linear, bytes, access)?;
            let physical = page.physical(linear);
            pieces
                .push(Piece { physical, bytes })
                .ok_or(Stop::Unknown)?;
            return Ok(pieces);
        }
        // Dirty bits come when it is known that nothing faults.
        for dirty in [false, true] {
            if dirty && access != Access::Write {
                break;
            }
            pieces.clear();
            let mut done = 0;
            while done < bytes {
                let mut address = linear.wrapping_add(length(done));
                if !self.system.is_64_bit() {
                    address &= 0xffff_ffff;
                }
                let in_page = index(PAGE_BYTES.wrapping_sub(address & PAGE_BYTES.wrapping_sub(1)));
                let piece = Piece {
                    physical: self.paging.translate(self.memory, address, access, dirty)?,
                    bytes: in_page.min(bytes.saturating_sub(done)),
                };
                pieces.push(piece).ok_or(Stop::Unknown)?;
                done = done.saturating_add(piece.bytes);
            }
        }
        Ok(pieces)
    }

    /// Reads memory at `linear`.
    pub fn load(&mut self, linear: u64, data: &mut [u8]) -> Step {
        if let Some(translations) = self.translations {
            let page = translations.page(&self.paging, linear, data.len(), Access::Read)?;
            page.read(linear, data);
            return Ok(());
        }
        self.check_alignment(linear, data.len())?;
        let pieces = self.translate(linear, data.len(), Access::Read)?;
        self.load_pieces(&pieces, data);
        Ok(())
    }

    /// Writes memory at `linear`.
    pub fn store(&mut self, linear: u64, data: &[u8]) -> Step {
        if let Some(translations) = self.translations {
            let page = translations.page(&self.paging, linear, data.len(), Access::Write)?;
            page.write(linear, data);
            return Ok(());
        }
        self.check_alignment(linear, data.len())?;
        let pieces = self.translate(linear, data.len(), Access::Write)?;
        self.store_pieces(&pieces, data);
        Ok(())
    }

    /// Reads translated memory.
    pub fn load_pieces(&mut self, pieces: &[Piece], data: &mut [u8]) {
        memory::read_pieces(self.memory, pieces, data);
    }

    /// Writes `data` from byte `offset` of translated memory.
    pub fn store_within(&mut self, pieces: &[Piece], offset: usize, data: &[u8]) {
        memory::write_pieces(self.memory, pieces, offset, data);
    }

    /// Writes translated memory.
    pub fn store_pieces(&mut self, pieces: &[Piece], data: &[u8]) {
        memory::write_pieces(self.memory, pieces, 0, data);
    }

    /// #AC where user code asked for it (Intel SDM volume 3, 7.15). Wider operands have rules of their own.
    fn check_alignment(&self, linear: u64, bytes: usize) -> Step {
        let checked = self.privilege_level() == 3
            && self.system.cr0 & bits::CR0_AM != 0
            && self.paging.rflags & bits::AC != 0
            && matches!(bytes, 2 | 4 | 8);
        match checked && !linear.is_multiple_of(length(bytes)) {
            true => Err(Exception::with_code(vector::ALIGNMENT_CHECK, 0).into()),
            false => Ok(()),
        }
    }

    /// Size of operand `number` in bytes.
    pub fn operand_bytes(&self, number: u32) -> usize {
        match self.instruction.op_kind(number) {
            OpKind::Register => self.instruction.op_register(number).size(),
            _ => self.instruction.memory_size().size(),
        }
    }

    /// The value of an integer operand of at most 8 bytes.
    pub fn read(&mut self, number: u32) -> Step<u64> {
        match self.instruction.op_kind(number) {
            OpKind::Register => Ok(self.register(self.instruction.op_register(number))),
            _ if self.is_memory(number) => {
                let bytes = self.operand_bytes(number);
                let mut data = [0; 8];
                let data = data.get_mut(..bytes).ok_or(Stop::Unknown)?;
                let linear = self.linear(number, bytes, Access::Read)?;
                self.load(linear, data)?;
                Ok(from_le(data))
            }
            _ => self
                .instruction
                .try_immediate(number)
                .map_err(|_| Stop::Unknown),
        }
    }

    /// Gives an integer operand of at most 8 bytes its value.
    pub fn write(&mut self, number: u32, value: u64) -> Step {
        if self.instruction.op_kind(number) == OpKind::Register {
            self.set_register(self.instruction.op_register(number), value);
            return Ok(());
        }
        let bytes = self.operand_bytes(number);
        let data = value.to_le_bytes();
        let data = data.get(..bytes).ok_or(Stop::Unknown)?;
        let linear = self.linear(number, bytes, Access::Write)?;
        self.store(linear, data)
    }

    /// Replaces the integer operand `number` by what `change` makes of it, and gives what it was. In RAM that
    /// is one atomic step, so `change` may be asked more than once.
    pub fn update(&mut self, number: u32, change: impl Fn(u64) -> u64) -> Step<u64> {
        self.update_beyond(number, 0, change)
    }

    /// As [`Execution::update`], `beyond` bytes behind where a memory operand is, or before it.
    pub fn update_beyond(
        &mut self,
        number: u32,
        beyond: i64,
        change: impl Fn(u64) -> u64,
    ) -> Step<u64> {
        if self.instruction.op_kind(number) == OpKind::Register {
            let register = self.instruction.op_register(number);
            let found = self.register(register);
            self.set_register(register, change(found));
            return Ok(found);
        }
        let bytes = self.operand_bytes(number);
        let linear = self.linear_beyond(number, beyond, bytes, Access::Write)?;
        if let Some(translations) = self.translations
            && !self.instruction.has_lock_prefix()
            && self.instruction.mnemonic() != Mnemonic::Xchg
        {
            let page = translations.page(&self.paging, linear, bytes, Access::Write)?;
            let mut data = [0; 8];
            let data = data.get_mut(..bytes).ok_or(Stop::Unknown)?;
            page.read(linear, data);
            let found = from_le(data);
            let changed = change(found).to_le_bytes();
            page.write(linear, changed.get(..bytes).ok_or(Stop::Unknown)?);
            return Ok(found);
        }
        self.check_alignment(linear, bytes)?;
        let pieces = self.translate(linear, bytes, Access::Write)?;
        Ok(atomic::update(self.memory, &pieces, bytes, change))
    }

    /// A general register of any width, as an unsigned number.
    pub fn register(&self, register: Register) -> u64 {
        let whole = self.registers.get(register.full_register().number());
        match register {
            Register::AH | Register::CH | Register::DH | Register::BH => {
                // Numbered in their own row by the decoder; their bytes are in the first four registers.
                whole >> 8 & 0xff
            }
            _ if register.is_gpr() => whole & mask(register.size()),
            _ => 0,
        }
    }

    /// Sets a general register: 4 bytes clear the upper half, fewer leave the rest as it is.
    pub fn set_register(&mut self, register: Register, value: u64) {
        if !register.is_gpr() {
            return;
        }
        let number = register.full_register().number();
        let whole = self.registers.get(number);
        let value = match register {
            Register::AH | Register::CH | Register::DH | Register::BH => {
                whole & !0xff00 | (value & 0xff) << 8
            }
            _ => match register.size() {
                size @ (1 | 2) => whole & !mask(size) | value & mask(size),
                size => value & mask(size),
            },
        };
        self.registers.set(number, value);
    }
}

impl Execution<'_> {
    /// Reads system structures, which are a supervisor's whoever runs (Intel SDM volume 3, 5.6.1).
    pub fn load_as_supervisor(&mut self, linear: u64, data: &mut [u8]) -> Step {
        let before = self.paging;
        self.paging.user = false;
        // Such an access heeds SMAP whatever AC says.
        self.paging.rflags &= !bits::AC;
        let pieces = self.translate(linear, data.len(), Access::Read);
        self.paging = before;
        self.load_pieces(&pieces?, data);
        Ok(())
    }

    /// A selector: the low 16 bits of a register, or 16 bits of memory.
    pub fn read_selector(&mut self, number: u32) -> Step<u64> {
        if !self.is_memory(number) {
            return Ok(self.register(self.instruction.op_register(number)) & 0xffff);
        }
        let linear = self.linear(number, 2, Access::Read)?;
        let mut data = [0; 2];
        self.load(linear, &mut data)?;
        Ok(from_le(&data))
    }
}
