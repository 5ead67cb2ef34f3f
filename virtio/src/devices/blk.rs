//! virtio block device (virtio 1.3, 5.2): a [`block::Disk`] for a guest.
//!
//! One queue. The device's thread takes a request from it, checks it (`request`), submits it to the
//! disk's engine and gives it back with its status when it has completed. The configuration space
//! (`config`) is read on vCPU threads; what a driver can change there is one atomic.

mod config;
mod request;
mod serial;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{Disk, Engine, IoBuffer, IoError, Operation};
use virtio_bindings::bindings::virtio_blk as bindings;

use crate::queue::{DescriptorChain, Queue};
use crate::worker::{Fault, OwnEvents, Turn, Worker, WorkerTask, serve};
use crate::{Activation, ActiveQueue, Interrupt, StartError, VirtioDevice};
use config::ConfigSpace;
use request::{Parsed, Request, Status, parse};
pub use serial::{Serial, SerialTooLong};

/// Device type (5).
const DEVICE_TYPE: u32 = 2;

const QUEUE_SIZE: u16 = 256;
const QUEUE_MAX_SIZES: [u16; 1] = [QUEUE_SIZE];

/// Requests in one turn: a stop waits for no more.
const REQUESTS_PER_TURN: u16 = 16;

/// What a disk is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkOptions {
    /// In the log, and as a thread.
    pub name: String,
    /// What the guest reads as the disk's serial number.
    pub serial: Serial,
}

/// A virtio block device.
#[derive(Debug)]
pub struct Blk {
    options: BlkOptions,
    disk: Disk,
    features: u64,
    config: ConfigSpace,
    /// The driver knows of a volatile cache and flushes it (5.2.6.2); else each write is durable
    /// before it completes.
    writeback: Arc<AtomicBool>,
    worker: Option<Worker<Task>>,
}

impl Blk {
    /// A device for `disk`, not started.
    pub fn new(disk: Disk, options: BlkOptions) -> Self {
        Self {
            options,
            features: offered_features(&disk),
            config: ConfigSpace::new(&disk),
            disk,
            writeback: Arc::new(AtomicBool::new(true)),
            worker: None,
        }
    }
}

fn offered_features(disk: &Disk) -> u64 {
    let mut bits = vec![
        bindings::VIRTIO_BLK_F_SIZE_MAX,
        bindings::VIRTIO_BLK_F_SEG_MAX,
        bindings::VIRTIO_BLK_F_BLK_SIZE,
        bindings::VIRTIO_BLK_F_FLUSH,
        bindings::VIRTIO_BLK_F_TOPOLOGY,
    ];
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
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let writeback = self.writeback.load(Ordering::Relaxed);
        self.config.read(writeback, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.features & feature(bindings::VIRTIO_BLK_F_CONFIG_WCE) == 0 {
            return;
        }
        if let Some(writeback) = ConfigSpace::written_cache_mode(offset, data) {
            self.writeback.store(writeback, Ordering::Relaxed);
        }
    }

    fn start(&mut self, mut activation: Activation) -> Result<(), StartError> {
        let [ActiveQueue { queue, doorbell }] = activation.take_queues()?;
        let knows_flush = activation.features & feature(bindings::VIRTIO_BLK_F_FLUSH) != 0;
        if !knows_flush {
            // A driver that cannot flush must not have to (5.2.5.2, 5.2.6.2).
            self.writeback.store(false, Ordering::Relaxed);
        }
        let engine = self.disk.engine().map_err(|source| StartError::Host {
            what: "make the disk's engine",
            source,
        })?;
        let task = Task {
            chain: DescriptorChain::new(&queue),
            queue,
            interrupt: Arc::clone(&activation.interrupt),
            drive: Drive {
                engine,
                buffers: Vec::with_capacity(usize::from(QUEUE_SIZE)),
                features: activation.features,
                serial: self.options.serial,
                writeback: Arc::clone(&self.writeback),
                has_unflushed: knows_flush,
            },
        };
        self.worker = Some(Worker::start(
            &self.options.name,
            task,
            vec![doorbell],
            activation.interrupt,
        )?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        self.worker
            .take()
            .and_then(Worker::stop)
            .map_or_else(Vec::new, |task| vec![task.queue])
    }

    fn reset(&mut self) {
        self.writeback.store(true, Ordering::Relaxed);
    }
}

/// What the device's thread has.
#[derive(Debug)]
struct Task {
    queue: Queue,
    chain: DescriptorChain,
    interrupt: Arc<dyn Interrupt>,
    drive: Drive,
}

/// Requests of a driver become requests to an engine.
#[derive(Debug)]
struct Drive {
    engine: Engine,
    /// The buffers of the request under way.
    buffers: Vec<IoBuffer>,
    features: u64,
    serial: Serial,
    writeback: Arc<AtomicBool>,
    /// Writes may have completed that are not durable.
    has_unflushed: bool,
}

impl WorkerTask for Task {
    fn doorbell(
        &mut self,
        queue_index: usize,
        _events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault> {
        let drive = &mut self.drive;
        serve(
            0,
            &mut self.queue,
            &mut self.chain,
            &*self.interrupt,
            REQUESTS_PER_TURN,
            |chain| {
                let parsed = parse(chain).map_err(|what| Fault::Request {
                    index: queue_index,
                    what,
                })?;
                Ok(drive.answer(&parsed))
            },
        )
    }
}

impl Drive {
    /// Carries a request out and writes its status. Returns the bytes written to its buffers.
    fn answer(&mut self, parsed: &Parsed<'_>) -> u32 {
        let status = match &parsed.request {
            Ok(request) => self.carry_out(request),
            Err(status) => *status,
        };
        parsed.status.copy_from(&[status.code()]);
        // All that the driver gave: what is not written after an error is the driver's own memory.
        u32::try_from(parsed.writable_bytes).unwrap_or(u32::MAX)
    }

    fn carry_out(&mut self, request: &Request<'_>) -> Status {
        let result = match *request {
            Request::Read { data, .. } | Request::Write { data, .. }
                if data.len() > config::REQUEST_MAX_BYTES =>
            {
                return Status::IoError;
            }
            Request::Read { sector, data } => {
                self.collect(data);
                let buffers = &self.buffers;
                run(&mut self.engine, Operation::Read { sector, buffers })
            }
            Request::Write { sector, data } => self.write(|drive, durable| {
                drive.collect(data);
                let operation = Operation::Write {
                    sector,
                    buffers: &drive.buffers,
                    durable,
                };
                run(&mut drive.engine, operation)
            }),
            Request::Flush => self.flush(),
            Request::GetId { data } => {
                data.copy_from(self.serial.bytes());
                Ok(())
            }
            Request::Discard(range) => {
                if !self.negotiated(bindings::VIRTIO_BLK_F_DISCARD) || range.unmap {
                    return Status::Unsupported;
                }
                if range.sectors > config::DISCARD_MAX_SECTORS {
                    return Status::IoError;
                }
                let operation = Operation::Discard {
                    sector: range.sector,
                    length_bytes: range.length_bytes(),
                };
                run(&mut self.engine, operation)
            }
            Request::WriteZeroes(range) => {
                if !self.negotiated(bindings::VIRTIO_BLK_F_WRITE_ZEROES) {
                    return Status::Unsupported;
                }
                if range.sectors > config::WRITE_ZEROES_MAX_SECTORS {
                    return Status::IoError;
                }
                self.write(|drive, durable| {
                    let operation = Operation::WriteZeroes {
                        sector: range.sector,
                        length_bytes: range.length_bytes(),
                        may_unmap: range.unmap,
                        durable,
                    };
                    run(&mut drive.engine, operation)
                })
            }
        };
        match result {
            Ok(()) => Status::Ok,
            Err(IoError::Unsupported) => Status::Unsupported,
            Err(_) => Status::IoError,
        }
    }

    fn negotiated(&self, bit: u32) -> bool {
        self.features & feature(bit) != 0
    }

    /// Writes, durably where the driver expects no cache (5.2.6.2).
    fn write(
        &mut self,
        write: impl FnOnce(&mut Self, bool) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let durable = !self.writeback.load(Ordering::Relaxed);
        if !durable {
            self.has_unflushed = true;
        } else if self.has_unflushed {
            // The driver has just turned the cache off, and will flush no more what is in it.
            self.flush()?;
        }
        write(self, durable)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        run(&mut self.engine, Operation::Flush)?;
        self.has_unflushed = false;
        Ok(())
    }

    fn collect(&mut self, data: crate::queue::Buffers<'_>) {
        self.buffers.clear();
        self.buffers.extend(data.segments().map(|segment| {
            // SAFETY: the segment is guest memory, for which there are no Rust references. The chain
            // keeps it mapped, and the request completes before the chain is given back.
            unsafe { IoBuffer::new(segment.as_ptr(), segment.len()) }
        }));
    }
}

/// Submits and takes the completion, which this engine has at once.
fn run(engine: &mut Engine, operation: Operation<'_>) -> Result<(), IoError> {
    engine.submit(0, operation);
    match engine.next_completion() {
        Some(completion) => completion.result,
        None => Err(IoError::Host(io::ErrorKind::WouldBlock.into())),
    }
}

#[cfg(test)]
mod tests;
