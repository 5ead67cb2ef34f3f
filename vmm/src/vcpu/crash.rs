//! What is said of a vCPU that can run no further: where it stands, at which instruction, its registers.

use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use super::run_page::{INSTRUCTION_BYTES_MAX, RunPage};
use crate::crash::{Crash, VcpuState};
use crate::memory::GuestMemory;

const PAGE_BYTES: u64 = 4096;

/// Why a vCPU cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened, without the place.
    pub what: String,
    /// The bytes of the instruction, if somebody gave them.
    pub bytes: Vec<u8>,
}

impl Failure {
    /// One whose instruction is what memory has.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            bytes: Vec::new(),
        }
    }
}

/// What KVM says with a KVM_EXIT_INTERNAL_ERROR other than that of an instruction.
pub fn internal_error(page: &RunPage) -> Failure {
    let (suberror, data) = page.internal_error();
    Failure::new(format!(
        "KVM failed inside the guest (suberror {suberror}, data {data:x?})"
    ))
}

/// All that can be told of `vcpu`, number `number`, after `failure`.
pub fn describe(vcpu: &VcpuFd, number: u16, memory: &GuestMemory, failure: Failure) -> Crash {
    let Failure { what, mut bytes } = failure;
    let Some((state, code_bits)) = state(vcpu, number) else {
        return Crash::new(format!("vCPU {number}: {what}"));
    };
    if state.is_reset() {
        return Crash::new(format!(
            "vCPU {number}: {what}; KVM has reset the vCPU, so that where it stood is lost"
        ));
    }
    let address = state.instruction_address();
    if bytes.is_empty() {
        bytes = fetch(vcpu, memory, address);
    }
    let instruction = instruction(&bytes, state.rip, code_bits);
    Crash {
        reason: format!("vCPU {number} at {address:#x}, {instruction}: {what}"),
        vcpu: Some(Box::new(state)),
    }
}

/// The registers, and the width of code; none when KVM does not give them.
fn state(vcpu: &VcpuFd, number: u16) -> Option<(VcpuState, u32)> {
    let general = vcpu.get_regs().ok()?;
    let system = vcpu.get_sregs().ok()?;
    let code_bits = match (system.cs.l, system.cs.db) {
        (0, 0) => 16,
        (0, _) => 32,
        _ => 64,
    };
    let state = VcpuState {
        number,
        general: [
            general.rax,
            general.rcx,
            general.rdx,
            general.rbx,
            general.rsp,
            general.rbp,
            general.rsi,
            general.rdi,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ],
        rip: general.rip,
        rflags: general.rflags,
        cr0: system.cr0,
        cr2: system.cr2,
        cr3: system.cr3,
        cr4: system.cr4,
        efer: system.efer,
        cs: system.cs.selector,
        // In 64-bit mode the base of CS counts for nothing (Intel SDM volume 3, 3.2.4).
        cs_base: if code_bits == 64 { 0 } else { system.cs.base },
        ss: system.ss.selector,
        fs_base: system.fs.base,
        gs_base: system.gs.base,
    };
    Some((state, code_bits))
}

/// As many bytes of the instruction at the linear `address` as guest memory has.
fn fetch(vcpu: &VcpuFd, memory: &GuestMemory, address: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(INSTRUCTION_BYTES_MAX);
    while bytes.len() < INSTRUCTION_BYTES_MAX {
        let linear = address.wrapping_add(bytes.len() as u64);
        let in_page = usize::try_from(PAGE_BYTES - linear % PAGE_BYTES).unwrap_or(1);
        let mut piece = [0; INSTRUCTION_BYTES_MAX];
        let count = in_page.min(INSTRUCTION_BYTES_MAX - bytes.len());
        let Some(piece) = piece.get_mut(..count) else {
            break;
        };
        let physical = match vcpu.translate_gva(linear) {
            Ok(translation) if translation.valid != 0 => translation.physical_address,
            _ => break,
        };
        if memory.read_slice(piece, GuestAddress(physical)).is_err() {
            break;
        }
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// The first instruction of `bytes` in the syntax of the manuals, and its bytes.
fn instruction(bytes: &[u8], rip: u64, code_bits: u32) -> String {
    if bytes.is_empty() {
        return "where no code can be read".to_owned();
    }
    let decoded = Decoder::with_ip(code_bits, bytes, rip, DecoderOptions::NONE).decode();
    let (text, length) = if decoded.is_invalid() {
        ("no instruction".to_owned(), bytes.len())
    } else {
        let mut text = String::new();
        FastFormatter::new().format(&decoded, &mut text);
        (text, decoded.len())
    };
    let bytes: Vec<_> = bytes
        .iter()
        .take(length)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{text} ({})", bytes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_told_with_its_bytes() {
        let code = [0x0f, 0x01, 0xcb, 0x90, 0x90];
        assert_eq!(instruction(&code, 0x1000, 64), "stac (0f 01 cb)");
        assert_eq!(
            instruction(&[0x06, 0x90], 0x1000, 64),
            "no instruction (06 90)"
        );
        assert_eq!(instruction(&[0x06, 0x90], 0x1000, 32), "push es (06)");
        assert_eq!(instruction(&[], 0, 64), "where no code can be read");
    }
}
