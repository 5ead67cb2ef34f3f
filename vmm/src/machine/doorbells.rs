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

/// KVM's doorbells for one device, and its interrupt, which KVM is told of when a driver first starts the
/// device: each connected event makes the end of the machine wait out a grace period, also for a device
/// that no driver ever starts.
#[derive(Debug)]
pub struct WiredDoorbells {
    doorbells: Doorbells,
    interrupts: Interrupts,
    /// What the device signals, and the interrupt that this is.
    interrupt: (EventFd, u32),
    connection: Mutex<Connection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// No driver has started the device.
    Untried,
    /// KVM knows the event.
    Made,
    /// KVM refused it, and the log says so.
    Refused,
}

impl WiredDoorbells {
    /// Those of a device in `vm` that signals `event` for its interrupt `gsi`.
    pub const fn new(vm: Arc<VmFd>, interrupts: Interrupts, event: EventFd, gsi: u32) -> Self {
        Self {
            doorbells: Doorbells::new(vm),
            interrupts,
            interrupt: (event, gsi),
            connection: Mutex::new(Connection::Untried),
        }
    }
}

impl DoorbellRegistry for WiredDoorbells {
    /// Connects the interrupt. Signals from before are not lost: KVM looks at an event when it is connected.
    fn prepare(&self) {
        let connection = self.connection.lock();
        let mut connection = connection.unwrap_or_else(PoisonError::into_inner);
        if *connection == Connection::Made {
            return;
        }
        let (event, gsi) = &self.interrupt;
        match self.interrupts.connect(event, *gsi) {
            Ok(()) => *connection = Connection::Made,
            // A guest can start a device again and again.
            Err(_) if *connection == Connection::Refused => {}
            Err(error) => {
                tracing::error!(
                    "the device with interrupt {gsi} cannot interrupt its guest: {error}"
                );
                *connection = Connection::Refused;
            }
        }
    }

    fn register(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()> {
        self.doorbells.register(doorbell, event)
    }

    fn unregister(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()> {
        self.doorbells.unregister(doorbell, event)
    }
}
