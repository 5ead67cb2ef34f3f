//! A vCPU of KVM's, for completions.

use std::io;

use completion::{
    Cpu, CpuError, Exception, Feature, Registers, Segment, SystemRegisters, XsaveLayout, vector,
};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sync_regs, kvm_xsave};
use kvm_ioctls::{SyncReg, VcpuFd};

use super::profile::Profile;

/// CR4.PGE, whose change makes a processor forget all translations.
const CR4_PGE: u64 = 1 << 7;
/// RFLAGS.VM: virtual-8086 mode, whose privilege level is 3.
const FLAG_VM: u64 = 1 << 17;
/// DR6.BS: a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// `KVM_VCPUEVENT_VALID_SHADOW`.
const EVENTS_VALID_SHADOW: u32 = 4;

/// One vCPU between two KVM_RUN.
#[derive(Debug)]
pub struct KvmCpu<'a> {
    pub(super) vcpu: &'a mut VcpuFd,
    profile: &'a Profile,
    pub(super) state: kvm_sync_regs,
    pub(super) system_modified: bool,
}

impl<'a> KvmCpu<'a> {
    /// Takes the state from the shared page when it is `synchronised`, asks KVM for it when not.
    pub fn new(
        vcpu: &'a mut VcpuFd,
        profile: &'a Profile,
        synchronised: bool,
    ) -> Result<Self, CpuError> {
        let state = if synchronised {
            vcpu.sync_regs()
        } else {
            kvm_sync_regs {
                regs: vcpu
                    .get_regs()
                    .map_err(refused("read the general registers"))?,
                sregs: vcpu
                    .get_sregs()
                    .map_err(refused("read the system registers"))?,
                events: vcpu
                    .get_vcpu_events()
                    .map_err(refused("read the pending events"))?,
            }
        };
        Ok(Self {
            vcpu,
            profile,
            state,
            system_modified: false,
        })
    }

    /// Whether KVM is about to deliver an exception or an interrupt.
    pub const fn has_event(&self) -> bool {
        let events = &self.state.events;
        events.exception.injected != 0
            || events.exception.pending != 0
            || events.interrupt.injected != 0
            || events.nmi.injected != 0
    }

    /// Whether the vCPU runs a program, at privilege level 3.
    pub const fn is_user_mode(&self) -> bool {
        self.state.sregs.ss.dpl == 3 || self.state.regs.rflags & FLAG_VM != 0
    }

    /// Gives the state back to KVM with `exception` pending, or a debug exception after a single step: by
    /// the shared page if KVM takes it from there.
    ///
    /// The general registers are set whether they changed or not: KVM then forgets the #UD that it queued
    /// when it gave up (Linux, `__set_regs`). Events follow when there is an exception, or when the
    /// instruction stood in the shadow of STI or MOV SS, which it has left.
    pub fn finish(
        mut self,
        exception: Option<Exception>,
        single_step: bool,
        synchronise: bool,
    ) -> Result<(), CpuError> {
        let events = &mut self.state.events;
        let shadowed = events.interrupt.shadow != 0;
        // What other threads may change meanwhile (NMI, SIPI) stays KVM's. The shadow is over also where an
        // instruction before this one, in the same stay outside KVM, has ended it.
        events.flags = EVENTS_VALID_SHADOW;
        events.interrupt.shadow = 0;
        events.exception = Default::default();
        let is_interrupt = exception.is_some_and(|exception| exception.software);
        if let Some(exception) = exception
            && is_interrupt
        {
            events.interrupt.injected = 1;
            events.interrupt.nr = exception.vector;
            events.interrupt.soft = 1;
        } else if let Some(exception) = exception {
            events.exception.injected = 1;
            events.exception.nr = exception.vector;
            events.exception.has_error_code = exception.error_code.is_some().into();
            events.exception.error_code = exception.error_code.unwrap_or(0);
            if let Some(address) = exception.cr2 {
                self.state.sregs.cr2 = address;
                self.system_modified = true;
            }
        } else if single_step {
            let mut debug = self
                .vcpu
                .get_debug_regs()
                .map_err(refused("read the debug registers"))?;
            debug.dr6 |= DR6_SINGLE_STEP;
            self.vcpu
                .set_debug_regs(&debug)
                .map_err(refused("set the debug registers"))?;
            events.exception.injected = 1;
            events.exception.nr = vector::DEBUG;
        }
        let events_modified = shadowed || is_interrupt || self.state.events.exception.injected != 0;
        if synchronise {
            *self.vcpu.sync_regs_mut() = self.state;
            self.vcpu.set_sync_dirty_reg(SyncReg::Register);
            if self.system_modified {
                self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
            }
            if events_modified {
                self.vcpu.set_sync_dirty_reg(SyncReg::VcpuEvents);
            }
            return Ok(());
        }
        self.vcpu
            .set_regs(&self.state.regs)
            .map_err(refused("set the general registers"))?;
        if self.system_modified {
            self.vcpu
                .set_sregs(&self.state.sregs)
                .map_err(refused("set the system registers"))?;
        }
        if events_modified {
            self.vcpu
                .set_vcpu_events(&self.state.events)
                .map_err(refused("set the pending events"))?;
        }
        Ok(())
    }
}

pub(super) fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
    move |error| CpuError {
        what,
        source: io::Error::from_raw_os_error(error.errno()),
    }
}

/// An answer of KVM's that lacks what was asked for.
fn incomplete(what: &'static str) -> CpuError {
    CpuError {
        what,
        source: io::ErrorKind::InvalidData.into(),
    }
}

impl Cpu for KvmCpu<'_> {
    fn registers(&mut self) -> Result<Registers, CpuError> {
        let from = &self.state.regs;
        Ok(Registers {
            general: [
                from.rax, from.rcx, from.rdx, from.rbx, from.rsp, from.rbp, from.rsi, from.rdi,
                from.r8, from.r9, from.r10, from.r11, from.r12, from.r13, from.r14, from.r15,
            ],
            rip: from.rip,
            rflags: from.rflags,
        })
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        let [
            rax,
            rcx,
            rdx,
            rbx,
            rsp,
            rbp,
            rsi,
            rdi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = registers.general;
        self.state.regs = kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: registers.rip,
            rflags: registers.rflags,
        };
        Ok(())
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        let from = &self.state.sregs;
        Ok(SystemRegisters {
            segments: [from.es, from.cs, from.ss, from.ds, from.fs, from.gs].map(segment),
            gdt_base: from.gdt.base,
            gdt_limit: from.gdt.limit,
            ldt_base: from.ldt.base,
            ldt_limit: match from.ldt.unusable {
                0 => from.ldt.limit,
                _ => 0,
            },
            cr0: from.cr0,
            cr3: from.cr3,
            cr4: from.cr4,
            efer: from.efer,
        })
    }

    fn set_segment_bases(&mut self, fs: u64, gs: u64) -> Result<(), CpuError> {
        self.state.sregs.fs.base = fs;
        self.state.sregs.gs.base = gs;
        self.system_modified = true;
        Ok(())
    }

    fn xcr0(&mut self) -> Result<u64, CpuError> {
        const WHAT: &str = "read XCR0";
        let xcrs = self.vcpu.get_xcrs().map_err(refused(WHAT))?;
        let found = xcrs.xcrs.iter().find(|xcr| xcr.xcr == 0);
        Ok(found.ok_or_else(|| incomplete(WHAT))?.value)
    }

    fn set_xcr0(&mut self, value: u64) -> Result<(), CpuError> {
        let mut xcrs = self.vcpu.get_xcrs().map_err(refused("read XCR0"))?;
        for xcr in xcrs.xcrs.iter_mut().filter(|xcr| xcr.xcr == 0) {
            xcr.value = value;
        }
        self.vcpu.set_xcrs(&xcrs).map_err(refused("set XCR0"))
    }

    fn msr(&mut self, index: u32) -> Result<u64, CpuError> {
        const WHAT: &str = "read a model-specific register";
        let mut msrs = one_msr(index, 0)?;
        let read = self.vcpu.get_msrs(&mut msrs).map_err(refused(WHAT))?;
        match (read, msrs.as_slice()) {
            (1, [msr]) => Ok(msr.data),
            // A KVM without the register has it at its reset value.
            _ => Ok(0),
        }
    }

    fn set_msr(&mut self, index: u32, value: u64) -> Result<(), CpuError> {
        const WHAT: &str = "set a model-specific register";
        let msrs = one_msr(index, value)?;
        match self.vcpu.set_msrs(&msrs).map_err(refused(WHAT))? {
            1 => Ok(()),
            _ => Err(incomplete(WHAT)),
        }
    }

    /// KVM_GET_XSAVE gives all that this machine can have: components that would not fit into its 4 KiB
    /// are for processes that ask the kernel for them (arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM).
    fn read_xsave_area(&mut self, area: &mut Vec<u8>) -> Result<(), CpuError> {
        let state = self
            .vcpu
            .get_xsave()
            .map_err(refused("read the vector state"))?;
        area.clear();
        area.resize(size_of_val(&state.region), 0);
        let (words, _) = area.as_chunks_mut();
        for (bytes, word) in words.iter_mut().zip(&state.region) {
            *bytes = word.to_le_bytes();
        }
        Ok(())
    }

    fn write_xsave_area(&mut self, area: &[u8]) -> Result<(), CpuError> {
        let mut state = kvm_xsave::default();
        let (words, _) = area.as_chunks();
        for (word, bytes) in state.region.iter_mut().zip(words) {
            *word = u32::from_le_bytes(*bytes);
        }
        // SAFETY: the structure has all that KVM reads, for the reason above.
        unsafe { self.vcpu.set_xsave(&state) }.map_err(refused("set the vector state"))
    }

    fn xsave_layout(&self) -> &XsaveLayout {
        &self.profile.layout
    }

    /// KVM has no call for it, but flushes when system registers that matter to paging change.
    fn flush_tlb(&mut self) -> Result<(), CpuError> {
        const WHAT: &str = "flush translations";
        let mut other = self.state.sregs;
        other.cr4 ^= CR4_PGE;
        self.vcpu.set_sregs(&other).map_err(refused(WHAT))?;
        self.vcpu
            .set_sregs(&self.state.sregs)
            .map_err(refused(WHAT))
    }

    fn has(&self, feature: Feature) -> bool {
        self.profile.has(feature)
    }

    fn random(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        let flags = rustix::rand::GetRandomFlags::NONBLOCK;
        match rustix::rand::getrandom(&mut bytes, flags) {
            Ok(8) => Some(u64::from_le_bytes(bytes)),
            _ => None,
        }
    }

    fn interrupt_table(&mut self) -> Result<Option<(u64, u16)>, CpuError> {
        let table = &self.state.sregs.idt;
        Ok(Some((table.base, table.limit)))
    }

    fn physical_address_bits(&self) -> u8 {
        self.profile.physical_address_bits
    }
}

fn one_msr(index: u32, data: u64) -> Result<Msrs, CpuError> {
    let entry = kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    };
    Msrs::from_entries(&[entry]).map_err(|_| incomplete("make a list of registers"))
}

fn segment(from: kvm_segment) -> Segment {
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        kind: from.type_,
        dpl: from.dpl,
        usable: from.present != 0 && from.unusable == 0,
        default_32_bit: from.db != 0,
        long: from.l != 0,
    }
}
