//! virtio block device (virtio 1.3, 5.2): a [`block::Disk`] for a guest.
//!
//! Each queue has a thread (`task`) with an engine of the disk. The thread takes requests from its queue,
//! checks them (`request`), submits them to its engine, many at a time, and gives each back with its status
//! when it has completed. The configuration space (`config`) is read on vCPU threads; what a driver or the
//! host can change there is atomic.

mod config;
mod options;
mod polling;
mod request;
mod resizer;
mod serial;
mod shared;
mod task;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use block::{CacheMode, Disk, IoBuffer};
use virtio_bindings::bindings::virtio_blk as bindings;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::queue::{DescriptorChain, Queue};
use crate::worker::Worker;
use crate::{Activation, ActiveQueue, GuestMemory, StartError, VirtioDevice};
use config::ConfigSpace;
pub use options::{BlkOptions, ErrorListener, OnError};
use polling::Polling;
use resizer::DriverLine;
pub use resizer::Resizer;
pub use serial::{Serial, SerialTooLong};
use shared::Shared;
use task::{Requests, Task};

/// Device type (5).
const DEVICE_TYPE: u32 = 2;

const QUEUE_SIZE: u16 = 256;

/// Most queues of a disk.
pub const QUEUES_MAX: u16 = 64;

/// A virtio block device.
#[derive(Debug)]
pub struct Blk {
    options: BlkOptions,
    disk: Disk,
    features: u64,
    config: ConfigSpace,
    queue_sizes: Vec<u16>,
    shared: Arc<Shared>,
    driver: Arc<DriverLine>,
    queues: Vec<StartedQueue>,
    /// By queue: requests that failed, and are tried again at the next start.
    held: Vec<Vec<DescriptorChain>>,
}

/// A queue between start and stop.
#[derive(Debug)]
enum StartedQueue {
    /// With its thread.
    Served(Worker<Task>),
    /// The driver does not use it.
    Unused(Queue),
}

impl Blk {
    /// A device for `disk`, not started.
    pub fn new(disk: Disk, mut options: BlkOptions) -> Self {
        options.queues = options.queues.clamp(1, QUEUES_MAX);
        let shared = Shared::new(options.rate_limit, first_writeback(&disk));
        Self {
            features: offered_features(&disk, options.queues),
            config: ConfigSpace::new(&disk, options.queues),
            queue_sizes: vec![QUEUE_SIZE; usize::from(options.queues)],
            shared: Arc::new(shared),
            driver: Arc::default(),
            queues: Vec::new(),
            held: Vec::new(),
            options,
            disk,
        }
    }

    /// A handle that makes the disk larger while a guest uses it.
    pub fn resizer(&self) -> Resizer {
        Resizer::new(self.disk.clone(), Arc::clone(&self.driver))
    }

    fn start_queue(
        &mut self,
        index: usize,
        ActiveQueue { queue, doorbell }: ActiveQueue,
        activation: &Activation,
    ) -> Result<StartedQueue, StartError> {
        if !queue.ready() {
            return Ok(StartedQueue::Unused(queue));
        }
        let host = |what| move |source| StartError::Host { what, source };
        let depth = queue.size();
        let mut engine = self
            .disk
            .engine(self.options.engine, usize::from(depth))
            .map_err(host("make the disk's engine"))?;
        if self.options.hold_memory {
            // SAFETY: the task that gets the engine has the queue as well, which keeps the memory mapped.
            let held = unsafe { engine.register_memory(&pieces(&activation.memory)) };
            if let Err(error) = held {
                tracing::debug!(
                    device = self.options.name,
                    "the kernel does not hold the guest's memory: {error}"
                );
            }
        }
        let timer = self.shared.limiter.is_some().then(TimerFd::new).transpose();
        let timer = timer
            .map_err(io::Error::from)
            .map_err(host("make a timer"))?;
        let name = match index {
            0 => self.options.name.clone(),
            _ => format!("{}-{index}", self.options.name),
        };
        let task = Task {
            index: u16::try_from(index).unwrap_or(u16::MAX),
            queue,
            name: self.options.name.clone(),
            interrupt: Arc::clone(&activation.interrupt),
            engine,
            features: activation.features,
            serial: self.options.serial,
            on_error: self.options.on_error.clone(),
            shared: Arc::clone(&self.shared),
            timer,
            held: self
                .held
                .get_mut(index)
                .map(std::mem::take)
                .unwrap_or_default(),
            requests: Requests::with_room(depth),
            polling: Polling::new(),
            buffers: Vec::with_capacity(usize::from(QUEUE_SIZE)),
            untold: false,
        };
        let doorbells: Vec<EventFd> = vec![doorbell];
        let interrupt = Arc::clone(&activation.interrupt);
        Worker::start(&name, task, doorbells, interrupt).map(StartedQueue::Served)
    }
}

/// The guest's memory as the kernel can hold it.
fn pieces(memory: &GuestMemory) -> Vec<IoBuffer> {
    let mut pieces = Vec::new();
    for region in memory.iter() {
        if let Ok(slice) = region.as_volatile_slice() {
            // SAFETY: guest memory, for which there are no Rust references; it is mapped while the device
            // has it.
            pieces.push(unsafe { IoBuffer::new(slice.ptr_guard_mut().as_ptr(), slice.len()) });
        }
    }
    pieces
}

/// The cache that the driver finds: none where each write is durable anyway.
fn first_writeback(disk: &Disk) -> bool {
    disk.cache() != CacheMode::DirectSync
}

fn offered_features(disk: &Disk, queues: u16) -> u64 {
    let mut bits = vec![
        bindings::VIRTIO_BLK_F_SIZE_MAX,
        bindings::VIRTIO_BLK_F_SEG_MAX,
        bindings::VIRTIO_BLK_F_BLK_SIZE,
        bindings::VIRTIO_BLK_F_FLUSH,
        bindings::VIRTIO_BLK_F_TOPOLOGY,
    ];
    if queues > 1 {
        bits.push(bindings::VIRTIO_BLK_F_MQ);
    }
    if disk.readonly() {
        bits.push(bindings::VIRTIO_BLK_F_RO);
    } else {
        bits.push(bindings::VIRTIO_BLK_F_CONFIG_WCE);
        bits.push(bindings::VIRTIO_BLK_F_WRITE_ZEROES);
        if disk.can_discard() {
            bits.push(bindings::VIRTIO_BLK_F_DISCARD);
        }
    }
    bits.into_iter().fold(0, |all, bit| all | feature(bit))
}

/// The feature with this bit number, which is below 64.
fn feature(bit: u32) -> u64 {
    1_u64.wrapping_shl(bit)
}

impl VirtioDevice for Blk {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let writeback = self.shared.writeback.load(Ordering::Relaxed);
        self.config
            .read(self.disk.sectors(), writeback, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.features & feature(bindings::VIRTIO_BLK_F_CONFIG_WCE) == 0 {
            return;
        }
        if let Some(writeback) = ConfigSpace::written_cache_mode(offset, data) {
            self.shared.writeback.store(writeback, Ordering::Relaxed);
        }
    }

    fn start(&mut self, mut activation: Activation) -> Result<(), StartError> {
        let queues = std::mem::take(&mut activation.queues);
        if queues.len() != self.queue_sizes.len() {
            return Err(StartError::QueueCount {
                got: queues.len(),
                expected: self.queue_sizes.len(),
            });
        }
        if activation.features & feature(bindings::VIRTIO_BLK_F_FLUSH) == 0 {
            // A driver that cannot flush must not have to (5.2.5.2, 5.2.6.2).
            self.shared.writeback.store(false, Ordering::Relaxed);
        }
        self.shared.stop_said.store(false, Ordering::Release);
        for (index, queue) in queues.into_iter().enumerate() {
            match self.start_queue(index, queue, &activation) {
                Ok(queue) => self.queues.push(queue),
                Err(error) => {
                    // Those that have been started stop here.
                    self.queues.clear();
                    return Err(error);
                }
            }
        }
        self.driver.connect(activation.interrupt);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        self.driver.disconnect();
        let count = self.queues.len();
        let mut held = Vec::with_capacity(count);
        let mut stopped = Vec::with_capacity(count);
        for queue in self.queues.drain(..) {
            let (queue, failed) = match queue {
                StartedQueue::Unused(queue) => (queue, Vec::new()),
                StartedQueue::Served(worker) => match worker.stop() {
                    Some(task) => (task.queue, task.held),
                    // The thread panicked: there is nothing to go on with.
                    None => continue,
                },
            };
            stopped.push(queue);
            held.push(failed);
        }
        if count > 0 {
            self.held = held;
        }
        if stopped.len() == count {
            stopped
        } else {
            Vec::new()
        }
    }

    fn reset_queue(&mut self, index: usize) {
        if let Some(held) = self.held.get_mut(index) {
            held.clear();
        }
    }

    fn reset(&mut self) {
        self.held.clear();
        self.shared
            .writeback
            .store(first_writeback(&self.disk), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
