//! Socket device (virtio 1.3, 5.10): streams between processes of the guest and of the host, without a network.
//!
//! [`Vsock`] is what the transport holds: features, configuration space, start and stop. While it is
//! started, its worker thread moves packets between the queues and unix sockets of the host
//! (task.rs). What comes from the host is read into the guest's buffers, and what comes from the guest is
//! written from them; only what a slow reader of the host leaves is copied. No packet costs an
//! allocation.
//!
//! | queue | index | |
//! |---|---|---|
//! | rx | 0 | packets for the guest |
//! | tx | 1 | packets of the guest |
//! | event | 2 | tells the driver that its connections are no more |
//!
//! rust-vmm's `virtio-vsock` parses packets from the chains of `virtio-queue`, and not from those of
//! [`queue`](crate::queue), which are checked as a whole; a header of fixed size is read by packet.rs.

mod backend;
mod byte_ring;
mod connection;
mod connections;
mod counters;
mod credit;
mod host_socket;
mod host_stream;
mod packet;
mod task;

use std::sync::Arc;

use vmm_sys_util::timerfd::TimerFd;

use crate::queue::Queue;
use crate::worker::Worker;
use crate::{Activation, StartError, VirtioDevice};

use backend::Backend;
pub use counters::{VsockCounters, VsockCounts};
pub use host_socket::HostSocket;
use task::VsockTask;

/// Device type of a socket device (5.10.1).
const DEVICE_TYPE: u32 = 19;
/// Largest size of each queue, in descriptors.
const QUEUE_MAX_SIZES: [u16; 3] = [256, 256, 16];
/// Sockets of streams (5.10.3).
const FEATURE_STREAM: u64 = 1 << 0;
/// The lowest context identifier that a guest can have: those below are the hypervisor's, loopback's and the
/// host's (5.10.4).
const CID_MIN: u32 = 3;
/// The highest one: the next is a word for any.
const CID_MAX: u32 = u32::MAX - 1;

/// What a vsock device is made of beside its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockOptions {
    /// What the device is called in the log and as a thread, for example `vsock`.
    pub name: String,
    /// The guest's context identifier, 3 to 2^32 - 2.
    pub guest_cid: u32,
    /// How many connections there can be at a time, 1 to [`Vsock::CONNECTIONS_MAX`]. Each has a buffer of
    /// 256 KiB for a host that does not read; memory is taken for it when it is needed.
    pub connections: u16,
    /// The driver goes on from a saved state, with connections that there are none of any more: it is told so
    /// (5.10.6.7).
    pub lost_connections: bool,
}

/// Why a vsock device cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VsockError {
    /// The context identifier is reserved.
    #[error("cid {cid} is reserved: use 3 to 4294967294")]
    ReservedCid {
        /// What was asked for.
        cid: u32,
    },
    /// The number of connections is out of its range.
    #[error(
        "connections {connections} is out of range: use 1 to {}",
        Vsock::CONNECTIONS_MAX
    )]
    Connections {
        /// What was asked for.
        connections: u16,
    },
}

impl VsockOptions {
    /// A device with `guest_cid` and [`Vsock::CONNECTIONS_DEFAULT`].
    pub fn new(name: impl Into<String>, guest_cid: u32) -> Self {
        Self {
            name: name.into(),
            guest_cid,
            connections: Vsock::CONNECTIONS_DEFAULT,
            lost_connections: false,
        }
    }

    /// Whether the options are such as a device can have.
    ///
    /// # Errors
    ///
    /// [`VsockError`] when one is out of its range.
    pub const fn check(&self) -> Result<(), VsockError> {
        let (cid, connections) = (self.guest_cid, self.connections);
        if cid < CID_MIN || cid > CID_MAX {
            return Err(VsockError::ReservedCid { cid });
        }
        if connections == 0 || connections > Vsock::CONNECTIONS_MAX {
            return Err(VsockError::Connections { connections });
        }
        Ok(())
    }
}

/// A vsock device on a unix socket of the host.
#[derive(Debug)]
pub struct Vsock {
    options: VsockOptions,
    host: Arc<HostSocket>,
    counters: Arc<VsockCounters>,
    worker: Option<Worker<VsockTask>>,
    /// The connections, while the device is stopped and its driver is not.
    backend: Option<Backend>,
}

impl Vsock {
    /// The most connections that a device can have at a time.
    pub const CONNECTIONS_MAX: u16 = 1024;
    /// How many there can be where nothing is said.
    pub const CONNECTIONS_DEFAULT: u16 = 256;

    /// A vsock device on `host`, which may be lent to one device after the other. `counters` go on with it.
    ///
    /// # Errors
    ///
    /// [`VsockError`] when an option is out of its range.
    pub fn new(
        host: Arc<HostSocket>,
        options: VsockOptions,
        counters: Arc<VsockCounters>,
    ) -> Result<Self, VsockError> {
        options.check()?;
        Ok(Self {
            options,
            host,
            counters,
            worker: None,
            backend: None,
        })
    }

    /// What passed and what did not, up to now and from now on.
    pub fn counters(&self) -> Arc<VsockCounters> {
        Arc::clone(&self.counters)
    }
}

impl VirtioDevice for Vsock {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        FEATURE_STREAM
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    /// `struct virtio_vsock_config` (5.10.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.options.guest_cid).to_le_bytes();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(config.iter().skip(skip)) {
            *to = *from;
        }
    }

    /// Nothing is writable.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn start(&mut self, mut activation: Activation) -> Result<(), StartError> {
        let queues = activation.take_queues::<3>()?;
        let [receive, transmit, event] = queues;
        let timer = TimerFd::new().map_err(|error| StartError::Host {
            what: "make a timer",
            source: error.into(),
        })?;
        let backend = match self.backend.take() {
            Some(backend) => backend,
            None => Backend::new(&self.options, Arc::clone(&self.host), self.counters()),
        };
        let task = VsockTask::new(
            backend,
            [receive.queue, transmit.queue, event.queue],
            timer,
            Arc::clone(&activation.interrupt),
            self.options.lost_connections,
        );
        let doorbells = vec![receive.doorbell, transmit.doorbell, event.doorbell];
        self.worker = Some(Worker::start(
            &self.options.name,
            task,
            doorbells,
            activation.interrupt,
        )?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let Some(task) = self.worker.take().and_then(Worker::stop) else {
            return Vec::new();
        };
        let (backend, queues, lost_connections) = task.into_parts();
        self.backend = Some(backend);
        self.options.lost_connections = lost_connections;
        queues
    }

    /// The guest's sockets are gone: the host's end with them.
    fn reset(&mut self) {
        self.options.lost_connections = false;
        if self.backend.take().is_some() {
            self.counters.set_open(0);
        }
    }
}

#[cfg(test)]
mod tests;
