//! Network device on a TAP interface (virtio 1.3, 5.1).
//!
//! [`Net`] is what the transport holds: features, configuration space, start and stop. While it is
//! started, its worker thread moves frames between the two queues and the tap (task.rs); a
//! frame is copied by the kernel alone, and costs no allocation.
//!
//! | queue | index | |
//! |---|---|---|
//! | receiveq1 | 0 | from the tap to the driver |
//! | transmitq1 | 1 | from the driver to the tap |

mod counters;
mod header;
mod mac;
mod offload;
mod receive;
mod stage;
mod task;
mod transmit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    VIRTIO_NET_S_LINK_UP,
};

use crate::queue::Queue;
use crate::tap::Tap;
use crate::worker::Worker;
use crate::{Activation, ActiveQueue, StartError, VirtioDevice};

pub use counters::{DirectionCounts, NetCounters};
pub use mac::{MacAddress, MacAddressError};
use offload::bit;
use receive::Receiver;
use task::{NetTask, Wait};
use transmit::Transmitter;

/// Device type of a network card (5.1.1).
const DEVICE_TYPE: u32 = 1;
/// Largest size of either queue, in descriptors.
const QUEUE_MAX_SIZES: [u16; 2] = [256, 256];
/// The smallest MTU that a device may offer (5.1.4.1).
const MIN_MTU_BYTES: u16 = 68;

/// What a network device is made of beside its tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetOptions {
    /// What the device is called in the log and as a thread, for example `net0`.
    pub name: String,
    /// The guest's address on the link.
    pub mac: MacAddress,
    /// The MTU that the guest is told, in bytes, at least 68; `None` leaves it to the guest. The
    /// tap's own is not changed by it.
    pub mtu: Option<u16>,
}

/// Why a network device cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The MTU is below the smallest that there is.
    #[error("an MTU of {mtu} is too small: it is 68 to 65535 bytes")]
    MtuTooSmall {
        /// What was asked for, in bytes.
        mtu: u16,
    },
}

/// A network device with one pair of queues.
#[derive(Debug)]
pub struct Net {
    options: NetOptions,
    tap: Arc<Tap>,
    worker: Option<Worker<NetTask>>,
    /// Shared with the worker, which notices when the tap vanishes.
    link_up: Arc<AtomicBool>,
    counters: Arc<NetCounters>,
}

impl Net {
    /// A network device on `tap`, which may be lent to one device after the other.
    ///
    /// # Errors
    ///
    /// [`NetError`] when an option is out of its range.
    pub fn new(tap: impl Into<Arc<Tap>>, options: NetOptions) -> Result<Self, NetError> {
        if let Some(mtu) = options.mtu
            && mtu < MIN_MTU_BYTES
        {
            return Err(NetError::MtuTooSmall { mtu });
        }
        Ok(Self {
            options,
            tap: tap.into(),
            worker: None,
            link_up: Arc::new(AtomicBool::new(true)),
            counters: Arc::default(),
        })
    }

    /// What passed and what did not, up to now and from now on.
    pub fn counters(&self) -> Arc<NetCounters> {
        Arc::clone(&self.counters)
    }

    /// `struct virtio_net_config` (5.1.4), as far as there are features for it.
    fn config(&self) -> [u8; 12] {
        let [m0, m1, m2, m3, m4, m5] = self.options.mac.octets();
        let link_up = if self.link_up.load(Ordering::Acquire) {
            VIRTIO_NET_S_LINK_UP
        } else {
            0
        };
        let [status, ..] = link_up.to_le_bytes();
        let max_queue_pairs = 1;
        let [mtu_low, mtu_high] = self.options.mtu.unwrap_or(0).to_le_bytes();
        [
            m0,
            m1,
            m2,
            m3,
            m4,
            m5,
            status,
            0,
            max_queue_pairs,
            0,
            mtu_low,
            mtu_high,
        ]
    }
}

impl VirtioDevice for Net {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        let mtu = if self.options.mtu.is_some() {
            bit(VIRTIO_NET_F_MTU)
        } else {
            0
        };
        bit(VIRTIO_NET_F_MAC)
            | bit(VIRTIO_NET_F_STATUS)
            | bit(VIRTIO_NET_F_MRG_RXBUF)
            | mtu
            | offload::features_of(self.tap.supported_offloads())
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(config.iter().skip(skip)) {
            *to = *from;
        }
    }

    /// Nothing is writable: the address is, only before virtio 1.0.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        let Activation {
            memory,
            features,
            queues,
            interrupt,
        } = activation;
        let got = queues.len();
        let [receive, transmit] =
            <[ActiveQueue; 2]>::try_from(queues).map_err(|_| StartError::QueueCount {
                got,
                expected: QUEUE_MAX_SIZES.len(),
            })?;
        if self.link_up.load(Ordering::Acquire) {
            self.tap
                .set_offloads(offload::offloads_of(features))
                .map_err(|source| StartError::Host {
                    what: "set the offloads of the tap",
                    source,
                })?;
        }
        let mtu_bytes = self
            .options
            .mtu
            .filter(|_| features & bit(VIRTIO_NET_F_MTU) != 0);
        let task = NetTask {
            name: self.options.name.clone(),
            receiver: Receiver::new(
                receive.queue,
                features,
                mtu_bytes,
                memory,
                Arc::clone(&self.counters),
            ),
            transmitter: Transmitter::new(transmit.queue, features, Arc::clone(&self.counters)),
            tap: Arc::clone(&self.tap),
            interrupt: Arc::clone(&interrupt),
            link_up: Arc::clone(&self.link_up),
            wait: Wait::default(),
        };
        let doorbells = vec![receive.doorbell, transmit.doorbell];
        self.worker = Some(Worker::start(
            &self.options.name,
            task,
            doorbells,
            interrupt,
        )?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let task = self.worker.take().and_then(Worker::stop);
        task.map(NetTask::into_queues).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
