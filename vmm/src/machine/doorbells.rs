//! Doorbells of devices as ioeventfds (KVM API, 4.59 "KVM_IOEVENTFD").

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bus::{Doorbell, DoorbellRegistry};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::interrupts::Interrupts;

/// KVM's doorbells.
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
    fn register(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(doorbell.address);
        match doorbell.value {
            Some(value) => self.vm.register_ioevent(event, &address, value),
            None => self.vm.register_ioevent(event, &address, NoDatamatch),
        }
        .map_err(Into::into)
    }

    fn unregister(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(doorbell.address);
        match doorbell.value {
            Some(value) => self.vm.unregister_ioevent(event, &address, value),
            None => self.vm.unregister_ioevent(event, &address, NoDatamatch),
        }
        .map_err(Into::into)
    }
}

/// KVM's doorbells for one device, and its interrupt, which KVM is told of with the first of them: each
/// connected event makes the end of the machine wait out a grace period, also for a device that no driver
/// ever starts.
#[derive(Debug)]
pub struct WiredDoorbells {
    doorbells: Doorbells,
    interrupts: Interrupts,
    /// What the device signals, and the interrupt that this is.
    interrupt: (EventFd, u32),
    connected: Mutex<bool>,
}

impl WiredDoorbells {
    /// Those of a device in `vm` that signals `event` for its interrupt `gsi`.
    pub const fn new(vm: Arc<VmFd>, interrupts: Interrupts, event: EventFd, gsi: u32) -> Self {
        Self {
            doorbells: Doorbells::new(vm),
            interrupts,
            interrupt: (event, gsi),
            connected: Mutex::new(false),
        }
    }

    /// Signals from before are not lost: KVM looks at an event when it is connected.
    fn connect_interrupt(&self) -> io::Result<()> {
        let mut connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*connected {
            let (event, gsi) = &self.interrupt;
            self.interrupts
                .connect(event, *gsi)
                .map_err(io::Error::other)?;
            *connected = true;
        }
        Ok(())
    }
}

impl DoorbellRegistry for WiredDoorbells {
    fn register(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()> {
        if let Err(error) = self.connect_interrupt() {
            let address = doorbell.address;
            tracing::error!("the device at {address:#x} cannot interrupt its guest: {error}");
        }
        self.doorbells.register(doorbell, event)
    }

    fn unregister(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()> {
        self.doorbells.unregister(doorbell, event)
    }
}
