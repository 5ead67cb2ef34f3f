//! The page that a vCPU shares with KVM: the few fields beside the exit itself (KVM API, 5).

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

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
