//! The driver's side: what is in the slots, and who waits for it to be given up.
//!
//! On the thread that is in [`Session::run`](crate::Session::run).

use std::sync::Arc;

use super::exchange::{Exchange, Job, Waiting};
use super::{DeviceId, HotplugError};
use crate::error::VmmError;
use crate::machine::{Machine, SlotDevices};
use crate::resources::{LentDevice, Resources};

/// What is in the slots of a session's machine, over its restarts.
#[derive(Debug)]
pub struct SlotDriver {
    /// The machine's name, from which addresses are derived.
    machine: String,
    exchange: Arc<Exchange>,
    slots: Vec<Option<Attached>>,
    /// Of the machine that has them.
    incarnation: u64,
    next_id: u64,
}

#[derive(Debug)]
struct Attached {
    id: DeviceId,
    device: LentDevice,
    /// Who waits until the guest gives it up.
    detaching: Option<Waiting>,
}

impl SlotDriver {
    /// As many empty slots as the machine named `machine` has.
    pub fn new(machine: &str, slots: u8) -> Self {
        Self {
            machine: machine.to_owned(),
            exchange: Arc::new(Exchange::new()),
            slots: (0..slots).map(|_| None).collect(),
            incarnation: 0,
            next_id: 1,
        }
    }

    /// Where jobs come from.
    pub const fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// How many slots there are.
    pub fn count(&self) -> u8 {
        u8::try_from(self.slots.len()).unwrap_or(u8::MAX)
    }

    /// The devices for `incarnation`, the next one of the machine, with their slots. Those that were to be
    /// detached are, as the guest that was asked is gone.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when the host refuses one.
    pub fn restart(
        &mut self,
        resources: &Resources,
        incarnation: u64,
    ) -> Result<SlotDevices, VmmError> {
        self.incarnation = incarnation;
        let mut devices = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(attached) = slot.take_if(|attached| attached.detaching.is_some()) {
                attached.finish();
            }
            if let Some(attached) = slot {
                let lent = &attached.device;
                let device = resources.attached(&self.machine, index, lent, incarnation)?;
                devices.push((index, device));
            }
        }
        Ok(devices)
    }

    /// Does the jobs that have come.
    pub fn work(&mut self, machine: &mut Machine, resources: &Resources) {
        while let Some(job) = self.exchange.take() {
            match job {
                Job::Attach { device, reply } => {
                    let answer = self.attach(machine, resources, device);
                    // Whoever asked may have gone; the device stays until somebody detaches it.
                    let _gone = reply.send(answer);
                }
                Job::Disk { id, reply } => {
                    let disk = self.find(id).map(|(_, attached)| attached.device.disk());
                    let _gone = reply.send(disk.ok_or(HotplugError::NotAttached(id)));
                }
                Job::Detach { id, waiting } => self.detach(machine, id, waiting),
                Job::Withdraw { id, request } => self.withdraw(machine, id, request),
            }
        }
    }

    /// The guest gives up the device in a slot, if it has not changed its mind meanwhile.
    pub fn released(&mut self, machine: &mut Machine, slot: usize) {
        let wanted = self.slots.get(slot).and_then(Option::as_ref);
        if wanted.is_some_and(|attached| attached.detaching.is_some())
            && machine.removal_is_permitted(slot)
        {
            self.remove(machine, slot);
        }
    }

    fn attach(
        &mut self,
        machine: &mut Machine,
        resources: &Resources,
        device: LentDevice,
    ) -> Result<DeviceId, HotplugError> {
        let slots = self.slots.len();
        let free = self.slots.iter_mut().enumerate();
        let (index, slot) = free
            .into_iter()
            .find(|(_, slot)| slot.is_none())
            .ok_or(HotplugError::NoSlot { slots })?;
        let made = resources.attached(&self.machine, index, &device, self.incarnation)?;
        machine.attach(index, made)?;
        let id = DeviceId(self.next_id);
        self.next_id += 1;
        tracing::info!(
            "{}: device {id} is attached to slot {}",
            self.machine,
            index + 1
        );
        *slot = Some(Attached {
            id,
            device,
            detaching: None,
        });
        Ok(id)
    }

    fn detach(&mut self, machine: &mut Machine, id: DeviceId, waiting: Waiting) {
        let Some((index, attached)) = self.find(id) else {
            let _gone = waiting.reply.send(Err(HotplugError::NotAttached(id)));
            return;
        };
        if attached.detaching.is_some() {
            let _gone = waiting.reply.send(Err(HotplugError::BeingDetached(id)));
            return;
        }
        attached.detaching = Some(waiting);
        if machine.request_removal(index) {
            self.remove(machine, index);
        }
    }

    fn withdraw(&mut self, machine: &Machine, id: DeviceId, request: u64) {
        // Without the device, or where nobody or somebody else waits for it, this has been answered.
        if let Some((index, attached)) = self.find(id)
            && let Some(waiting) = attached
                .detaching
                .take_if(|waiting| waiting.request == request)
        {
            machine.withdraw_request(index);
            let _gone = waiting.reply.send(Err(HotplugError::NotReleased(id)));
        }
    }

    fn remove(&mut self, machine: &mut Machine, index: usize) {
        machine.detach(index);
        if let Some(attached) = self.slots.get_mut(index).and_then(Option::take) {
            let id = attached.id;
            tracing::info!(
                "{}: device {id} is detached from slot {}",
                self.machine,
                index + 1
            );
            attached.finish();
        }
    }

    fn find(&mut self, id: DeviceId) -> Option<(usize, &mut Attached)> {
        let attached = self.slots.iter_mut().enumerate();
        attached
            .filter_map(|(index, slot)| Some((index, slot.as_mut()?)))
            .find(|(_, attached)| attached.id == id)
    }
}

impl Attached {
    /// Closes what the device was made of, then answers whoever waits for that.
    fn finish(self) {
        drop(self.device);
        if let Some(waiting) = self.detaching {
            let _gone = waiting.reply.send(Ok(()));
        }
    }
}

impl Drop for SlotDriver {
    /// Whoever waits hears that the machine has ended.
    fn drop(&mut self) {
        self.exchange.close();
    }
}
