//! Flags, time, XCR0, protection keys, segment bases, caches and waiting (Intel SDM volume 2).

use std::sync::atomic::{Ordering, fence};

use iced_x86::{Code, Mnemonic as M, Register};

use crate::cpu::{SegmentName, bits, msr};
use crate::exception::{Exception, Step};
use crate::execution::Execution;
use crate::flags::STATUS;
use crate::outcome::Hint;
use crate::paging::Access;
use crate::segmentation::{is_canonical, linear_address};
use crate::word::{high_32, low_32};
use crate::xsave_layout::component;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let general_protection = Exception::general_protection();
    let invalid_opcode = Exception::invalid_opcode();
    match x.instruction.mnemonic() {
        M::Clac | M::Stac => {
            x.require_supervisor(invalid_opcode)?;
            let ac = match x.instruction.mnemonic() {
                M::Stac => bits::AC,
                _ => 0,
            };
            x.set_flags(bits::AC, ac);
        }
        M::Rdtsc | M::Rdtscp => {
            if x.system.cr4 & bits::CR4_TSD != 0 {
                x.require_supervisor(general_protection)?;
            }
            if x.instruction.mnemonic() == M::Rdtscp {
                let number = x.cpu.msr(msr::TSC_AUX)?;
                x.registers.set(RCX, low_32(number).into());
            }
            let time = x.cpu.msr(msr::TSC)?;
            set_edx_eax(x, time);
        }
        M::Rdpid => {
            let number = x.cpu.msr(msr::TSC_AUX)?;
            x.write(0, low_32(number).into())?;
        }
        M::Xgetbv => get_xcr(x)?,
        M::Xsetbv => set_xcr(x)?,
        M::Rdpkru | M::Wrpkru => protection_keys(x)?,
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase => segment_base(x)?,
        M::Swapgs => {
            if !x.system.is_64_bit() {
                return Err(invalid_opcode.into());
            }
            x.require_supervisor(general_protection)?;
            let other = x.cpu.msr(msr::KERNEL_GS_BASE)?;
            let gs = x.system.segment_mut(SegmentName::Gs);
            let base = std::mem::replace(&mut gs.base, other);
            x.bases_modified = true;
            x.cpu.set_msr(msr::KERNEL_GS_BASE, base)?;
        }
        M::Invpcid => invalidate(x)?,
        M::Wbinvd | M::Wbnoinvd | M::Invd => x.require_supervisor(general_protection)?,
        M::Clflush | M::Clflushopt | M::Clwb => {
            // The whole line is read, for the purpose of faults; caches are the host's.
            let linear = x.linear(0, 1, Access::Read)?;
            x.translate(linear, 1, Access::Read)?;
        }
        M::Mfence | M::Lfence | M::Sfence | M::Serialize => fence(Ordering::SeqCst),
        M::Monitor | M::Monitorx => {
            if x.instruction.mnemonic() == M::Monitor {
                x.require_supervisor(invalid_opcode)?;
            }
            if x.registers.get(RCX) & 0xffff_ffff != 0 {
                return Err(general_protection.into());
            }
            let linear = named_address(x, accumulator(x), Access::Read)?;
            x.translate(linear, 1, Access::Read)?;
        }
        M::Mwait | M::Mwaitx => {
            if x.instruction.mnemonic() == M::Mwait {
                x.require_supervisor(invalid_opcode)?;
            }
            // Any event ends the wait; the guest finds out what and waits again.
            x.hint = Some(Hint::Wait);
        }
        M::Umonitor => {
            let register = x.instruction.op_register(0);
            let linear = named_address(x, register, Access::Read)?;
            x.translate(linear, 1, Access::Read)?;
        }
        M::Clzero => {
            let linear = named_address(x, accumulator(x), Access::Write)? & !63;
            x.store(linear, &[0; 64])?;
        }
        M::Umwait | M::Tpause => {
            if x.system.cr4 & bits::CR4_TSD != 0 {
                x.require_supervisor(general_protection)?;
            }
            if x.read(0)? & !1 != 0 {
                return Err(general_protection.into());
            }
            // CF would say that the wait took longer than the system allows.
            x.set_flags(STATUS, 0);
            x.hint = Some(Hint::Wait);
        }
        M::Pause => x.hint = Some(Hint::Wait),
        M::Invlpg => {
            x.require_supervisor(general_protection)?;
            x.cpu.flush_tlb()?;
        }
        M::Ptwrite => {
            // Nothing traces here; the operand is read all the same.
            x.read(0)?;
        }
        M::Nop
        | M::Endbr32
        | M::Endbr64
        | M::Cldemote
        | M::Prefetchit0
        | M::Prefetchit1
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Reservednop => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// The part of RAX that MONITOR, MONITORX and CLZERO take as an address, by the address size.
fn accumulator(x: &Execution<'_>) -> Register {
    match x.instruction.code() {
        Code::Monitorw | Code::Monitorxw | Code::Clzerow => Register::AX,
        Code::Monitord | Code::Monitorxd | Code::Clzerod => Register::EAX,
        _ => Register::RAX,
    }
}

/// The linear address of the byte that `register` names, in DS or in the segment of a prefix.
fn named_address(x: &Execution<'_>, register: Register, access: Access) -> Step<u64> {
    let name = match x.instruction.segment_prefix() {
        Register::ES => SegmentName::Es,
        Register::CS => SegmentName::Cs,
        Register::SS => SegmentName::Ss,
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        _ => SegmentName::Ds,
    };
    Ok(linear_address(
        &x.system,
        name,
        x.register(register),
        1,
        access,
    )?)
}

fn set_edx_eax(x: &mut Execution<'_>, value: u64) {
    x.registers.set(RAX, low_32(value).into());
    x.registers.set(RDX, high_32(value).into());
}

/// EDX:EAX.
pub fn edx_eax(x: &Execution<'_>) -> u64 {
    let [high, low] = [RDX, RAX].map(|number| x.registers.get(number) & 0xffff_ffff);
    high << 32 | low
}

/// Raises #UD where the guest's kernel has not enabled XSAVE.
pub fn require_xsave(x: &Execution<'_>) -> Step {
    match x.system.cr4 & bits::CR4_OSXSAVE {
        0 => Err(Exception::invalid_opcode().into()),
        _ => Ok(()),
    }
}

fn get_xcr(x: &mut Execution<'_>) -> Step {
    require_xsave(x)?;
    let mut value = x.xcr0()?;
    match x.registers.get(RCX) & 0xffff_ffff {
        0 => {}
        // XCR0 and what is in use; a feature of its own, on all processors that have XSAVEC.
        1 if x.cpu.has(crate::Feature::Xsavec) => value &= x.in_use()?,
        _ => return Err(Exception::general_protection().into()),
    }
    set_edx_eax(x, value);
    Ok(())
}

fn set_xcr(x: &mut Execution<'_>) -> Step {
    const AVX: u64 = 1 << component::AVX;
    const AVX512: u64 =
        1 << component::OPMASK | 1 << component::ZMM_HIGH | 1 << component::HIGH_ZMM;
    const TILES: u64 = 1 << component::TILE_CONFIGURATION | 1 << component::TILE_DATA;
    const BOUNDS: u64 = 3 << 3;
    require_xsave(x)?;
    x.require_supervisor(Exception::general_protection())?;
    let value = edx_eax(x);
    let together = |group: u64| value & group == 0 || value & group == group;
    // Intel SDM volume 1, 13.3, in its order.
    let valid = x.registers.get(RCX) & 0xffff_ffff == 0
        && value & 1 != 0
        && value & !x.cpu.xsave_layout().user_components() == 0
        && (value & AVX == 0 || value & 2 != 0)
        && together(AVX512)
        && (value & AVX512 == 0 || value & AVX != 0)
        && together(BOUNDS)
        && together(TILES);
    if !valid {
        return Err(Exception::general_protection().into());
    }
    Ok(x.cpu.set_xcr0(value)?)
}

fn protection_keys(x: &mut Execution<'_>) -> Step {
    if x.system.cr4 & bits::CR4_PKE == 0 {
        return Err(Exception::invalid_opcode().into());
    }
    if x.registers.get(RCX) & 0xffff_ffff != 0 {
        return Err(Exception::general_protection().into());
    }
    if x.instruction.mnemonic() == M::Rdpkru {
        let rights = x.paging.pkru;
        set_edx_eax(x, rights.into());
        return Ok(());
    }
    if x.registers.get(RDX) & 0xffff_ffff != 0 {
        return Err(Exception::general_protection().into());
    }
    let rights = low_32(x.registers.get(RAX));
    let offset = x.cpu.xsave_layout().component(component::PKRU).offset_bytes;
    let area = x.component_mut(component::PKRU)?;
    crate::word::put(area, offset, &rights.to_le_bytes());
    Ok(())
}

/// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.
fn segment_base(x: &mut Execution<'_>) -> Step {
    if !x.system.is_64_bit() || x.system.cr4 & bits::CR4_FSGSBASE == 0 {
        return Err(Exception::invalid_opcode().into());
    }
    let name = match x.instruction.mnemonic() {
        M::Rdfsbase | M::Wrfsbase => SegmentName::Fs,
        _ => SegmentName::Gs,
    };
    if matches!(x.instruction.mnemonic(), M::Rdfsbase | M::Rdgsbase) {
        let base = x.system.segment(name).base;
        return x.write(0, base);
    }
    let base = x.read(0)?;
    if !is_canonical(&x.system, base) {
        return Err(Exception::general_protection().into());
    }
    x.system.segment_mut(name).base = base;
    x.bases_modified = true;
    Ok(())
}

/// INVPCID: every kind forgets more than it has to.
fn invalidate(x: &mut Execution<'_>) -> Step {
    x.require_supervisor(Exception::general_protection())?;
    let kind = x.read(0)?;
    let linear = x.linear(1, 16, Access::Read)?;
    let mut descriptor = [0; 16];
    x.load(linear, &mut descriptor)?;
    let context = u64::from_le_bytes(crate::word::at(&descriptor, 0));
    let address = u64::from_le_bytes(crate::word::at(&descriptor, 8));
    let valid = match kind {
        0 => context >> 12 == 0 && is_canonical(&x.system, address),
        1..=3 => context >> 12 == 0,
        _ => false,
    };
    if !valid {
        return Err(Exception::general_protection().into());
    }
    Ok(x.cpu.flush_tlb()?)
}

#[cfg(test)]
mod tests;
