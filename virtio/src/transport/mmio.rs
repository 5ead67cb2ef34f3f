//! virtio over MMIO (virtio 1.3, 4.2): one device behind a page of registers.
//!
//! The transport is placed on the MMIO bus: vCPU threads call it, one at a time. It follows the set-up
//! of 3.1.1 strictly: what a driver writes out of order has no effect. The device starts at DRIVER_OK,
//! on the vCPU thread that wrote it, and only then are its doorbells registered, because they make the
//! machine's destruction slow. A write of 0 to the status joins the device's thread before it returns.

mod interrupt;
mod register;

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::{Doorbell, DoorbellRegistry, Effect, MmioDevice};
use virtio_queue::QueueState;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::queue::Queue;
use crate::{Activation, ActiveQueue, GuestMemory, Interrupt, StartError, VirtioDevice, feature};
use interrupt::MmioInterrupt;
use register::{CONFIG_START, Register, status};

/// "virt" (4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// Not the legacy interface.
const VERSION: u32 = 2;
/// "CUDY".
const VENDOR_ID: u32 = 0x5944_5543;
/// Offset of the doorbell register from the start of the device's range.
const QUEUE_NOTIFY_OFFSET: u64 = 0x50;

/// A virtio device on the MMIO bus.
#[derive(Debug)]
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    base_address: u64,
    registry: Arc<dyn DoorbellRegistry>,
    interrupt: Arc<MmioInterrupt>,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    /// The driver wants a feature from bit 64 on.
    driver_wants_unknown: bool,
    queue_select: u32,
    queues: Vec<QueueState>,
    /// One for each queue, from DRIVER_OK to the reset.
    doorbells: Vec<QueueDoorbell>,
    paused: bool,
}

#[derive(Debug)]
struct QueueDoorbell {
    event: EventFd,
    /// The guest's writes signal `event` without an exit.
    registered: bool,
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
        let interrupt = Arc::new(MmioInterrupt::new(device.name(), interrupt_event));
        let mut transport = Self {
            device,
            memory,
            base_address,
            registry: doorbells,
            interrupt,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            driver_wants_unknown: false,
            queue_select: 0,
            queues: Vec::new(),
            doorbells: Vec::new(),
            paused: false,
        };
        transport.clear_driver_state();
        transport
    }

    /// Stops the device, with its requests completed, so that nothing touches guest memory. The
    /// driver does not notice. Does nothing when the device is not started. No vCPU may run from here
    /// to [`resume`](Self::resume).
    pub fn pause(&mut self) {
        if self.paused {
            return;
        }
        self.paused = true;
        self.stop_device();
    }

    /// Goes on after [`pause`](Self::pause): what the driver made available meanwhile is served.
    pub fn resume(&mut self) {
        if !self.paused {
            return;
        }
        self.paused = false;
        let status = self.status();
        if status & status::DRIVER_OK != 0 && status & status::DEVICE_NEEDS_RESET == 0 {
            self.start_device();
        }
    }

    fn status(&self) -> u32 {
        self.interrupt.status.load(Ordering::Acquire)
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | feature::RING
    }

    fn selected_queue(&self) -> Option<&QueueState> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// The selected queue, if its configuration may change now: after the features are agreed upon and
    /// before the driver is set up (3.1.1, step 7).
    fn configurable_queue(&mut self) -> Option<&mut QueueState> {
        let state = self.status() & (status::FEATURES_OK | status::DRIVER_OK | status::FAILED);
        if state != status::FEATURES_OK {
            return None;
        }
        self.queues
            .get_mut(usize::try_from(self.queue_select).ok()?)
    }

    /// Changes the selected queue, unless the driver has already said that it is ready (4.2.2.2).
    fn configure_queue(&mut self, change: impl FnOnce(&mut QueueState)) {
        if let Some(queue) = self.configurable_queue().filter(|queue| !queue.ready) {
            change(queue);
        }
    }

    fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device.device_type(),
            Register::VendorId => VENDOR_ID,
            Register::DeviceFeatures => {
                select_half(self.offered_features(), self.device_features_select)
            }
            Register::QueueSizeMax => self
                .selected_queue()
                .map_or(0, |queue| u32::from(queue.max_size)),
            Register::QueueReady => self
                .selected_queue()
                .map_or(0, |queue| u32::from(queue.ready)),
            Register::InterruptStatus => self.interrupt.interrupt_status.load(Ordering::Acquire),
            Register::Status => self.status(),
            // No device has shared memory (4.2.2).
            Register::ShmLenLow
            | Register::ShmLenHigh
            | Register::ShmBaseLow
            | Register::ShmBaseHigh => u32::MAX,
            Register::ConfigGeneration => self.interrupt.config_generation.load(Ordering::Acquire),
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
            Register::DeviceFeaturesSel => self.device_features_select = value,
            Register::DriverFeaturesSel => self.driver_features_select = value,
            Register::DriverFeatures => self.write_driver_features(value),
            Register::QueueSel => self.queue_select = value,
            // What does not fit becomes a size that no queue can have.
            Register::QueueSize => {
                self.configure_queue(|queue| queue.size = u16::try_from(value).unwrap_or(0));
            }
            Register::QueueReady => {
                if let Some(queue) = self.configurable_queue() {
                    queue.ready = value == 1;
                }
            }
            Register::QueueNotify => self.ring_doorbell(value),
            Register::InterruptAck => {
                self.interrupt
                    .interrupt_status
                    .fetch_and(!value, Ordering::AcqRel);
            }
            Register::Status => self.write_status(value),
            Register::QueueDescLow => {
                self.configure_queue(|queue| set_low(&mut queue.desc_table, value));
            }
            Register::QueueDescHigh => {
                self.configure_queue(|queue| set_high(&mut queue.desc_table, value));
            }
            Register::QueueDriverLow => {
                self.configure_queue(|queue| set_low(&mut queue.avail_ring, value));
            }
            Register::QueueDriverHigh => {
                self.configure_queue(|queue| set_high(&mut queue.avail_ring, value));
            }
            Register::QueueDeviceLow => {
                self.configure_queue(|queue| set_low(&mut queue.used_ring, value));
            }
            Register::QueueDeviceHigh => {
                self.configure_queue(|queue| set_high(&mut queue.used_ring, value));
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

    /// Features can be written between DRIVER and FEATURES_OK (3.1.1, steps 4 and 5).
    fn write_driver_features(&mut self, value: u32) {
        let state = self.status() & (status::DRIVER | status::FEATURES_OK | status::FAILED);
        if state != status::DRIVER {
            return;
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            // Nothing is offered from bit 64 on; FEATURES_OK will be refused.
            _ => self.driver_wants_unknown |= value != 0,
        }
    }

    fn ring_doorbell(&self, queue_index: u32) {
        let doorbell = usize::try_from(queue_index)
            .ok()
            .and_then(|index| self.doorbells.get(index));
        if let Some(doorbell) = doorbell {
            // The counter is full when this fails, so the event is pending.
            let _already_pending = doorbell.event.write(1);
        }
    }

    /// Bits are set one after the other, each only where 3.1.1 has it; bits cannot be cleared but by
    /// a reset (2.1.1).
    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let before = self.status();
        let own = status::DEVICE_NEEDS_RESET;
        if before & !own & !value != 0 {
            tracing::debug!(
                device = self.device.name(),
                before,
                value,
                "the driver clears status bits; ignored"
            );
            return;
        }
        let wanted = |bit| value & bit != 0;
        if wanted(status::FAILED) {
            self.set_status(status::FAILED);
        }
        if wanted(status::ACKNOWLEDGE) {
            self.set_status(status::ACKNOWLEDGE);
        }
        if wanted(status::DRIVER) && self.has_status(status::ACKNOWLEDGE) {
            self.set_status(status::DRIVER);
        }
        if wanted(status::FEATURES_OK)
            && self.has_status(status::DRIVER)
            && self.features_are_acceptable()
        {
            self.set_status(status::FEATURES_OK);
        }
        if wanted(status::DRIVER_OK)
            && before & status::DRIVER_OK == 0
            && self.has_status(status::FEATURES_OK)
            && !self.has_status(status::FAILED)
        {
            // First the status: a device that breaks at once has to tell a driver that is up.
            self.set_status(status::DRIVER_OK);
            self.start_device();
        }
    }

    fn has_status(&self, bit: u32) -> bool {
        self.status() & bit != 0
    }

    fn set_status(&self, bit: u32) {
        self.interrupt.status.fetch_or(bit, Ordering::AcqRel);
    }

    fn features_are_acceptable(&self) -> bool {
        !self.driver_wants_unknown
            && self.driver_features & !self.offered_features() == 0
            && self.driver_features & feature::VERSION_1 != 0
    }

    fn reset(&mut self) {
        self.stop_device();
        for (index, doorbell) in (0_u32..).zip(&self.doorbells) {
            if doorbell.registered
                && let Err(error) = self
                    .registry
                    .unregister(self.doorbell(index), &doorbell.event)
            {
                tracing::warn!(
                    device = self.device.name(),
                    "cannot take doorbell {index} back: {error}"
                );
            }
        }
        self.doorbells.clear();
        self.device.reset();
        self.clear_driver_state();
        self.interrupt.interrupt_status.store(0, Ordering::Release);
        self.interrupt.status.store(0, Ordering::Release);
    }

    fn clear_driver_state(&mut self) {
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.driver_wants_unknown = false;
        self.queue_select = 0;
        let unused = |&max_size: &u16| QueueState {
            max_size,
            size: max_size,
            ..QueueState::default()
        };
        self.queues = self.device.queue_max_sizes().iter().map(unused).collect();
    }

    /// Stops the device and keeps the state of its queues.
    fn stop_device(&mut self) {
        let stopped = self.device.stop();
        for (state, queue) in self.queues.iter_mut().zip(stopped) {
            *state = queue.state();
        }
    }

    fn start_device(&mut self) {
        if let Err(error) = self.try_start_device() {
            let mut reason = format!("cannot start: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                // Writing to a string does not fail.
                let _written = write!(reason, ": {cause}");
                source = cause.source();
            }
            self.interrupt.mark_broken(&reason);
        }
    }

    fn try_start_device(&mut self) -> Result<(), StartError> {
        self.make_doorbells()?;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, (state, doorbell)) in self.queues.iter().zip(&self.doorbells).enumerate() {
            let queue = Queue::new(*state, self.driver_features, Arc::clone(&self.memory))
                .map_err(|source| StartError::Queue { index, source })?;
            let doorbell = doorbell
                .event
                .try_clone()
                .map_err(|source| host("duplicate a doorbell", source))?;
            queues.push(ActiveQueue { queue, doorbell });
        }
        self.device.start(Activation {
            memory: Arc::clone(&self.memory),
            features: self.driver_features,
            queues,
            interrupt: Arc::<MmioInterrupt>::clone(&self.interrupt),
        })?;
        self.register_doorbells();
        Ok(())
    }

    fn make_doorbells(&mut self) -> Result<(), StartError> {
        while self.doorbells.len() < self.queues.len() {
            let event =
                EventFd::new(EFD_NONBLOCK).map_err(|source| host("make a doorbell", source))?;
            self.doorbells.push(QueueDoorbell {
                event,
                registered: false,
            });
        }
        Ok(())
    }

    /// A doorbell that the host does not take is served by the bus.
    fn register_doorbells(&mut self) {
        let base = self.base_address;
        for ((index, doorbell), queue) in (0_u32..).zip(&mut self.doorbells).zip(&self.queues) {
            if !queue.ready || doorbell.registered {
                continue;
            }
            match self
                .registry
                .register(doorbell_at(base, index), &doorbell.event)
            {
                Ok(()) => doorbell.registered = true,
                Err(error) => tracing::warn!(
                    device = self.device.name(),
                    "doorbell {index} will be slow, the host does not take it: {error}"
                ),
            }
        }
    }

    fn doorbell(&self, index: u32) -> Doorbell {
        doorbell_at(self.base_address, index)
    }
}

fn doorbell_at(base_address: u64, index: u32) -> Doorbell {
    Doorbell {
        address: base_address.wrapping_add(QUEUE_NOTIFY_OFFSET),
        value: Some(index),
    }
}

impl MmioDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(config_offset) = offset.checked_sub(CONFIG_START) {
            data.fill(0);
            self.device.read_config(config_offset, data);
        } else if let (Some(register), Ok(data)) =
            (Register::at(offset), <&mut [u8; 4]>::try_from(data))
        {
            // Registers take accesses of 32 bits alone (4.2.2.2).
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let Some(config_offset) = offset.checked_sub(CONFIG_START) {
            if self.has_status(status::DRIVER) {
                self.device.write_config(config_offset, data);
            }
        } else if let (Some(register), Ok(data)) = (Register::at(offset), <[u8; 4]>::try_from(data))
        {
            self.write_register(register, u32::from_le_bytes(data));
        }
        Effect::None
    }
}

impl Drop for MmioTransport {
    /// The doorbells are left to the destruction of the machine, which they make slow once; taking
    /// each back would make it slow again and again.
    fn drop(&mut self) {
        self.device.stop();
    }
}

fn host(what: &'static str, source: std::io::Error) -> StartError {
    StartError::Host { what, source }
}

/// The half of `features` that a select register asks for; there are no features from bit 64 on.
fn select_half(features: u64, select: u32) -> u32 {
    let [low, high] = halves(features);
    match select {
        0 => low,
        1 => high,
        _ => 0,
    }
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

fn set_low(field: &mut u64, value: u32) {
    *field = (*field & !0xffff_ffff) | u64::from(value);
}

fn set_high(field: &mut u64, value: u32) {
    *field = (*field & 0xffff_ffff) | (u64::from(value) << 32);
}

#[cfg(test)]
mod tests;
