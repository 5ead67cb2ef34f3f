//! Devices that come and go while a machine runs, for the program that embeds it.
//!
//! A machine has as many slots for them as its configuration says. What is attached stays over restarts of
//! the machine, where it is in its slot from the start; only a device that the machine's owner has asked
//! the guest for is gone then, for there is no guest any more that could mind.

mod error;
mod exchange;
mod slots;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::config::{DiskConfig, NetConfig};
use crate::events::{EventQueue, Request};
use crate::resources::{DiskHandle, LentDevice};
pub use error::HotplugError;
pub use exchange::Exchange;
use exchange::{Job, Waiting};
pub use slots::SlotDriver;

/// A device to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HotplugDevice {
    /// A disk.
    Disk(DiskConfig),
    /// A network interface.
    Net(NetConfig),
}

impl From<DiskConfig> for HotplugDevice {
    fn from(config: DiskConfig) -> Self {
        Self::Disk(config)
    }
}

impl From<NetConfig> for HotplugDevice {
    fn from(config: NetConfig) -> Self {
        Self::Net(config)
    }
}

/// Names an attached device. No two of a session have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(u64);

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A handle by which any thread attaches and detaches devices, but for the machine's own: its calls wait
/// for the thread that is in [`Session::run`](crate::Session::run), so that an
/// [`EventHandler`](crate::EventHandler) must not make them.
#[derive(Debug, Clone)]
pub struct Hotplug {
    events: Arc<EventQueue>,
    exchange: Arc<Exchange>,
}

impl Hotplug {
    pub(crate) const fn new(events: Arc<EventQueue>, exchange: Arc<Exchange>) -> Self {
        Self { events, exchange }
    }

    /// Opens what `device` names and puts it into a free slot. The guest is told, and finds it when it
    /// wants to: this does not wait for that. Before [`Session::run`](crate::Session::run) it waits for the
    /// machine.
    ///
    /// # Errors
    ///
    /// [`HotplugError`]; nothing is attached then.
    pub fn attach(&self, device: &HotplugDevice) -> Result<DeviceId, HotplugError> {
        let device = match device {
            HotplugDevice::Disk(config) => LentDevice::open_disk(config)?,
            HotplugDevice::Net(config) => LentDevice::open_net(config)?,
        };
        let (reply, answer) = sync_channel(1);
        self.put(Job::Attach { device, reply })?;
        answer.recv().unwrap_or(Err(HotplugError::Ended))
    }

    /// A handle on an attached disk; nothing for a device that is no disk. The image stays open for as long
    /// as there is such a handle.
    ///
    /// # Errors
    ///
    /// [`HotplugError::NotAttached`] or [`HotplugError::Ended`].
    pub fn disk(&self, id: DeviceId) -> Result<Option<DiskHandle>, HotplugError> {
        let (reply, answer) = sync_channel(1);
        self.put(Job::Disk { id, reply })?;
        answer.recv().unwrap_or(Err(HotplugError::Ended))
    }

    /// Asks the guest for a device, waits until it gives the device up, and takes it away. What the device
    /// was made of, an image for example, is closed when this returns.
    ///
    /// Linux takes five seconds to answer, in which somebody at the machine could press the button again.
    ///
    /// # Errors
    ///
    /// [`HotplugError::NotReleased`] when the guest has not given it up after `timeout`: the device stays,
    /// and the guest is told so if it has begun. [`HotplugError`] otherwise.
    pub fn detach(&self, id: DeviceId, timeout: Duration) -> Result<(), HotplugError> {
        let (reply, answer) = sync_channel(1);
        let request = self.exchange.next_request();
        let waiting = Waiting { request, reply };
        self.put(Job::Detach { id, waiting })?;
        match answer.recv_timeout(timeout) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => return Err(HotplugError::Ended),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Whichever comes first at the machine's driver counts: the guest's permission or this.
        self.put(Job::Withdraw { id, request })?;
        answer.recv().unwrap_or(Err(HotplugError::Ended))
    }

    fn put(&self, job: Job) -> Result<(), HotplugError> {
        self.exchange.put(job)?;
        self.events.push(Request::Hotplug);
        Ok(())
    }
}
