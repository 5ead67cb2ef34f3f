//! virtio over MMIO (virtio 1.3, 4.2): one device behind a page of registers.
//!
//! The transport is placed on the MMIO bus: vCPU threads call it, one at a time. What the registers mean is
//! in the core that all transports share.

mod interrupt;
mod register;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::{DoorbellRegistry, Effect, MmioDevice};
use vmm_sys_util::eventfd::EventFd;

use super::core::{DoorbellPlace, TransportCore, set_high, set_low};
use crate::{GuestMemory, VirtioDevice};
use interrupt::MmioInterrupt;
use register::{CONFIG_START, Register};

/// "virt" (4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// "CUDY".
const VENDOR_ID: u32 = 0x5944_5543;
/// Not the legacy interface.
const VERSION: u32 = 2;
/// Offset of the doorbell register from the start of the device's range.
const QUEUE_NOTIFY_OFFSET: u64 = 0x50;

/// A virtio device on the MMIO bus.
#[derive(Debug)]
pub struct MmioTransport {
    core: TransportCore<MmioInterrupt>,
}

impl MmioTransport {
    /// A transport for `device` whose registers will be at `base_address` of guest-physical memory.
    ///
    /// `interrupt_event` is signalled once for each interrupt: whoever made it turns each signal into
    /// one edge of the device's interrupt line. `doorbells` takes the writes to the doorbell register
    /// off the bus while the device is started.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        base_address: u64,
        interrupt_event: EventFd,
        doorbells: Arc<dyn DoorbellRegistry>,
    ) -> Self {
        let doorbell_address = base_address.wrapping_add(QUEUE_NOTIFY_OFFSET);
        Self {
            core: TransportCore::new(
                device,
                memory,
                doorbells,
                MmioInterrupt::new(interrupt_event),
                DoorbellPlace::Shared(doorbell_address),
                0,
            ),
        }
    }

    /// Whether drivers may choose packed rings (virtio 1.3, 2.8) rather than split ones. At first they may
    /// not.
    #[must_use]
    pub fn with_packed_rings(mut self, offered: bool) -> Self {
        self.core.offer_packed_rings(offered);
        self
    }

    /// Stops the device, with its requests completed, so that nothing touches guest memory. The
    /// driver does not notice. Does nothing when the device is not started. No vCPU may run from here
    /// to [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.core.pause();
    }

    /// Goes on after [`pause`](Self::pause): what the driver made available meanwhile is served.
    pub fn resume(&mut self) {
        self.core.resume();
    }

    fn interrupt(&self) -> &MmioInterrupt {
        &self.core.link.notifier
    }

    fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.core.device.device_type(),
            Register::VendorId => VENDOR_ID,
            Register::DeviceFeatures => self.core.device_features(),
            Register::QueueSizeMax => self
                .core
                .selected_queue()
                .map_or(0, |queue| u32::from(queue.max_size)),
            Register::QueueReady => self
                .core
                .selected_queue()
                .map_or(0, |queue| u32::from(queue.ready)),
            Register::InterruptStatus => self.interrupt().interrupt_status.load(Ordering::Acquire),
            Register::Status => self.core.status(),
            // No device has shared memory (4.2.2).
            Register::ShmLenLow
            | Register::ShmLenHigh
            | Register::ShmBaseLow
            | Register::ShmBaseHigh => u32::MAX,
            Register::ConfigGeneration => self.core.config_generation(),
            Register::DeviceFeaturesSel
            | Register::DriverFeatures
            | Register::DriverFeaturesSel
            | Register::QueueSel
            | Register::QueueSize
            | Register::QueueNotify
            | Register::InterruptAck
            | Register::QueueDescLow
            | Register::QueueDescHigh
            | Register::QueueDriverLow
            | Register::QueueDriverHigh
            | Register::QueueDeviceLow
            | Register::QueueDeviceHigh
            | Register::ShmSel => 0,
        }
    }

    fn write_register(&mut self, register: Register, value: u32) {
        match register {
            Register::DeviceFeaturesSel => self.core.device_features_select = value,
            Register::DriverFeaturesSel => self.core.driver_features_select = value,
            Register::DriverFeatures => self.core.write_driver_features(value),
            Register::QueueSel => self.core.queue_select = value,
            // What does not fit becomes a size that no queue can have.
            Register::QueueSize => {
                self.core.configure_queue(|queue| queue.size = u16::try_from(value).unwrap_or(0));
            }
            Register::QueueReady => self.core.set_queue_ready(value == 1),
            Register::QueueNotify => self.core.ring_doorbell(value),
            Register::InterruptAck => {
                self.interrupt()
                    .interrupt_status
                    .fetch_and(!value, Ordering::AcqRel);
            }
            Register::Status => self.core.write_status(value),
            Register::QueueDescLow => {
                self.core.configure_queue(|queue| set_low(&mut queue.descriptor_area, value));
            }
            Register::QueueDescHigh => {
                self.core.configure_queue(|queue| set_high(&mut queue.descriptor_area, value));
            }
            Register::QueueDriverLow => {
                self.core.configure_queue(|queue| set_low(&mut queue.driver_area, value));
            }
            Register::QueueDriverHigh => {
                self.core.configure_queue(|queue| set_high(&mut queue.driver_area, value));
            }
            Register::QueueDeviceLow => {
                self.core.configure_queue(|queue| set_low(&mut queue.device_area, value));
            }
            Register::QueueDeviceHigh => {
                self.core.configure_queue(|queue| set_high(&mut queue.device_area, value));
            }
            Register::MagicValue
            | Register::Version
            | Register::DeviceId
            | Register::VendorId
            | Register::DeviceFeatures
            | Register::QueueSizeMax
            | Register::InterruptStatus
            // There is one answer for every shared memory region.
            | Register::ShmSel
            | Register::ShmLenLow
            | Register::ShmLenHigh
            | Register::ShmBaseLow
            | Register::ShmBaseHigh
            | Register::ConfigGeneration => {}
        }
    }
}

impl MmioDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(config_offset) = offset.checked_sub(CONFIG_START) {
            self.core.read_config(config_offset, data);
        } else if let (Some(register), Ok(data)) =
            (Register::at(offset), <&mut [u8; 4]>::try_from(data))
        {
            // Registers take accesses of 32 bits alone (4.2.2.2).
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let Some(config_offset) = offset.checked_sub(CONFIG_START) {
            self.core.write_config(config_offset, data);
        } else if let (Some(register), Ok(data)) = (Register::at(offset), <[u8; 4]>::try_from(data))
        {
            self.write_register(register, u32::from_le_bytes(data));
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests;
