//! SYSCALL on a KVM that stays at ring 3.
//!
//! A software KVM was seen to do what SYSCALL does to RCX, R11, the flags and RIP (AMD APM volume 3,
//! SYSCALL), but to leave CS and SS those of ring 3. The program's next instruction is then a fetch from
//! the kernel's entry point, which ring 3 may not do: the guest gets a page fault that no processor raises.
//! A kernel that prevents supervisor accesses to user pages (SMAP) begins its handlers with CLAC, which such
//! a KVM does not know, so that its page faults come by here. What this one took is put back, and the system
//! call goes on at the entry point, at ring 0. A kernel without SMAP is not helped.
//!
//! A program that jumps to the entry point gets its page fault: RCX has to follow a SYSCALL in memory. One
//! that has it follow one has made a system call, as far as its kernel can tell.

use completion::{CpuError, fetch_as_program};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_segment};

use super::cpu::{KvmCpu, refused};
use super::memory::KvmMemory;

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
/// Page-fault error code: by a program, fetching an instruction; whether the page is present is left out.
const FETCH_BY_PROGRAM: u64 = 1 << 4 | 1 << 2;
const PRESENT: u64 = 1;
/// The bytes of SYSCALL.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const SYSCALL_BYTES: u64 = 2;
/// RFLAGS.RF, which a fault sets in what it pushes.
const FLAG_RF: u64 = 1 << 16;

/// What a fault with an error code pushes in 64-bit mode (Intel SDM volume 3, 7.14.2).
type Frame = [u64; 6];

impl KvmCpu<'_> {
    /// Goes on with a system call if the vCPU stands in the handler of the fault that stands for it,
    /// whose first instruction has just been completed.
    ///
    /// # Errors
    ///
    /// When KVM fails the vCPU.
    pub fn resume_system_call(&mut self, memory: &mut KvmMemory<'_>) -> Result<(), CpuError> {
        let system = &self.state.sregs;
        let entry = system.cr2;
        // The entry point of a 64-bit kernel is in the upper half: cheap, and true of few other faults.
        if entry.cast_signed() >= 0 || system.cs.dpl != 0 || system.cs.l == 0 {
            return Ok(());
        }
        let Some([error_code, rip, cs, rflags, rsp, _]) = self.frame(memory) else {
            return Ok(());
        };
        if error_code & !PRESENT != FETCH_BY_PROGRAM || rip != entry || cs & 3 != 3 {
            return Ok(());
        }
        let [star, lstar, mask] = self.system_call_registers()?;
        if lstar != entry || !self.follows_system_call(memory)? {
            return Ok(());
        }
        let selector = u16::try_from(star >> 32 & 0xfffc).unwrap_or(0);
        let system = &mut self.state.sregs;
        system.cs.selector = selector;
        system.ss = kvm_segment {
            selector: selector.wrapping_add(8),
            limit: u32::MAX,
            // Data, writable, accessed.
            type_: 3,
            s: 1,
            present: 1,
            db: 1,
            g: 1,
            ..kvm_segment::default()
        };
        // Not taken for the next one's.
        system.cr2 = 0;
        self.system_modified = true;
        let registers = &mut self.state.regs;
        registers.rip = rip;
        registers.rsp = rsp;
        registers.rflags = rflags & !(mask | FLAG_RF);
        Ok(())
    }

    /// Whether the instruction before RCX is SYSCALL, which leaves its end there. KVM_TRANSLATE would not
    /// tell: it reads like the kernel, which SMAP keeps from the pages of programs.
    fn follows_system_call(&mut self, memory: &mut KvmMemory<'_>) -> Result<bool, CpuError> {
        let mut code = [0; SYSCALL.len()];
        let start = self.state.regs.rcx.wrapping_sub(SYSCALL_BYTES);
        Ok(fetch_as_program(self, memory, start, &mut code)? && code == SYSCALL)
    }

    /// STAR, LSTAR and FMASK.
    fn system_call_registers(&self) -> Result<[u64; 3], CpuError> {
        const WHAT: &str = "read the registers of SYSCALL";
        let entries = [MSR_STAR, MSR_LSTAR, MSR_FMASK].map(|index| kvm_msr_entry {
            index,
            ..kvm_msr_entry::default()
        });
        let mut values = [0; 3];
        let Ok(mut registers) = Msrs::from_entries(&entries) else {
            return Ok(values);
        };
        self.vcpu.get_msrs(&mut registers).map_err(refused(WHAT))?;
        for (value, register) in values.iter_mut().zip(registers.as_slice()) {
            *value = register.data;
        }
        Ok(values)
    }

    /// What a fault has pushed, if it is in one page of RAM.
    fn frame(&self, memory: &KvmMemory<'_>) -> Option<Frame> {
        const PAGE_BYTES: u64 = 4096;
        const FRAME_BYTES: u64 = 48;
        let top = self.state.regs.rsp;
        if top % PAGE_BYTES > PAGE_BYTES - FRAME_BYTES {
            return None;
        }
        let translation = self.vcpu.translate_gva(top).ok()?;
        if translation.valid == 0 {
            return None;
        }
        memory.read_obj(translation.physical_address)
    }
}
