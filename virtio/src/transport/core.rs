//! What all transports share: features, status, queues, and the start and stop of the device.
//!
//! A transport owns a core, translates its registers into calls, and is called by vCPU threads, one at a
//! time. The core follows the set-up of 3.1.1 strictly: what a driver does out of order has no effect. The
//! device starts at DRIVER_OK, on the vCPU thread that wrote it, and only then are its doorbells
//! registered, because they make the machine's destruction slow. A reset joins the device's thread before
//! it returns, and so does whatever takes guest memory from the device.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::{Doorbell, DoorbellRegistry};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::link::{DriverLink, Notifier};
use super::status;
use crate::queue::{Queue, QueueState};
use crate::{Activation, ActiveQueue, GuestMemory, StartError, VirtioDevice, feature};

/// A device with what its driver has set up.
#[derive(Debug)]
pub(super) struct TransportCore<N> {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) link: Arc<DriverLink<N>>,
    memory: Arc<GuestMemory>,
    registry: Arc<dyn DoorbellRegistry>,
    /// What this transport can do beside the ring's features.
    transport_features: u64,
    /// Which 32 of the offered features the driver reads.
    pub(super) device_features_select: u32,
    /// Which 32 of the wanted features the driver writes.
    pub(super) driver_features_select: u32,
    driver_features: u64,
    /// The driver wants a feature from bit 64 on.
    driver_wants_unknown: bool,
    /// The queue that the driver's accesses are about.
    pub(super) queue_select: u32,
    queues: Vec<QueueState>,
    doorbell_place: DoorbellPlace,
    /// One for each queue, from DRIVER_OK to the reset.
    doorbells: Vec<QueueDoorbell>,
    /// The log has a line of a doorbell that the host refused. A guest can have it refused again and again.
    told_of_slow_doorbells: bool,
    paused: bool,
    /// The device may access guest memory.
    bus_master: bool,
}

/// Where the driver rings for a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoorbellPlace {
    /// Nowhere at present.
    Nowhere,
    /// All at one address, by four bytes with the queue's index.
    Shared(u64),
    /// Each at an address of its own, four bytes apart.
    Own(u64),
}

impl DoorbellPlace {
    fn doorbell(self, queue_index: u32) -> Option<Doorbell> {
        match self {
            Self::Nowhere => None,
            Self::Shared(address) => Some(Doorbell {
                address,
                value: Some(queue_index),
            }),
            Self::Own(first) => Some(Doorbell {
                address: first.checked_add(u64::from(queue_index).checked_mul(4)?)?,
                value: None,
            }),
        }
    }
}

#[derive(Debug)]
struct QueueDoorbell {
    event: EventFd,
    /// The guest's writes there signal `event` without an exit.
    registered: Option<Doorbell>,
}

impl<N: Notifier> TransportCore<N> {
    /// `device`, whose driver is told by `notifier`, with a transport that offers `transport_features` too.
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        registry: Arc<dyn DoorbellRegistry>,
        notifier: N,
        doorbell_place: DoorbellPlace,
        transport_features: u64,
    ) -> Self {
        let link = Arc::new(DriverLink::new(device.name(), notifier));
        let mut core = Self {
            device,
            link,
            memory,
            registry,
            transport_features,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            driver_wants_unknown: false,
            queue_select: 0,
            queues: Vec::new(),
            doorbell_place,
            doorbells: Vec::new(),
            told_of_slow_doorbells: false,
            paused: false,
            bus_master: true,
        };
        core.clear_driver_state();
        core
    }

    /// Whether the driver may choose packed rings (2.8).
    pub(super) fn offer_packed_rings(&mut self, offer: bool) {
        if offer {
            self.transport_features |= feature::RING_PACKED;
        } else {
            self.transport_features &= !feature::RING_PACKED;
        }
    }

    /// Stops the device, with its requests completed, so that nothing touches guest memory. The
    /// driver does not notice. Does nothing when the device is not started.
    pub(super) fn pause(&mut self) {
        if self.paused {
            return;
        }
        self.paused = true;
        self.stop_device();
    }

    /// Goes on after [`pause`](Self::pause): what the driver made available meanwhile is served.
    pub(super) fn resume(&mut self) {
        if !self.paused {
            return;
        }
        self.paused = false;
        self.start_device();
    }

    /// The bus lets the device access guest memory from now on, or not. Without it the device stands as
    /// while it is paused, from before this returns, and the driver can do all else, a reset too.
    pub(super) fn set_bus_master(&mut self, bus_master: bool) {
        if self.bus_master == bus_master {
            return;
        }
        self.bus_master = bus_master;
        match bus_master {
            true => self.start_device(),
            false => self.stop_device(),
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.link.status.load(Ordering::Acquire)
    }

    pub(super) fn has_status(&self, bit: u32) -> bool {
        self.status() & bit != 0
    }

    /// The driver is up, and the device is not broken.
    fn is_running(&self) -> bool {
        self.has_status(status::DRIVER_OK) && !self.has_status(status::DEVICE_NEEDS_RESET)
    }

    pub(super) fn config_generation(&self) -> u32 {
        self.link.config_generation.load(Ordering::Acquire)
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | feature::RING | self.transport_features
    }

    /// The selected 32 of the offered features; there are none from bit 64 on.
    pub(super) fn device_features(&self) -> u32 {
        let [low, high] = halves(self.offered_features());
        match self.device_features_select {
            0 => low,
            1 => high,
            _ => 0,
        }
    }

    /// The selected 32 of the features that the driver wants.
    pub(super) fn driver_features(&self) -> u32 {
        let [low, high] = halves(self.driver_features);
        match self.driver_features_select {
            0 => low,
            1 => high,
            _ => 0,
        }
    }

    /// Features can be written between DRIVER and FEATURES_OK (3.1.1, steps 4 and 5).
    pub(super) fn write_driver_features(&mut self, value: u32) {
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

    /// How many queues there are.
    pub(super) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn selected_queue(&self) -> Option<&QueueState> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// The selected queue, if its configuration may change now: after the features are agreed upon and
    /// before the driver is set up (3.1.1, step 7), or later if it has been reset by itself (2.6.1).
    fn configurable_queue(&mut self) -> Option<&mut QueueState> {
        let state = self.status() & (status::FEATURES_OK | status::DRIVER_OK | status::FAILED);
        let resets = self.driver_features & feature::RING_RESET != 0;
        let queue = self
            .queues
            .get_mut(usize::try_from(self.queue_select).ok()?)?;
        let set_up = state == status::FEATURES_OK;
        let again = state == status::FEATURES_OK | status::DRIVER_OK && resets && !queue.ready;
        (set_up || again).then_some(queue)
    }

    /// Changes the selected queue, unless the driver has already said that it is ready (4.2.2.2).
    pub(super) fn configure_queue(&mut self, change: impl FnOnce(&mut QueueState)) {
        if let Some(queue) = self.configurable_queue().filter(|queue| !queue.ready) {
            change(queue);
        }
    }

    /// The driver says that the selected queue may be used, or, before DRIVER_OK, that it may not.
    pub(super) fn set_queue_ready(&mut self, ready: bool) {
        let Some(queue) = self.configurable_queue() else {
            return;
        };
        queue.ready = ready;
        if ready && self.is_running() {
            // The others go on where they are.
            self.stop_device();
            self.start_device();
        }
    }

    /// Resets the selected queue alone (2.6.1): whatever the device had taken from it is completed, and
    /// the driver may configure it anew. Only with RING_RESET, and for a queue that is in use.
    pub(super) fn reset_queue(&mut self) {
        let resets = self.driver_features & feature::RING_RESET != 0;
        if !resets || !self.has_status(status::DRIVER_OK) {
            return;
        }
        let index = usize::try_from(self.queue_select).unwrap_or(usize::MAX);
        if !self.queues.get(index).is_some_and(|queue| queue.ready) {
            return;
        }
        self.stop_device();
        if let Some(queue) = self.queues.get_mut(index) {
            *queue = QueueState::unused(queue.max_size);
        }
        self.device.reset_queue(index);
        self.start_device();
    }

    /// Rings for the queue at `index`, where a driver's doorbell comes over the bus.
    pub(super) fn ring_doorbell(&self, index: u32) {
        let doorbell = usize::try_from(index)
            .ok()
            .and_then(|index| self.doorbells.get(index));
        if let Some(doorbell) = doorbell {
            // The counter is full when this fails, so the event is pending.
            let _already_pending = doorbell.event.write(1);
        }
    }

    /// The driver rings at another place from now on.
    pub(super) fn move_doorbells(&mut self, place: DoorbellPlace) {
        if self.doorbell_place == place {
            return;
        }
        self.unregister_doorbells();
        self.doorbell_place = place;
        if self.is_running() {
            self.register_doorbells();
        }
    }

    /// Bits are set one after the other, each only where 3.1.1 has it; bits cannot be cleared but by
    /// a reset (2.1.1).
    pub(super) fn write_status(&mut self, value: u32) {
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

    fn set_status(&self, bit: u32) {
        self.link.status.fetch_or(bit, Ordering::AcqRel);
    }

    fn features_are_acceptable(&self) -> bool {
        !self.driver_wants_unknown
            && self.driver_features & !self.offered_features() == 0
            && self.driver_features & feature::VERSION_1 != 0
    }

    /// Everything is as before the driver came.
    pub(super) fn reset(&mut self) {
        self.stop_device();
        self.unregister_doorbells();
        self.doorbells.clear();
        self.device.reset();
        self.clear_driver_state();
        self.link.notifier.reset();
        self.link.status.store(0, Ordering::Release);
    }

    fn clear_driver_state(&mut self) {
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.driver_wants_unknown = false;
        self.queue_select = 0;
        let sizes = self.device.queue_max_sizes();
        self.queues = sizes.iter().copied().map(QueueState::unused).collect();
    }

    /// Stops the device and keeps the state of its queues. Of those that were not in use there is none: the
    /// driver may have configured them meanwhile.
    fn stop_device(&mut self) {
        let stopped = self.device.stop();
        for (state, queue) in self.queues.iter_mut().zip(stopped) {
            if queue.ready() {
                *state = queue.state();
            }
        }
    }

    /// Lets the device work, if the driver is up and nothing else holds the device back.
    fn start_device(&mut self) {
        use crate::Interrupt as _;
        if !self.is_running() || self.paused || !self.bus_master {
            return;
        }
        // A device that does not start has to tell its driver so.
        self.registry.prepare();
        if let Err(error) = self.try_start_device() {
            let mut reason = format!("cannot start: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                // Writing to a string does not fail.
                let _written = write!(reason, ": {cause}");
                source = cause.source();
            }
            self.link.mark_broken(&reason);
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
            interrupt: Arc::<DriverLink<N>>::clone(&self.link),
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
                registered: None,
            });
        }
        Ok(())
    }

    /// A doorbell that the host does not take is served by the bus.
    fn register_doorbells(&mut self) {
        for ((index, doorbell), queue) in (0_u32..).zip(&mut self.doorbells).zip(&self.queues) {
            if !queue.ready || doorbell.registered.is_some() {
                continue;
            }
            let Some(place) = self.doorbell_place.doorbell(index) else {
                continue;
            };
            match self.registry.register(place, &doorbell.event) {
                Ok(()) => doorbell.registered = Some(place),
                Err(error) if !self.told_of_slow_doorbells => {
                    self.told_of_slow_doorbells = true;
                    tracing::warn!(
                        device = self.device.name(),
                        "doorbell {index} will be slow, the host does not take it: {error}"
                    );
                }
                Err(_) => {}
            }
        }
    }

    fn unregister_doorbells(&mut self) {
        for (index, doorbell) in self.doorbells.iter_mut().enumerate() {
            if let Some(place) = doorbell.registered.take()
                && let Err(error) = self.registry.unregister(place, &doorbell.event)
            {
                tracing::warn!(
                    device = self.device.name(),
                    "cannot take doorbell {index} back: {error}"
                );
            }
        }
    }

    /// Whether the device has doorbells: from DRIVER_OK to the reset.
    #[cfg(test)]
    pub(super) fn has_doorbells(&self) -> bool {
        !self.doorbells.is_empty()
    }

    /// Answers a read of the device's configuration space.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.device.read_config(offset, data);
    }

    /// Takes a write to the device's configuration space, of a guest that has a driver.
    pub(super) fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.has_status(status::DRIVER) {
            self.device.write_config(offset, data);
        }
    }
}

impl<N> Drop for TransportCore<N> {
    /// The doorbells are left to the destruction of the machine, which they make slow once; taking
    /// each back would make it slow again and again.
    fn drop(&mut self) {
        self.device.stop();
    }
}

pub(super) fn host(what: &'static str, source: std::io::Error) -> StartError {
    StartError::Host { what, source }
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

/// Replaces the low half of `field`.
pub(super) fn set_low(field: &mut u64, value: u32) {
    *field = (*field & !0xffff_ffff) | u64::from(value);
}

/// Replaces the high half of `field`.
pub(super) fn set_high(field: &mut u64, value: u32) {
    *field = (*field & 0xffff_ffff) | (u64::from(value) << 32);
}
