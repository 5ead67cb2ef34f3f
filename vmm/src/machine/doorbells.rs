//! Doorbells of devices as ioeventfds (KVM API, 4.59 "KVM_IOEVENTFD").

use std::io;
use std::sync::Arc;

use bus::DoorbellRegistry;
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// KVM's doorbells in one machine.
#[derive(Debug)]
pub struct Doorbells {
    vm: Arc<VmFd>,
}

impl Doorbells {
    /// Those of `vm`.
    pub const fn new(vm: Arc<VmFd>) -> Self {
        Self { vm }
    }
}

impl DoorbellRegistry for Doorbells {
    fn register(&self, address: u64, value: u32, event: &EventFd) -> io::Result<()> {
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), value)
            .map_err(Into::into)
    }

    fn unregister(&self, address: u64, value: u32, event: &EventFd) -> io::Result<()> {
        self.vm
            .unregister_ioevent(event, &IoEventAddress::Mmio(address), value)
            .map_err(Into::into)
    }
}
