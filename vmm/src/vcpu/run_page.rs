//! The page that a vCPU shares with KVM: the few fields beside the exit itself (KVM API, 5).

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{
    KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};
use kvm_ioctls::VcpuFd;

/// The longest instruction (Intel SDM volume 2, 2.3.11).
pub const INSTRUCTION_BYTES_MAX: usize = 15;
/// Words of data that an emulation failure has at least when it comes with the instruction: the flags and
/// sixteen bytes (KVM API, 5, `emulation_failure`).
const DATA_WITH_BYTES: u32 = 3;

/// `kvm_run` of one vCPU, through a pointer: KVM and a signal handler write to it as well.
///
/// Whoever holds one drops it before the vCPU's file descriptor.
#[derive(Debug)]
pub struct RunPage {
    page: NonNull<kvm_run>,
}

// SAFETY: the page belongs to the vCPU, not to a thread; whoever has the vCPU has the page.
unsafe impl Send for RunPage {}

impl RunPage {
    /// The page of `vcpu`.
    pub fn new(vcpu: &mut VcpuFd) -> Self {
        Self {
            page: NonNull::from(vcpu.get_kvm_run()),
        }
    }

    /// Where `immediate_exit` is.
    pub fn immediate_exit(&self) -> *mut u8 {
        // SAFETY: the page is mapped, so its field has an address in the same mapping.
        unsafe { ptr::addr_of_mut!((*self.page.as_ptr()).immediate_exit) }
    }

    /// Says whether the next KVM_RUN returns before it enters the guest, after it has finished what the
    /// last exit left open.
    pub fn set_immediate_exit(&self, value: bool) {
        // SAFETY: the field is mapped for as long as self lives, and only ever accessed atomically here.
        let flag = unsafe { AtomicU8::from_ptr(self.immediate_exit()) };
        flag.store(u8::from(value), Ordering::SeqCst);
    }

    /// Whether KVM_INTERRUPT would be taken now.
    pub fn is_ready_for_interrupt(&self) -> bool {
        // SAFETY: a mapped field that KVM writes only during KVM_RUN, on this thread.
        let ready = unsafe { (*self.page.as_ptr()).ready_for_interrupt_injection };
        ready != 0
    }

    /// Asks KVM to leave the guest as soon as it can take an interrupt.
    pub fn request_interrupt_window(&self, request: bool) {
        // SAFETY: a mapped field that KVM reads only during KVM_RUN, on this thread.
        unsafe { (*self.page.as_ptr()).request_interrupt_window = u8::from(request) };
    }

    /// After a KVM_EXIT_IO: how wide each access of a string instruction is, in bytes.
    pub fn io_width_bytes(&self) -> usize {
        // SAFETY: the page is mapped for as long as self lives, and KVM writes to it only during
        // KVM_RUN, on this thread.
        let exit = unsafe { (*self.page.as_ptr()).__bindgen_anon_1 };
        // SAFETY: any bit pattern is a valid value of these plain integers, whatever the exit was.
        let io = unsafe { exit.io };
        usize::from(io.size).max(1)
    }

    /// After a KVM_EXIT_INTERNAL_ERROR: the bytes of the instruction that KVM would not emulate, as far as
    /// it gave them. None when KVM stopped for something else.
    pub fn refused_instruction(&self) -> Option<InstructionBytes> {
        // SAFETY: as above, mapped, and not written to now.
        let exit = unsafe { (*self.page.as_ptr()).__bindgen_anon_1 };
        // SAFETY: any bit pattern is a valid value of these plain integers, whatever the exit was.
        let failure = unsafe { exit.emulation_failure };
        if failure.suberror != KVM_INTERNAL_ERROR_EMULATION {
            return None;
        }
        let flag = u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
        if failure.ndata < DATA_WITH_BYTES || failure.flags & flag == 0 {
            return Some(InstructionBytes::default());
        }
        // SAFETY: the one variant of the union, of plain integers.
        let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        let count = usize::from(instruction.insn_size);
        Some(InstructionBytes::new(instruction.insn_bytes, count))
    }

    /// After a KVM_EXIT_INTERNAL_ERROR: its kind and the data that came with it.
    pub fn internal_error(&self) -> (u32, Vec<u64>) {
        // SAFETY: as above, mapped, and not written to now.
        let exit = unsafe { (*self.page.as_ptr()).__bindgen_anon_1 };
        // SAFETY: any bit pattern is a valid value of these plain integers, whatever the exit was.
        let internal = unsafe { exit.internal };
        let count = usize::try_from(internal.ndata).unwrap_or(usize::MAX);
        let data = internal.data.iter().take(count).copied().collect();
        (internal.suberror, data)
    }
}

/// The first bytes of an instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstructionBytes {
    bytes: [u8; INSTRUCTION_BYTES_MAX],
    count: usize,
}

impl InstructionBytes {
    /// The first `count` of `bytes`, if there are so many.
    fn new(bytes: [u8; INSTRUCTION_BYTES_MAX], count: usize) -> Self {
        let count = count.min(INSTRUCTION_BYTES_MAX);
        Self { bytes, count }
    }

    /// Those that are there.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14__bindgen_ty_1__bindgen_ty_1 as emulation_failure_instruction;

    /// A page after a KVM_EXIT_INTERNAL_ERROR.
    fn refused(suberror: u32, ndata: u32, flags: u64, size: u8) -> Option<InstructionBytes> {
        let mut run = kvm_run::default();
        run.__bindgen_anon_1.emulation_failure.suberror = suberror;
        run.__bindgen_anon_1.emulation_failure.ndata = ndata;
        run.__bindgen_anon_1.emulation_failure.flags = flags;
        let instruction = emulation_failure_instruction {
            insn_size: size,
            insn_bytes: [0xcc; INSTRUCTION_BYTES_MAX],
        };
        run.__bindgen_anon_1
            .emulation_failure
            .__bindgen_anon_1
            .__bindgen_anon_1 = instruction;
        let page = RunPage {
            page: NonNull::from(&mut run),
        };
        page.refused_instruction()
    }

    #[test]
    fn bytes_are_taken_as_far_as_kvm_gave_them() {
        let length = |refused: Option<InstructionBytes>| refused.map(|it| it.as_slice().len());
        assert_eq!(length(refused(1, 3, 1, 2)), Some(2));
        assert_eq!(length(refused(1, 3, 1, 200)), Some(INSTRUCTION_BYTES_MAX));
        assert_eq!(length(refused(1, 3, 0, 2)), Some(0), "no flag");
        assert_eq!(length(refused(1, 0, 1, 2)), Some(0), "an older KVM");
        assert_eq!(length(refused(3, 3, 1, 2)), None, "another failure");
    }
}
