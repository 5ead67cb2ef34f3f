//! The contract between a virtio device and its transport.

use std::fmt::{Debug, Display};
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::GuestMemory;
use crate::queue::{Queue, QueueError};

/// Feature bits that belong to no device type (virtio 1.3, 6).
pub mod feature {
    /// Descriptors may refer to a table of descriptors (2.7.5.3).
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// Both sides say at which index they want the next event (2.7.7, 2.7.10).
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// The device follows virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// Rings are packed (2.8) rather than split. Offered where the transport was told to.
    pub const RING_PACKED: u64 = 1 << 34;
    /// The driver can reset a queue by itself (2.6.1). Offered by transports that have a register for it.
    pub const RING_RESET: u64 = 1 << 40;

    /// What the ring of this crate can do; transports offer it beside the device's own features.
    pub const RING: u64 = RING_INDIRECT_DESC | RING_EVENT_IDX | VERSION_1;
}

/// A virtio device, without its transport.
///
/// The transport owns the device and calls it on vCPU threads, one call at a time. Between
/// [`start`](Self::start) and [`stop`](Self::stop) the device's own thread works on the queues;
/// `read_config` and `write_config` may come at any moment, before the start too.
pub trait VirtioDevice: Debug + Send {
    /// What the device is called in the log and as a thread, for example `disk0`.
    fn name(&self) -> &str;

    /// Device type (virtio 1.3, 5), for example 2 for a block device.
    fn device_type(&self) -> u32;

    /// Features of this device type (bits 0 to 23 and 50 to 127; those from 64 on are not offered).
    /// The transport adds [`feature::RING`].
    fn features(&self) -> u64;

    /// Largest size of each queue, in descriptors: powers of two up to 32768. Their number is the
    /// number of queues, and it does not change.
    fn queue_max_sizes(&self) -> &[u16];

    /// Fills `data` from the configuration space, from the byte `offset` on. `data` comes filled with
    /// zeros; what is beyond the configuration space stays as it is. Any offset and length can come.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes a write to the configuration space. What is not writable is left as it is.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// The driver has set DRIVER_OK, or a paused machine goes on: begins to serve the queues.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the host refuses; the device is then stopped, and its transport tells the
    /// driver DEVICE_NEEDS_RESET.
    fn start(&mut self, activation: Activation) -> Result<(), StartError>;

    /// Ends what [`start`](Self::start) began: completes what has been taken from the queues, ends
    /// the thread, and gives the queues back in their order. Afterwards nothing touches guest memory.
    /// The primitive under reset, pause and drop; may be called twice, or without a start, and then
    /// gives no queues.
    fn stop(&mut self) -> Vec<Queue>;

    /// The driver reset the device: what a driver can set goes back to its first value. Comes after
    /// [`stop`](Self::stop).
    fn reset(&mut self) {}

    /// The driver reset the queue with this index alone (2.6.1): nothing that was taken from it can be given
    /// back any more. Comes after [`stop`](Self::stop).
    fn reset_queue(&mut self, _index: usize) {}
}

/// What a device gets to work with while it is started.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: Arc<GuestMemory>,
    /// Negotiated features: a subset of those offered.
    pub features: u64,
    /// The device's queues, all of them, in their order. A queue that the driver left unused is
    /// there too, and is never [`ready`](Queue::ready).
    pub queues: Vec<ActiveQueue>,
    /// How the device reaches its driver.
    pub interrupt: Arc<dyn Interrupt>,
}

impl Activation {
    /// Takes all queues out, for a device that has `N` of them.
    ///
    /// # Errors
    ///
    /// [`StartError::QueueCount`] when there are more or fewer.
    pub fn take_queues<const N: usize>(&mut self) -> Result<[ActiveQueue; N], StartError> {
        <[ActiveQueue; N]>::try_from(std::mem::take(&mut self.queues)).map_err(|queues| {
            StartError::QueueCount {
                got: queues.len(),
                expected: N,
            }
        })
    }
}

/// A queue and the event by which the driver says that it has put something there.
#[derive(Debug)]
pub struct ActiveQueue {
    /// The queue.
    pub queue: Queue,
    /// Signalled by the driver's doorbell. Does not block when it is read.
    pub doorbell: EventFd,
}

/// A device's way to its driver.
///
/// Called on the device's thread; never blocks. Implemented by transports.
pub trait Interrupt: Debug + Send + Sync {
    /// Says that the queue with this index has used buffers (virtio 1.3, 2.3).
    fn signal_used(&self, queue_index: u16);

    /// Says that the configuration space has changed, and moves its generation on (2.5).
    fn signal_config_change(&self);

    /// Says that only a reset helps: sets DEVICE_NEEDS_RESET and, when the driver is up, sends a
    /// configuration change (2.1.1, 2.1.2). Logs `reason`, within limits.
    fn mark_broken(&self, reason: &dyn Display);
}

/// Why a device did not start. The driver's own mistakes are [`StartError::Queue`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host did not give a thread, an event or another resource.
    #[error("cannot {what}")]
    Host {
        /// What was wanted, to be read after "cannot".
        what: &'static str,
        /// What the host answered.
        #[source]
        source: io::Error,
    },
    /// The driver configured a queue that cannot be used.
    #[error("queue {index} cannot be used")]
    Queue {
        /// Index of the queue.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: QueueError,
    },
    /// The transport handed over another number of queues than the device has.
    #[error("the device got {got} queues and has {expected}")]
    QueueCount {
        /// Queues handed over.
        got: usize,
        /// Queues of the device.
        expected: usize,
    },
}
